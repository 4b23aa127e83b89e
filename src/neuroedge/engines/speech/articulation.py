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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import InvalidInput, MediaTooShort, ModelUnavailable, TooLarge
from neuroedge.contract.models import PHONEMES, VOICE_ACTIVITY, PhonemeRecogniser, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.kit import age_norms
from neuroedge.kit.articulation import (
    LEAST_CLARITY_NATS,
    Doubles,
    Evidence,
    Expected,
    Judge,
    Opinion,
    clarity,
    evidence,
    expected_of,
    mismatch,
    views,
)
from neuroedge.kit.phonology import (
    CONSONANTS,
    DIALECTS,
    Position,
    Slip,
    changed_features,
    percent_consonants_correct,
    phones_of,
    pooled,
    position,
    processes_of,
)
from neuroedge.kit.signal import clipped_fraction, snr_db
from neuroedge.kit.voice_signal import telephone_band, voiced_share

METHOD: Final = "ctc-goodness+logistic"
NOTE: Final = (
    "Observations for a professional to check by ear, not a diagnosis. Calibrated on synthetic voices, not validated "
    "on children; dialect and the patterns of another first language are no errors."
)
MIN_DURATION_S: Final = 0.2
MAX_DURATION_S: Final = 60.0
MAX_WORDS: Final = 120
MAX_PHONES_OF_WORD: Final = 40
MIN_SNR_DB: Final = 10.0
MAX_CLIPPED: Final = 0.01
MIN_VOICED: Final = 0.2
MAX_MISFIT_NATS: Final = 4.5
"""Of 585 synthetic recordings, half of them with an error, one is above; other texts lie at 5.4 and more."""
MORE_HEARD: Final = 1.7
_WORD: Final = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ]+(?:['’][A-Za-z]+)*")
_NUMBER: Final = re.compile(r"\d")
_WEAK: Final = (
    "a an the and or but of to at in on for from with as than that is are was were am be been has have had do does did "
    "can could shall should will would must he she it we they me him her us them his hers its our your you i my their "
    "so if not there this"
)
WEAK_WORDS: Final = frozenset(_WEAK.split())
"""Words that connected speech weakens: their vowels may be anything, and what they drop is no error."""
PhoneType = Literal["correct", "substitution", "omission", "distortion", "dialect", "connected_speech"]
DialectName = Literal[
    "non_rhotic",
    "th_fronting",
    "th_stopping",
    "th_alveolar",
    "g_dropping",
    "h_dropping",
    "t_glottalling",
    "l_vocalisation",
    "final_cluster_reduction",
    "final_devoicing",
    "v_w_exchange",
]


class Input(EngineInput):
    """A recording of somebody saying known words."""

    audio: AudioSource = Field(description="The recording, 0.2 to 60 s: the expected words and nothing else.")
    text: str | None = Field(default=None, max_length=1000, description="The words expected, in English spelling.")
    expected_ipa: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_WORDS,
        description='Instead of `text`: each expected word in IPA, e.g. ["ɹæbɪt"], where spelling is not enough.',
    )
    child_age_years: float | None = Field(
        default=None,
        ge=1,
        le=120,
        allow_inf_nan=False,
        description="Age of the speaker in years (4.5 is four years and six months); norms reach from 2 to 17.",
    )
    dialect_patterns: list[DialectName] = Field(
        default_factory=list,
        max_length=20,
        description="Patterns of the speaker's dialect or first language; they are reported but are no errors.",
    )
    language: str = Field(
        default="en",
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$",
        max_length=35,
        description="Language of the words (BCP 47); only English.",
    )

    @field_validator("expected_ipa")
    @classmethod
    def _phones(cls, words: list[str] | None) -> list[str] | None:
        for word in words or []:
            found = phones_of(word[:200])
            if not 1 <= len(found) <= MAX_PHONES_OF_WORD or len(word) > 200:
                raise ValueError(f"'{word[:40]}' must have 1 to {MAX_PHONES_OF_WORD} phones")
        return words

    @model_validator(mode="after")
    def _one_expectation(self) -> "Input":
        if (self.text is None) == (self.expected_ipa is None):
            raise ValueError("give exactly one of 'text' and 'expected_ipa'")
        return self


class PhoneFinding(BaseModel):
    """An expected phone and what was heard of it."""

    word: int = Field(description="Index of its word in `words`.")
    expected: str = Field(description="The phone expected, in IPA.")
    heard: str | None = Field(description="The phone heard; null when it was left out or cannot be told.")
    type: PhoneType = Field(
        description="correct; substitution; omission; distortion: fits badly, yet nothing else fits better; dialect: "
        "differs by a pattern named in the request; connected_speech: weakened in a little word."
    )
    position: Position = Field(description="In its word: initial, medial or final; consonant clusters count as one.")
    start_s: float = Field(description="Start, in seconds; approximate (0.05 s).")
    end_s: float = Field(description="End, in seconds; approximate (0.1 s).")
    gop_nats: float = Field(description="Goodness of pronunciation: log share against all alternatives, at most 0.")
    p_error: float = Field(description="Calibrated probability (0..1) that it was not said as expected.")
    confidence: Literal["high", "medium", "low"] = Field(description="How far the finding may be relied on.")
    age_expected: bool | None = Field(
        description="For a difference in a consonant: whether it is still usual at the age given; null without norms."
    )
    acquired_at_years: int | None = Field(description="Year of age in which 90 % of children say it right; consonants.")
    features_changed: list[str] = Field(description="Distinctive features as heard, e.g. -voi, for a substitution.")
    processes: list[str] = Field(description="Phonological processes the difference may show.")
    dialect_pattern: str | None = Field(description="The pattern of the request that explains it.")


class Addition(BaseModel):
    """A phone that was said and not expected."""

    word: int = Field(description="Index of its word in `words`.")
    before: int = Field(description="Index in the word of the phone it stands before; the word's length at its end.")
    heard: str = Field(description="The phone heard, in IPA.")
    gain_nats: float = Field(description="How much likelier the recording is with it.")
    processes: list[str] = Field(description="Phonological processes it may show.")
    confidence: Literal["high", "medium", "low"] = Field(description="How far the finding may be relied on.")


class WordFinding(BaseModel):
    """An expected word."""

    word: str = Field(description="As given.")
    expected: str = Field(description="Its phones in IPA.")
    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    said_as_expected: bool = Field(description="Whether no error was found in it; dialect patterns are none.")
    p_error: float = Field(description="Highest probability of an error among its phones (0..1).")


class ProcessCount(BaseModel):
    """A phonological process over the whole recording."""

    name: str = Field(description="Name of the process.")
    definition: str = Field(description="What it is, with an example.")
    count: int = Field(description="How many of the differences may show it.")
    examples: list[str] = Field(description="Expected and heard phones of some, e.g. 'k→t in cat'.")


class SignalQuality(BaseModel):
    """How good the recording is."""

    duration_s: float = Field(description="Length, in seconds.")
    speech_s: float = Field(description="Seconds of speech found.")
    snr_db: float | None = Field(description="Speech over background, in dB; null when there is too little of either.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    telephone_band: bool = Field(description="Whether there is nothing above 4 kHz: s, f and th then sound alike.")


class Output(EngineOutput):
    """Each expected phone with what was heard, and the sums over the recording."""

    phones: list[PhoneFinding] = Field(description="Each expected phone, in order; empty when nobody speaks.")
    additions: list[Addition] = Field(description="Phones said beyond the expected ones.")
    words: list[WordFinding] = Field(description="Each expected word.")
    heard_ipa: str = Field(description="What the recogniser hears when it expects nothing; about 1 phone in 7 is off.")
    pcc_percent: float | None = Field(description="Percentage of consonants correct; null without a reliable answer.")
    consonants: int = Field(description="Consonants expected: the number behind pcc_percent.")
    errors: int = Field(description="Substitutions, omissions, distortions and additions found.")
    errors_not_expected_at_age: int | None = Field(description="Those in consonants acquired before the age given.")
    processes: list[ProcessCount] = Field(description="Phonological processes, the most frequent first.")
    mismatch: float = Field(description="Distance (0..1) of what was heard from the expected phones.")
    misfit_nats: float | None = Field(
        description=f"Nats a phone by which other phones fit better; beyond {MAX_MISFIT_NATS} another text was said."
    )
    signal: SignalQuality = Field(description="Quality of the recording.")
    norms: str | None = Field(description="Source of the ages of acquisition; null when they say nothing of this age.")
    reliable: bool = Field(description="Whether nothing speaks against the answer; else see `warnings`.")
    warnings: list[str] = Field(description="What makes it unreliable, and what to mind.")
    note: str = Field(default=NOTE, description="What this answer is not.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is expected, in words and phones."""

    words: list[str]
    phones: list[tuple[str, ...]]
    expected: Expected


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
        audio = await ctx.media.audio(payload.audio)
        _check_length(audio)
        async with ctx.models.lease(VOICE_ACTIVITY) as voice:
            speech = await voice.speech(audio.samples)
            models = [voice.model_id]
        quality = await asyncio.to_thread(_quality, audio, speech)
        async with ctx.models.lease(PHONEMES) as recogniser:
            models.append(recogniser.model_id)
            asked = await _asked(payload, recogniser)
            if not speech:
                return _nothing(asked, quality, models)
            frames, frame_s = await _frames(audio, recogniser, ctx)
        try:
            found = await asyncio.to_thread(evidence, frames, asked.expected, frame_s=frame_s)
        except ValueError:
            return _nothing(asked, quality, models, why="the recording is too short for the expected words")
        voiced = await asyncio.to_thread(voiced_share, audio.samples, speech)
        return await asyncio.to_thread(_output, payload, asked, found, quality, voiced, models)

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


async def _frames(
    audio: Audio, recogniser: PhonemeRecogniser, ctx: EngineContext
) -> tuple[list[tuple[Doubles, float]], float]:
    """The recogniser's pooled frames of each view of the recording, and the length of a frame in seconds."""
    waves = await asyncio.to_thread(lambda: list(views(audio.samples)))
    frames: list[tuple[Doubles, float]] = []
    frame_s = 0.0
    for i, (wave, slower) in enumerate(waves):
        heard = await recogniser.posteriors(wave)
        frame_s = heard.frame_s
        frames.append((await asyncio.to_thread(pooled, heard.log_p, heard.symbols, heard.blank), slower))
        await ctx.progress("articulation", (i + 1) / (len(waves) + 1))
    return frames, frame_s


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
        norms=None,
        reliable=False,
        warnings=[f"unreliable: {why}"],
    )


def _output(
    payload: Input,
    asked: _Asked,
    found: Evidence,
    quality: SignalQuality,
    voiced: float | None,
    models: list[str],
) -> Output:
    """Judge every phone and sum up."""
    far = mismatch(asked.expected.phones, found.heard)
    warnings = _warnings(asked, found, quality, voiced)
    phones, slips = _phones(payload, asked, found, _judge(), sure=not warnings)
    slipped = [i for i, p in enumerate(phones) if p.type != "correct"]
    additions = _additions(asked, found, _judge(), slipped, sure=not warnings)
    slips += [(a.word, _added_slip(asked, a)) for a in additions]
    wrong = [i for i, p in enumerate(phones) if p.type in _ERRORS]
    another_text = found.misfit_nats > MAX_MISFIT_NATS
    return Output(
        method=METHOD,
        models=models,
        phones=[] if another_text else phones,
        additions=[] if another_text else additions,
        words=[] if another_text else _words(asked, found, phones, additions),
        heard_ipa=" ".join(found.heard),
        pcc_percent=None if another_text else _rounded(percent_consonants_correct(asked.expected.phones, wrong)),
        consonants=sum(phone in CONSONANTS for phone in asked.expected.phones),
        errors=0 if another_text else len(wrong) + len(additions),
        errors_not_expected_at_age=None if another_text else _not_expected(payload, phones),
        processes=[] if another_text else _processes(asked, slips),
        mismatch=round(far, 3),
        misfit_nats=round(found.misfit_nats, 2),
        signal=quality,
        norms=age_norms.SOURCE if payload.child_age_years and age_norms.has_norms(payload.child_age_years) else None,
        reliable=not warnings,
        warnings=warnings + _remarks(payload),
    )


_ERRORS: Final = ("substitution", "omission", "distortion")


def _warnings(asked: _Asked, found: Evidence, quality: SignalQuality, voiced: float | None) -> list[str]:
    """What makes the answer unreliable."""
    checks = [
        (found.misfit_nats > MAX_MISFIT_NATS, "unreliable: the expected text was not said, or cannot be understood"),
        (
            len(found.heard) > MORE_HEARD * len(asked.expected.phones) + 2,
            "more was said than expected: another voice, a repetition or more words",
        ),
        (
            quality.snr_db is not None and quality.snr_db < MIN_SNR_DB,
            f"noise or music: {quality.snr_db} dB of speech over background, {MIN_SNR_DB:.0f} dB are needed",
        ),
        (quality.clipping_percent > 100 * MAX_CLIPPED, "the recording is overdriven: record more softly"),
        (quality.telephone_band, "nothing above 4 kHz, as on the telephone: s, f and th cannot be told apart"),
        (
            found.misfit_nats <= MAX_MISFIT_NATS and clarity(found, asked.expected) < LEAST_CLARITY_NATS,
            "the recogniser understands this voice or recording badly: findings are guesses",
        ),
        (voiced is not None and voiced < MIN_VOICED, "hardly any voice: whispered speech hides p from b, t from d"),
    ]
    return [text for wrong, text in checks if wrong]


def _remarks(payload: Input) -> list[str]:
    """What to mind in an answer that may be reliable."""
    age = payload.child_age_years
    if age is not None and not age_norms.has_norms(age):
        return ["there are norms from 2 to 17 years only: nothing is said of the age"]
    return []


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
        kind, dialect = _kind(slip, payload, weak=asked.expected.reduced[i])
        if slip is not None and kind in _ERRORS:
            slips.append((w, slip))
        findings.append(_finding(payload, found, opinion, i, w, place, asked.phones[w], slip, kind, dialect, sure))
    return findings, slips


def _kind(slip: Slip | None, payload: Input, *, weak: bool) -> tuple[PhoneType, str | None]:
    if slip is None:
        return "correct", None
    dialect = next((name for name in payload.dialect_patterns if DIALECTS[name].fits(slip)), None)
    if dialect is not None:
        return "dialect", dialect
    return ("connected_speech" if weak else slip.type), None  # type: ignore[return-value]


def _finding(
    payload: Input,
    found: Evidence,
    opinion: Opinion,
    i: int,
    w: int,
    place: int,
    word: tuple[str, ...],
    slip: Slip | None,
    kind: PhoneType,
    dialect: str | None,
    sure: bool,
) -> PhoneFinding:
    phone = word[place]
    error = slip is not None and kind in _ERRORS
    age = payload.child_age_years
    heard = phone if slip is None else slip.heard
    return PhoneFinding(
        word=w,
        expected=phone,
        heard=heard,
        type=kind,
        position=position(word, place),
        start_s=round(float(found.times_s[i, 0]), 2),
        end_s=round(float(found.times_s[i, 1]), 2),
        gop_nats=round(opinion.gop_nats, 3),
        p_error=round(opinion.p_error, 4),
        confidence=_confidence(opinion.p_error, distortion=kind == "distortion", sure=sure),
        age_expected=age_norms.age_expected(phone, age) if error and age is not None else None,
        acquired_at_years=age_norms.ACQUIRED_AT_YEARS.get(phone),
        features_changed=changed_features(phone, heard) if error and heard else [],
        processes=[name for name, _ in processes_of(slip)] if slip is not None and error else [],
        dialect_pattern=dialect,
    )


def _confidence(p_error: float, *, distortion: bool, sure: bool) -> Literal["high", "medium", "low"]:
    """High where the probability is near 0 or 1; never for a distortion, which has no phone of its own."""
    if distortion or not sure:
        return "low"
    if p_error > 0.9 or p_error < 0.1:
        return "high"
    return "medium" if p_error > 0.75 or p_error < 0.25 else "low"


def _additions(asked: _Asked, found: Evidence, judge: Judge, slipped: Sequence[int], *, sure: bool) -> list[Addition]:
    out = []
    for w, place, heard, gain in judge.additions(found, asked.expected, slipped=slipped):
        start = asked.expected.words[w][0]
        if asked.expected.reduced[start]:
            continue
        slip = Slip(type="addition", word=asked.phones[w], place=place - start, heard=heard)
        out.append(
            Addition(
                word=w,
                before=place - start,
                heard=heard,
                gain_nats=round(gain, 2),
                processes=[name for name, _ in processes_of(slip)],
                confidence="medium" if sure else "low",
            )
        )
    return out


def _added_slip(asked: _Asked, addition: Addition) -> Slip:
    return Slip(type="addition", word=asked.phones[addition.word], place=addition.before, heard=addition.heard)


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
            said_as_expected=w not in more and all(p.type not in _ERRORS for p in phones[start:end]),
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
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    for w, slip in slips:
        for process in processes_of(slip):
            counts[process] += 1
            examples.setdefault(process, []).append(f"{slip.expected or '∅'}→{slip.heard or '∅'} in {asked.words[w]}")
    return [
        ProcessCount(name=name, definition=text, count=count, examples=examples[name, text][:5])
        for (name, text), count in counts.most_common()
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
