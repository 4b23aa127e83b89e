"""Emotion of spoken words, and how activated the voice sounds: two separate answers for each segment.

Words: GoEmotions' 27 emotions and neutral (Demszky et al. 2020), and their grouping to Ekman's six and neutral, by a
head over a sentence vector and the text's words, with Platt-scaled probabilities (Platt 1999) and abstention. Role
emotion_text; the default head is trained in NeuroEdge (docs/engines/emotion.md: data, figures). Apache-2.0.
Voice: arousal from loudness, pitch and rate of speech against the speaker's own other segments (kit/arousal.py);
relative and uncalibrated, and only where the organisation's switch voice_emotion allows it: off by default.
Valence: of the words alone, from the sentiment groups of GoEmotions (Demszky et al. 2020, figure 2); none from the
voice, as prosody does not carry it reliably enough (Scherer 2003).
Limits: English words only, learnt from Reddit comments; irony and context are not understood. What a text expresses is
not what a person feels. Never a diagnosis. The EU AI Act, Art. 5(1)(f), prohibits inferring emotions of people at work
or in education from their voice, but for medical or safety reasons.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import EMOTION_TEXT, TEXT_EMBEDDING, Floats, TextClassifier, TextEncoder
from neuroedge.contract.ports import VOICE_EMOTION, AudioSource
from neuroedge.kit.arousal import METHOD as VOICE_METHOD
from neuroedge.kit.arousal import Arousal, VoiceSegment, judged, measured, stretches
from neuroedge.kit.pitch import Doubles

GROUP_PREFIX = "ekman:"
"""Marks the outputs of a head that are groups of emotions."""
WORDS_METHOD = "vector-and-words-head"
VECTOR_METHOD = "vector-head"
MIN_WORDS = 2
MAX_LABELS = 5
VALENCE_REASON = "not given: the voice tells how activated someone sounds, not reliably whether that is pleasant"
SWITCHED_OFF = "switched off; an administrator can allow it with a purpose (PUT /v1/settings/switches, voice_emotion)"
POSITIVE = (
    *("admiration", "amusement", "approval", "caring", "desire", "excitement"),
    *("gratitude", "joy", "love", "optimism", "pride", "relief"),
)
NEGATIVE = (
    *("anger", "annoyance", "disappointment", "disapproval", "disgust"),
    *("embarrassment", "fear", "grief", "nervousness", "remorse", "sadness"),
)
"""GoEmotions' own groups; confusion, curiosity, realization and surprise are in neither."""
_BATCH = 128
_NOTHING: Doubles = np.zeros(0)


@runtime_checkable
class TextReadingClassifier(TextClassifier, Protocol):
    """A head that also reads the words, knows its encoder and when to abstain."""

    embedding_model: str
    abstain_below: float

    async def predict_texts(self, vectors: Floats, texts: Sequence[str]) -> Floats:
        """Probabilities [n, len(labels)] for `texts` and their sentence vectors [n, dim]."""
        ...


class SpokenSegment(BaseModel):
    """A stretch of speech with its words."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=4000, description="The words; empty if only the voice is of interest.")
    start_s: float | None = Field(default=None, ge=0, description="Start, in seconds from the start of the audio.")
    end_s: float | None = Field(default=None, ge=0, description="End, in seconds from the start of the audio.")
    speaker: str | None = Field(default=None, max_length=200, description="Whose voice it is; needed for arousal.")

    @model_validator(mode="after")
    def _times_agree(self) -> "SpokenSegment":
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("give both of 'start_s' and 'end_s', or none")
        if self.start_s is not None and self.end_s is not None and self.end_s < self.start_s:
            raise ValueError("'end_s' must not be before 'start_s'")
        return self


class Input(EngineInput):
    """Segments of a recording, with its audio where the voice is to be heard too."""

    segments: list[SpokenSegment] = Field(min_length=1, max_length=2000, description="Segments in order of time.")
    audio: AudioSource | None = Field(default=None, description="The recording; without it no arousal is given.")
    language: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]+)*$",
        description="Language of the words (BCP 47), if known.",
    )


class Labelled(BaseModel):
    """An emotion with its probability."""

    label: str = Field(description="Name of the emotion.")
    p: float = Field(description="Calibrated probability (0..1) that readers see this emotion in the words.")


class SegmentEmotion(BaseModel):
    """What the words of a segment express, and how activated its voice sounds; the two are independent."""

    labels: list[Labelled] = Field(description="Emotions above their thresholds, best first, at most 5.")
    ekman: list[Labelled] = Field(description="The same in seven groups: anger, disgust, fear, joy, sadness, ….")
    abstained: bool = Field(description="Whether the words are too few or too unclear for an answer.")
    reason: str | None = Field(description="Why it abstained on the words.")
    words_valence: float | None = Field(
        default=None,
        description="-1 to 1: how much more likely the words carry a pleasant emotion than an unpleasant one; null "
        "when abstained. Of the words alone, not calibrated as a difference.",
    )
    words_uncertain: bool = Field(
        default=True, description="Whether the words were not judged, or their best emotion is less likely than not."
    )
    truncated: bool = Field(description="Whether the text was longer than the sentence encoder reads.")
    arousal: float | None = Field(description="-1 to 1 against the speaker's other segments; 0 is usual, not calm.")
    arousal_reason: str | None = Field(description="Why there is no arousal.")
    arousal_uncertain: bool = Field(
        default=True,
        description="Whether there is no arousal, or its measures (loudness, pitch, range, rate) do not agree that it "
        "differs from usual.",
    )
    valence: None = Field(default=None, description="Never given from the voice.")
    valence_reason: str = Field(default=VALENCE_REASON, description="Why there is no valence.")


class Summary(BaseModel):
    """Over all segments."""

    segments: int = Field(description="Segments in all.")
    abstained: int = Field(description="Segments without an answer on their words.")
    labels: dict[str, float] = Field(description="Share of the answered segments whose words carry the emotion.")
    ekman: dict[str, float] = Field(description="Share of the answered segments by group of emotions.")
    arousal_segments: int = Field(description="Segments with an arousal.")


class OverallEmotion(BaseModel):
    """An emotion over the whole input."""

    label: str = Field(description="Name of the emotion.")
    score: float = Field(description="Mean probability (0..1) over the segments whose words were answered.")


class Output(EngineOutput):
    """Emotion for each segment, in the order given."""

    segments: list[SegmentEmotion] = Field(description="One for each segment of the input, in its order.")
    emotions: list[OverallEmotion] = Field(description="Emotions any segment carries, by mean probability.")
    summary: Summary = Field(description="Distribution over the segments.")
    text_method: str = Field(description="How the words were judged; 'none' when no text was.")
    voice_method: str = Field(description="How the voice was judged; 'none' without audio, or switched off.")
    notes: list[str] = Field(default_factory=list, description="What was left out, and why.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """The head's answer on one text."""

    labels: list[Labelled]
    ekman: list[Labelled]
    reason: str | None
    truncated: bool = False
    probabilities: dict[str, float]


class Emotion(Engine[Input, Output]):
    """Emotions of the words by a trained head; arousal of the voice from prosody."""

    name = "emotion"
    title = "Emotion of words and arousal of voice"
    method = "goemotions-head+prosody"
    example = Input(segments=[SpokenSegment(text="Thank you so much, that is wonderful news!")])
    needs = (TEXT_EMBEDDING, EMOTION_TEXT)
    timeout_s = 3600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Judge words and voice. Raises what decoding raises, InvalidInput for times outside, ModelUnavailable."""
        heard = payload.audio is not None and await ctx.switches.allowed(VOICE_EMOTION)
        voices = await _voices(payload, ctx) if heard else _unheard(payload)
        words, text_method, models = await _words(payload, ctx)
        segments = [
            SegmentEmotion(
                labels=w.labels,
                ekman=w.ekman,
                abstained=w.reason is not None,
                reason=w.reason,
                words_valence=_valence(w),
                words_uncertain=max((label.p for label in w.labels), default=0.0) < 0.5,
                truncated=w.truncated,
                arousal=None if v.value is None else round(v.value, 3),
                arousal_reason=v.reason,
                arousal_uncertain=v.uncertain,
            )
            for w, v in zip(words, voices, strict=True)
        ]
        return Output(
            method=self.method,
            models=models,
            segments=segments,
            emotions=_overall(words),
            summary=_summary(segments),
            text_method=text_method,
            voice_method=VOICE_METHOD if heard else "none",
            notes=[f"emotion from the voice is {SWITCHED_OFF}"] if payload.audio is not None and not heard else [],
        )

    async def post_swap_test(self) -> None:
        """The example, whose thanks must not go unnoticed."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if not answer.segments[0].labels:
            raise ModelUnavailable("the emotion head finds nothing in its own example")


async def _words(payload: Input, ctx: EngineContext) -> tuple[list[_Words], str, list[str]]:
    """The head's answer on each text, its method and models; texts it cannot judge are not sent to it."""
    found = [_unjudged(_why_not(s.text, payload.language)) for s in payload.segments]
    todo = [i for i, answer in enumerate(found) if answer.reason is None]
    if not todo:
        return found, "none", []
    async with ctx.models.lease(TEXT_EMBEDDING) as encoder, ctx.models.lease(EMOTION_TEXT) as head:
        _check_pair(encoder, head)
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            answers = await _judge([payload.segments[i].text for i in batch], encoder, head)
            for i, answer in zip(batch, answers, strict=True):
                found[i] = answer
            await ctx.progress("emotion", (start + len(batch)) / len(todo))
        method = WORDS_METHOD if isinstance(head, TextReadingClassifier) else VECTOR_METHOD
        return found, method, [encoder.model_id, head.model_id]


def _why_not(text: str, language: str | None) -> str | None:
    if language is not None and language.lower().split("-")[0] not in ("en", "eng"):
        return f"the head knows English words, not '{language}'"
    words = sum(any(c.isalnum() for c in token) for token in text.split())
    return f"fewer than {MIN_WORDS} words" if words < MIN_WORDS else None


def _check_pair(encoder: TextEncoder, head: TextClassifier) -> None:
    """Vectors of another encoder would give plausible nonsense."""
    if isinstance(head, TextReadingClassifier) and head.embedding_model != encoder.model_id:
        raise ModelUnavailable(
            f"{head.model_id} is trained on vectors of {head.embedding_model}, not of {encoder.model_id}",
            hint=f"set text_embedding to {head.embedding_model} or emotion_text to a head for {encoder.model_id}",
        )


async def _judge(texts: list[str], encoder: TextEncoder, head: TextClassifier) -> list[_Words]:
    embedded = await encoder.encode(texts)
    level = 0.0
    if isinstance(head, TextReadingClassifier):
        probabilities = await head.predict_texts(embedded.vectors, texts)
        level = head.abstain_below
    else:
        probabilities = await head.predict(embedded.vectors)
    return [
        _answer(p, head, level=level, truncated=tokens >= encoder.max_tokens)
        for p, tokens in zip(probabilities, embedded.tokens, strict=True)
    ]


def _answer(p: Floats, head: TextClassifier, *, level: float, truncated: bool) -> _Words:
    """Labels above their thresholds, or the reason for none."""
    best = float(p.max())
    if best < level:
        return _unjudged(f"unclear: the best probability {best:.2f} is below {level:.2f}", truncated=truncated)
    above = [
        Labelled(label=head.labels[i], p=round(float(p[i]), 4)) for i in np.argsort(-p) if p[i] >= head.thresholds[i]
    ]
    if not above:
        return _unjudged("no emotion reaches its threshold", truncated=truncated)
    groups = [
        Labelled(label=a.label.removeprefix(GROUP_PREFIX), p=a.p) for a in above if a.label.startswith(GROUP_PREFIX)
    ]
    labels = [a for a in above if not a.label.startswith(GROUP_PREFIX)]
    return _Words(
        labels=labels[:MAX_LABELS],
        ekman=groups,
        reason=None,
        truncated=truncated,
        probabilities=dict(zip(head.labels, p.tolist(), strict=True)),
    )


def _unjudged(reason: str | None, *, truncated: bool = False) -> _Words:
    return _Words(labels=[], ekman=[], reason=reason, truncated=truncated, probabilities={})


def _valence(words: _Words) -> float | None:
    """Probability of the likeliest pleasant emotion less that of the likeliest unpleasant one."""
    if words.reason is not None:
        return None
    pleasant = max((p for label, p in words.probabilities.items() if label in POSITIVE), default=None)
    unpleasant = max((p for label, p in words.probabilities.items() if label in NEGATIVE), default=None)
    return None if pleasant is None or unpleasant is None else round(pleasant - unpleasant, 3)


def _unheard(payload: Input) -> list[Arousal]:
    reason = "no audio given" if payload.audio is None else SWITCHED_OFF
    return [Arousal(value=None, reason=reason)] * len(payload.segments)


async def _voices(payload: Input, ctx: EngineContext) -> list[Arousal]:
    """Arousal of each segment; one analysis of the whole recording, in a thread."""
    assert payload.audio is not None
    audio = await ctx.media.audio(payload.audio)
    timed: dict[int, VoiceSegment] = {}
    for i, s in enumerate(payload.segments):
        if s.start_s is None or s.end_s is None:
            continue
        if s.start_s > audio.duration_s:
            raise InvalidInput(
                f"segment {i} starts at {s.start_s:.2f} s, but the audio lasts {audio.duration_s:.2f} s",
                hint="times are seconds from the start of the audio",
            )
        words = len(s.text.split())
        timed[i] = VoiceSegment(
            start_s=s.start_s,
            end_s=min(s.end_s, audio.duration_s),
            speaker=s.speaker,
            words=words if words >= MIN_WORDS else None,
        )
    spoken = list(timed.values())
    found: list[Doubles] = [_NOTHING] * len(spoken)
    groups = stretches(spoken)
    for number, group in enumerate(groups):
        part = await asyncio.to_thread(measured, audio.samples, [spoken[i] for i in group])
        for i, measures in zip(group, part, strict=True):
            found[i] = measures
        await ctx.progress("voice", (number + 1) / len(groups))
    by_segment = dict(zip(timed, judged(found, spoken), strict=True))
    untimed = Arousal(value=None, reason="no times given for this segment")
    return [by_segment.get(i, untimed) for i in range(len(payload.segments))]


def _overall(words: Sequence[_Words]) -> list[OverallEmotion]:
    """Mean probability, over the answered segments, of each emotion that at least one of them carries."""
    answered = [w for w in words if w.reason is None]
    carried = {label.label for w in answered for label in w.labels}
    means = {label: sum(w.probabilities[label] for w in answered) / len(answered) for label in carried}
    ranked = sorted(means, key=lambda label: (-means[label], label))
    return [OverallEmotion(label=label, score=round(means[label], 4)) for label in ranked]


def _summary(segments: Sequence[SegmentEmotion]) -> Summary:
    answered = [s for s in segments if not s.abstained]
    return Summary(
        segments=len(segments),
        abstained=len(segments) - len(answered),
        labels=_shares([[x.label for x in s.labels] for s in answered]),
        ekman=_shares([[x.label for x in s.ekman] for s in answered]),
        arousal_segments=sum(s.arousal is not None for s in segments),
    )


def _shares(named: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of the items that name each label, most frequent first."""
    counts: dict[str, int] = {}
    for names in named:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: round(counts[name] / len(named), 4) for name in ranked}
