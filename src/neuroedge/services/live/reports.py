"""What a session says of an utterance."""

from collections.abc import Sequence
from typing import Any

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.models import SAMPLE_RATE_HZ
from neuroedge.kit.speakers_to_words import TimedWord, joined
from neuroedge.services.live.utterance import Heard, Utterance

_MIN_LOGPROB = -1.0
_MAX_NO_SPEECH = 0.6
"""Whisper's own thresholds for a piece it should not be trusted with."""
_MIN_P = 0.5
_MAX_CLIPPED = 0.005
_MAX_ERRORS = 20


def seconds(sample: int) -> float:
    """Time of a sample from the stream's start."""
    return round(sample / SAMPLE_RATE_HZ, 3)


def problem(error: NeuroEdgeError) -> dict[str, Any]:
    """The fields of an error's problem document."""
    told: dict[str, Any] = {"status": error.status, "code": error.code, "detail": error.detail, "hint": error.hint}
    retry_s = error.usual_retry_after_s if error.retry_after_s is None else error.retry_after_s
    if retry_s is not None:
        told["retry_after_s"] = retry_s
    if isinstance(error, InvalidInput) and error.errors:
        told["errors"] = [{**e, "loc": list(e["loc"])} for e in error.errors[:_MAX_ERRORS]]
    return told


def partial(utterance: Utterance) -> dict[str, Any]:
    """What is heard of an utterance so far: the stable part will not change any more."""
    stable, unstable = utterance.agreement.stable, utterance.agreement.unstable
    text, firm = joined([*stable, *unstable]), joined(stable)
    return {
        "utterance": utterance.number,
        "start_s": seconds(utterance.speech_start),
        "text": text,
        "stable": firm,
        "unstable": text[len(firm) :],
        "language": utterance.language,
        "words": [*_words(stable, stable=True), *_words(unstable, stable=False)],
    }


def final(
    utterance: Utterance,
    words: Sequence[TimedWord],
    heard: Heard | None,
    *,
    clipped: float,
    failure: NeuroEdgeError | None,
) -> dict[str, Any]:
    """The text of an utterance, and why it may not be right."""
    warnings: list[str] = []
    if failure is not None:
        warnings.append(f"only what was heard before the end: {failure.detail}")
    if heard is not None and (heard.avg_logprob < _MIN_LOGPROB or heard.no_speech_prob > _MAX_NO_SPEECH):
        warnings.append("the recogniser doubts that this is speech it understands")
    if sum(word.p for word in words) / len(words) < _MIN_P:
        warnings.append("most words are uncertain")
    if clipped > _MAX_CLIPPED:
        warnings.append("the sound is overdriven (clipped)")
    return {
        **_of(utterance),
        "text": joined(words),
        "language": heard.language if heard is not None else utterance.language,
        "language_p": round(heard.language_p, 4) if heard is not None else 0.0,
        "words": _words(words),
        "reliable": not warnings,
        "warnings": warnings,
    }


def nothing(utterance: Utterance) -> dict[str, Any]:
    """Something was taken for speech in which no word was recognised."""
    return {
        **_of(utterance),
        "text": "",
        "language": None,
        "language_p": 0.0,
        "words": [],
        "reliable": False,
        "warnings": ["no words were recognised"],
    }


def _of(utterance: Utterance) -> dict[str, Any]:
    end = utterance.end if utterance.end is not None else utterance.speech_start
    return {
        "utterance": utterance.number,
        "start_s": seconds(utterance.speech_start),
        "end_s": seconds(end),
    }


def _words(words: Sequence[TimedWord], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "w": word.w.strip(),
            "start_s": round(word.start_s, 3),
            "end_s": round(word.end_s, 3),
            "p": round(word.p, 4),
            **more,
        }
        for word in words
    ]
