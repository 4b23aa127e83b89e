"""Articulation: the phones that were said against those expected, with the places where they part.

Method: alignment-free goodness of pronunciation over the frames of a CTC phone recogniser (Cao et al. 2024), exchanges
restricted to English consonants, probability by logistic regression (kit/articulation.py). Role phonemes (default hama,
Apache-2.0; pronunciations of the CMU dictionary, BSD). Distinctive features by panphon (MIT); processes after Shriberg
& Kwiatkowski 1980; PCC after Shriberg & Kwiatkowski 1982; ages of acquisition after Crowe & McLeod 2020.
Limits: English. Calibrated on synthetic voices with planted errors for few false alarms: of such voices' errors about
one in three is missed (docs/engines/articulation.md: figures); checked on two adult speakers; never validated on
children's speech: observations for a professional who listens again, never a diagnosis. Vowels are judged only where
another vowel or none is heard; a distortion (a lisp that is no "th", a bunched r) has no phone of its own and shows, if
at all, as a phone that fits badly: low confidence. Patterns of a dialect or first language are no errors: name them.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from neuroedge.contract.articulation import (
    MAX_PHONES_OF_WORD,
    MAX_WORDS,
    NOTE,
    Addition,
    Input,
    Output,
    PhoneFinding,
    ProcessCount,
    SignalQuality,
    WordFinding,
)
from neuroedge.contract.engine import Engine, EngineContext, Health
from neuroedge.contract.errors import InvalidInput, MediaTooShort, ModelUnavailable, TooLarge
from neuroedge.contract.models import PHONEMES, VOICE_ACTIVITY, PhonemeRecogniser, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.kit import age_norms
from neuroedge.kit.articulation import (
    Doubles,
    Evidence,
    Expected,
    Judge,
    evidence,
    expected_of,
    mismatch,
    together,
    views,
)
from neuroedge.kit.articulation_findings import (
    ERRORS,
    MAX_MISFIT_NATS,
    confidence_of,
    explained,
    kind_of,
    processes_seen,
    unreliable,
)
from neuroedge.kit.phonology import (
    CONSONANTS,
    WEAK_WORDS,
    Slip,
    percent_consonants_correct,
    phones_of,
    pooled,
    position,
    processes_of,
)
from neuroedge.kit.signal import clipped_fraction, snr_db
from neuroedge.kit.voice_signal import telephone_band, voiced_share

METHOD: Final = "ctc-goodness+logistic"
MIN_DURATION_S: Final = 0.2
MAX_DURATION_S: Final = 60.0
_WORD: Final = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ]+(?:['’][A-Za-z]+)*")
_NUMBER: Final = re.compile(r"\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is expected, in words and phones."""

    words: list[str]
    phones: list[tuple[str, ...]]
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Heard:
    """A recording as the recogniser heard it, and what makes that unreliable."""

    quality: SignalQuality
    found: Evidence
    warnings: list[str]


@cache
def _judge() -> Judge:
    return Judge.shipped()


@cache
def _example() -> AudioSource:
    import base64

    data = resources.files("neuroedge").joinpath("weights", "articulation", "example.ogg").read_bytes()
    return AudioSource(base64=base64.b64encode(data).decode())


class Articulation(Engine[Input, Output]):
    """Phones said against phones expected, by goodness of pronunciation."""

    name = "articulation"
    title = "Articulation of expected words"
    method = METHOD
    example = Input(audio=_example(), text="he was not an ill disposed young man")
    needs = (PHONEMES, VOICE_ACTIVITY)
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Compare. Raises what decoding raises, InvalidInput, MediaTooShort, TooLarge, ModelUnavailable."""
        if payload.language.lower().split("-")[0] not in ("en", "eng"):
            raise _refused(
                "language",
                f"the recogniser is calibrated for English, not for '{payload.language}'",
                hint="leave `language` out for English words; other languages are not supported",
            )
        recordings = [await ctx.media.audio(source) for source in (payload.audio, *payload.repetitions)]
        for audio in recordings:
            _check_length(audio)
        async with ctx.models.lease(VOICE_ACTIVITY) as voice:
            spoken = [(audio, await voice.speech(audio.samples)) for audio in recordings]
            models = [voice.model_id]
        qualities = await asyncio.to_thread(lambda: [_quality(*one) for one in spoken])
        async with ctx.models.lease(PHONEMES) as recogniser:
            models.append(recogniser.model_id)
            asked = await _asked(payload, recogniser)
            if not any(speech for _, speech in spoken):
                return _nothing(asked, qualities[0], models)
            heard = []
            for k, (audio, speech) in enumerate(spoken):
                if speech:
                    heard += await _heard(audio, speech, qualities[k], asked, recogniser)
                await ctx.progress(self.name, (k + 1) / (len(spoken) + 1))
        if not heard:
            return _nothing(asked, qualities[0], models, why="the recording is too short for the expected words")
        return await asyncio.to_thread(_output, payload, asked, heard, models)

    async def health(self) -> Health:
        """Ready says nothing of validity: the answer's detail does."""
        health = await super().health()
        return health if health.detail else health.model_copy(update={"detail": NOTE})

    async def post_swap_test(self) -> None:
        """The example, read well: most of its consonants must be found right."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if answer.pcc_percent is None or answer.pcc_percent < 80:
            raise ModelUnavailable(f"only {answer.pcc_percent} % of the consonants of well-read words are found right")


def _refused(field: str, message: str, *, hint: str) -> InvalidInput:
    return InvalidInput(message, hint=hint, errors=[{"loc": [field], "msg": message, "type": "value_error"}])


def _check_length(audio: Audio) -> None:
    if audio.duration_s < MIN_DURATION_S:
        raise MediaTooShort(
            f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record the whole word"
        )
    if audio.duration_s > MAX_DURATION_S:
        raise TooLarge(
            f"{audio.duration_s:.0f} s of audio; at most {MAX_DURATION_S:.0f} s", hint="send a sentence at a time"
        )


def _quality(audio: Audio, speech: Sequence[Span]) -> SignalQuality:
    snr = snr_db(audio.samples, speech)
    return SignalQuality(
        duration_s=round(audio.duration_s, 3),
        speech_s=round(sum(s.end_s - s.start_s for s in speech), 3),
        snr_db=None if snr is None else round(snr, 1),
        clipping_percent=round(100 * clipped_fraction(audio.samples), 3),
        telephone_band=audio.source_rate_hz <= 8000 or telephone_band(audio.samples),
    )


async def _asked(payload: Input, recogniser: PhonemeRecogniser) -> _Asked:
    """The expected words as phones. Raises InvalidInput naming the field."""
    if payload.expected_ipa is not None:
        words = list(payload.expected_ipa)
        phones = [tuple(phones_of(word)) for word in words]
        return _Asked(words=words, phones=phones, expected=expected_of(phones, weak=[False] * len(words)))
    text = payload.text or ""
    if _NUMBER.search(text):
        raise _refused("text", "write numbers as words", hint="3 can be said in several ways: write 'three'")
    words = _WORD.findall(text)
    if not 1 <= len(words) <= MAX_WORDS:
        raise _refused("text", f"{len(words)} words; give 1 to {MAX_WORDS}", hint="write English words")
    ways = await recogniser.pronounce(words)
    phones = []
    for word, way in zip(words, ways, strict=True):
        try:
            phones.append(tuple(phones_of("".join(way[0]))))
        except (ValueError, IndexError):
            phones.append(())
        if not 1 <= len(phones[-1]) <= MAX_PHONES_OF_WORD:
            raise _refused(
                "text", f"no English pronunciation is known for '{word[:40]}'", hint="give `expected_ipa` instead"
            )
    weak = [len(words) > 1 and word.lower() in WEAK_WORDS for word in words]
    return _Asked(words=words, phones=phones, expected=expected_of(phones, weak=weak))


async def _heard(
    audio: Audio, speech: Sequence[Span], quality: SignalQuality, asked: _Asked, recogniser: PhonemeRecogniser
) -> list[_Heard]:
    """What one recording holds; nothing where it is too short for the expected phones."""
    frames: list[tuple[Doubles, float]] = []
    frame_s = 0.0
    for wave, slower in await asyncio.to_thread(lambda: list(views(audio.samples))):
        heard = await recogniser.posteriors(wave)
        frame_s = heard.frame_s
        frames.append((await asyncio.to_thread(pooled, heard.log_p, heard.symbols, heard.blank), slower))
    try:
        found = await asyncio.to_thread(evidence, frames, asked.expected, frame_s=frame_s)
    except ValueError:
        return []
    return [await asyncio.to_thread(_weighed, audio, speech, quality, asked, found)]


def _weighed(audio: Audio, speech: Sequence[Span], quality: SignalQuality, asked: _Asked, found: Evidence) -> _Heard:
    warnings = unreliable(
        found,
        asked.expected,
        snr_db=quality.snr_db,
        clipping_percent=quality.clipping_percent,
        telephone_band=quality.telephone_band,
        voiced=voiced_share(audio.samples, speech),
    )
    return _Heard(quality=quality, found=found, warnings=warnings)


def _nothing(asked: _Asked, quality: SignalQuality, models: list[str], *, why: str = "nobody speaks") -> Output:
    """The answer to a recording that cannot be compared."""
    return Output(
        method=METHOD,
        models=models,
        phones=[],
        additions=[],
        words=[],
        heard_ipa="",
        pcc_percent=None,
        consonants=sum(phone in CONSONANTS for phone in asked.expected.phones),
        errors=0,
        errors_not_expected_at_age=None,
        processes=[],
        mismatch=1.0,
        misfit_nats=None,
        signal=quality,
        recordings=0,
        norms=None,
        reliable=False,
        warnings=[f"unreliable: {why}"],
    )


def _output(payload: Input, asked: _Asked, heard: Sequence[_Heard], models: list[str]) -> Output:
    """Judge every phone by the recordings that nothing speaks against, else by the first, and sum up."""
    used = [one for one in heard if not one.warnings] or heard[:1]
    found, warnings = together([one.found for one in used]), used[0].warnings
    age = payload.child_age_years
    told = {
        "heard_ipa": " ".join(found.heard),
        "mismatch": round(mismatch(asked.expected.phones, found.heard), 3),
        "misfit_nats": round(found.misfit_nats, 2),
        "recordings": len(used),
        "norms": age_norms.SOURCE if age and age_norms.has_norms(age) else None,
        "reliable": not warnings,
        "warnings": warnings + _remarks(payload, heard, used),
    }
    answer = _nothing(asked, used[0].quality, models).model_copy(update=told)
    if found.misfit_nats > MAX_MISFIT_NATS:
        return answer
    phones, slips = _phones(payload, asked, found, _judge(), sure=not warnings)
    slipped = [i for i, p in enumerate(phones) if p.type != "correct"]
    additions, added = _additions(asked, found, _judge(), slipped, sure=not warnings)
    wrong = [i for i, p in enumerate(phones) if p.type in ERRORS]
    pcc = percent_consonants_correct(asked.expected.phones, wrong)
    return answer.model_copy(
        update={
            "phones": phones,
            "additions": additions,
            "words": _words(asked, found, phones, additions),
            "pcc_percent": None if pcc is None else round(pcc, 1),
            "errors": len(wrong) + len(additions),
            "errors_not_expected_at_age": _not_expected(payload, phones),
            "processes": _processes(asked, [*slips, *added]),
        }
    )


def _remarks(payload: Input, heard: Sequence[_Heard], used: Sequence[_Heard]) -> list[str]:
    """What to mind in an answer that may be reliable."""
    age, given = payload.child_age_years, 1 + len(payload.repetitions)
    out = []
    if len(used) < given:
        why = next((one.warnings[0] for one in heard if one not in used and one.warnings), "no such words in it")
        out.append(f"{given - len(used)} of {given} recordings are left out, the first for this: {why}")
    if age is not None and not age_norms.has_norms(age):
        out.append("there are norms from 2 to 17 years only: nothing is said of the age")
    return out


def _phones(
    payload: Input, asked: _Asked, found: Evidence, judge: Judge, *, sure: bool
) -> tuple[list[PhoneFinding], list[tuple[int, Slip]]]:
    """A finding for each expected phone, and the slips that are errors with their words."""
    opinions = judge.opinions(found, asked.expected)
    findings: list[PhoneFinding] = []
    slips: list[tuple[int, Slip]] = []
    for i, opinion in enumerate(opinions):
        w = asked.expected.word_of(i)
        place = i - asked.expected.words[w][0]
        slip = judge.slip(asked.phones[w], place, opinion)
        kind, dialect = kind_of(slip, dialects=payload.dialect_patterns, weak=asked.expected.reduced[i])
        if slip is not None and kind in ERRORS:
            slips.append((w, slip))
        findings.append(
            PhoneFinding(
                word=w,
                expected=asked.phones[w][place],
                type=kind,
                position=position(asked.phones[w], place),
                start_s=round(float(found.times_s[i, 0]), 2),
                end_s=round(float(found.times_s[i, 1]), 2),
                gop_nats=round(opinion.gop_nats, 3),
                p_error=round(opinion.p_error, 4),
                confidence=confidence_of(opinion.p_error, distortion=kind == "distortion", sure=sure),
                dialect_pattern=dialect,
                **explained(asked.phones[w][place], slip, error=kind in ERRORS, age_years=payload.child_age_years),
            )
        )
    return findings, slips


def _additions(
    asked: _Asked, found: Evidence, judge: Judge, slipped: Sequence[int], *, sure: bool
) -> tuple[list[Addition], list[tuple[int, Slip]]]:
    out: list[Addition] = []
    slips: list[tuple[int, Slip]] = []
    for w, place, heard, gain in judge.additions(found, asked.expected, slipped=slipped):
        start = asked.expected.words[w][0]
        if asked.expected.reduced[start]:
            continue
        slip = Slip(type="addition", word=asked.phones[w], place=place - start, heard=heard)
        slips.append((w, slip))
        out.append(
            Addition(
                word=w,
                before=slip.place,
                heard=heard,
                gain_nats=round(gain, 2),
                processes=[name for name, _ in processes_of(slip)],
                confidence="medium" if sure else "low",
            )
        )
    return out, slips


def _words(
    asked: _Asked, found: Evidence, phones: Sequence[PhoneFinding], additions: Sequence[Addition]
) -> list[WordFinding]:
    more = {a.word for a in additions}
    return [
        WordFinding(
            word=word,
            expected=" ".join(asked.phones[w]),
            start_s=phones[start].start_s,
            end_s=phones[end - 1].end_s,
            said_as_expected=w not in more and all(p.type not in ERRORS for p in phones[start:end]),
            p_error=max(p.p_error for p in phones[start:end]),
        )
        for w, (word, (start, end)) in enumerate(zip(asked.words, asked.expected.words, strict=True))
    ]


def _not_expected(payload: Input, phones: Sequence[PhoneFinding]) -> int | None:
    age = payload.child_age_years
    if age is None or not age_norms.has_norms(age):
        return None
    return sum(p.age_expected is False for p in phones)


def _processes(asked: _Asked, slips: Sequence[tuple[int, Slip]]) -> list[ProcessCount]:
    return [
        ProcessCount(name=p.name, definition=p.definition, count=p.count, examples=p.examples)
        for p in processes_seen(asked.words, slips)
    ]
