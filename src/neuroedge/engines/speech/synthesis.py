"""Synthesis: text or SSML to speech, by the best voice that answers.

Method: a provider's voice where the operator has set one up (an OpenAI-compatible `/audio/speech`); else a neural voice
of this machine by Piper (VITS, Kim, Kong & Son 2021, "Conditional Variational Autoencoder with Adversarial Learning for
End-to-End Text-to-Speech"; voices have licences of their own, the one of the catalogue is CC0); else espeak-ng's rules.
piper-tts and espeak-ng are GPL-3.0 and come with the extra `voices` only. `method`, `voice` and `fallback_reason` say
who spoke. Loudness by ITU-R BS.1770-4.
Limits: words that are no words (abbreviations, formulas, mixed languages) may be read wrongly: SSML and the lexicon
help. Every passage with a manner of its own is spoken as a sentence of its own. Pitch is changed by resampling, which
moves the voice's colour too. Word times are estimates unless `marks_estimated` is false. What is made is not the voice
of a person and must not be passed off as one; MP3, Opus and FLAC files say so in their comment.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    InvalidInput,
    NeuroEdgeError,
    Overloaded,
    ProviderRefused,
    TooLarge,
    Unavailable,
)
from neuroedge.contract.models import SPEECH_SYNTHESIS, Floats
from neuroedge.contract.speech import INSTALL_VOICES, AudioFormat, Part, SpeechPiece, Voice, VoiceKind, WordTime
from neuroedge.kit import ssml
from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.speech_audio import (
    amplified,
    gain_to_db,
    heard_span,
    of_pcm16,
    pcm16,
    repitched,
    resampled,
    silence,
)
from neuroedge.kit.speech_choice import candidates, own_language
from neuroedge.kit.speech_plan import estimated_times, language_of_script, pronounced, spoken_words, utterances
from neuroedge.kit.waveform import SAMPLE_RATE_HZ

MOST_CHARS: Final = 20_000
MOST_AUDIO_S: Final = 3600.0
DEFAULT: Final = "default"
STAGE: Final = "synthesis"
_MOST_WARNINGS: Final = 50
_TTL_S: Final = 7 * 24 * 3600.0
_UTTERANCE_CHARS: Final[Mapping[VoiceKind, int]] = {"network": 800, "neural": 300, "formant": 300}
"""Providers hear from the sentences around how one is to be said; a voice here answers sooner when given less."""
_FALLS_BACK: Final = (Unavailable, Overloaded, DeadlineExceeded, BudgetExceeded, ProviderRefused)
Rate = Annotated[int, Field(ge=8_000, le=48_000)]


class Input(EngineInput):
    """What is to be said, and how."""

    text: str | None = Field(default=None, max_length=MOST_CHARS, description="Plain text; or give `ssml`.")
    ssml: str | None = Field(
        default=None,
        max_length=4 * MOST_CHARS,
        description="SSML 1.1 of the subset speak, p, s, break, prosody, say-as, sub, phoneme, emphasis, voice, lang.",
    )
    voice: str = Field(
        default=DEFAULT,
        min_length=1,
        max_length=200,
        description="Id or name of a voice (GET /v1/audio/voices), or default: the best one for the language.",
    )
    language: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$",
        description="Language of the text, as BCP 47; null: the voice's, or as the script tells, or English.",
    )
    speed: float = Field(default=1.0, ge=0.25, le=4.0, allow_inf_nan=False, description="Times the usual speed.")
    pitch: float = Field(default=1.0, ge=0.5, le=2.0, allow_inf_nan=False, description="Times the voice's own pitch.")
    lexicon: dict[
        Annotated[str, Field(min_length=1, max_length=80)], Annotated[str, Field(min_length=1, max_length=200)]
    ] = Field(
        default_factory=dict,
        max_length=500,
        description="How words are said: IPA between slashes (/təˈmeɪtoʊ/), or another spelling. Case does not matter.",
    )
    format: AudioFormat = Field(
        default="wav", description="wav, mp3, opus (OGG), flac, aac (ADTS) or pcm (16-bit little-endian, no header)."
    )
    rate_hz: Rate | None = Field(default=None, description="Sampling rate in Hz; null: the voice's own.")
    loudness_lufs: float | None = Field(
        default=-18.0,
        ge=-40,
        le=-8,
        allow_inf_nan=False,
        description="Loudness to bring the speech to, in LUFS, its peak at most -1 dB; null: as the voice speaks.",
    )
    gain_db: float | None = Field(
        default=None,
        ge=-30,
        le=30,
        allow_inf_nan=False,
        description="Gain in dB instead of a loudness, as an earlier part of the same text got it.",
    )
    fallback: bool = Field(default=True, description="Whether another voice may speak where the wanted one cannot.")

    @model_validator(mode="after")
    def _something_to_say(self) -> "Input":
        if (self.text is None) == (self.ssml is None):
            raise ValueError("give exactly one of 'text' and 'ssml'")
        if not (self.text or self.ssml or "").strip():
            raise ValueError("there is nothing to say")
        return self


class Mark(BaseModel):
    """A spoken word."""

    word: str = Field(description="The word, with the punctuation that clings to it.")
    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")


class Output(EngineOutput):
    """The speech, and who spoke."""

    audio: str = Field(description="The file, in base64.")
    format: AudioFormat = Field(description="Format of the file.")
    rate_hz: int = Field(description="Sampling rate of the speech in Hz; Opus files are decoded at 48 kHz.")
    duration_s: float = Field(description="Length, in seconds.")
    voice: str = Field(description="Id of the voice that spoke; the first one where there are several.")
    voices: list[str] = Field(description="Ids of all voices that spoke.")
    language: str = Field(description="Language the text was taken for, as BCP 47.")
    fallback_reason: str | None = Field(description="Why another voice than the first choice spoke; null: it did.")
    marks: list[Mark] = Field(description="When each word is said.")
    marks_estimated: bool = Field(description="Whether times of words are estimated from their letters.")
    loudness_lufs: float | None = Field(description="Loudness in LUFS; null under 0.4 s or for silence.")
    gain_db: float = Field(description="Gain in dB that was applied to reach it.")
    characters: int = Field(description="Characters that were said.")
    warnings: list[str] = Field(description="What could not be done as asked.")


@dataclass(frozen=True, slots=True)
class _Spoken:
    """What one passage became."""

    voice: Voice
    language: str
    pieces: Sequence[tuple[Sequence[Part], SpeechPiece]]


@dataclass(slots=True)
class _Job:
    """The state of one call."""

    payload: Input
    ctx: EngineContext
    voices: Sequence[Voice]
    items: Sequence[ssml.Saying | ssml.Pause]
    chars: int
    """To say."""
    said_chars: int = 0
    said_s: float = 0.0
    """With all pauses, also those to come."""
    failed: set[str] = field(default_factory=set)
    """Models that are not tried again: one voice is better than two in turns."""
    reasons: list[str] = field(default_factory=list)


class SynthesisEngine(Engine[Input, Output]):
    """Turns text into speech."""

    name = "synthesis"
    title = "Text to speech with several voices"
    method = "piper"
    example = Input(text="The lamp is on.", language="en")
    needs = (SPEECH_SYNTHESIS,)
    timeout_s = 900.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Say it. Raises InvalidInput for SSML that is not of the subset, a voice or language there is not; Unavailable
        with the remedy where no voice is installed; TooLarge beyond an hour of speech and pauses.
        """
        items = _plan(payload)
        chars = sum(len(part.text) for item in items if isinstance(item, ssml.Saying) for part in item.parts)
        if chars > MOST_CHARS:
            raise TooLarge(f"more than {MOST_CHARS} characters", hint="send it in parts")
        pauses_s = _within_limit(sum(item.seconds for item in items if isinstance(item, ssml.Pause)))
        job = _Job(payload, ctx, await ctx.speech_output.known(), items, chars, said_s=pauses_s)
        spoken = [await _said(job, item) if isinstance(item, ssml.Saying) else None for item in items]  # pauses: None
        pieces = [piece for one in spoken if one for _, piece in one.pieces]
        if not any(len(piece.samples) for piece in pieces):
            raise InvalidInput("there is nothing to say in it", hint="letters or digits are needed")
        rate_hz = payload.rate_hz or max(piece.rate_hz for piece in pieces)
        made = await asyncio.to_thread(_assemble, job, spoken, rate_hz)
        data = await ctx.speech_output.encode(made.samples, rate_hz=rate_hz, form=payload.format)
        await ctx.progress(STAGE, 1.0)
        return self._answer(job, [one for one in spoken if one], made, data, rate_hz)

    def _answer(self, job: _Job, spoken: Sequence[_Spoken], made: "_Made", data: bytes, rate_hz: int) -> Output:
        voices = list(dict.fromkeys(one.voice.id for one in spoken))
        pieces = [piece for one in spoken for _, piece in one.pieces]
        return Output(
            method=spoken[0].voice.method,
            models=list(dict.fromkeys(one.voice.model for one in spoken)),
            audio=base64.b64encode(data).decode(),
            format=job.payload.format,
            rate_hz=rate_hz,
            duration_s=round(len(made.samples) / rate_hz, 3),
            voice=voices[0],
            voices=voices,
            language=spoken[0].language,
            fallback_reason="; ".join(job.reasons) or None,
            marks=made.marks,
            marks_estimated=any(piece.words is None for piece in pieces),
            loudness_lufs=None if made.lufs is None else round(made.lufs, 2),
            gain_db=round(made.gain_db, 2),
            characters=job.chars,
            warnings=list(dict.fromkeys(warning for piece in pieces for warning in piece.warnings))[:_MOST_WARNINGS],
        )

    async def health(self) -> Health:
        """degraded where espeak-ng alone is installed here; unavailable without any voice."""
        best = next((voice for voice in await self.probe.speech_output.known() if voice.ready), None)
        if best is None:
            return Health(status="unavailable", method=self.method, detail=f"no voice is installed: {INSTALL_VOICES}")
        state = "ready"
        if best.kind != "network":
            state = self.probe.models.status(SPEECH_SYNTHESIS.named(best.model)).state
        models = {best.model: state}
        if best.kind != "formant":
            return Health(status="ready", method=best.method, models=models)
        detail = f"espeak-ng speaks by rules; for a natural voice: {INSTALL_VOICES}, neuroedge models pull piper-joe"
        return Health(status="degraded", method=best.method, models=models, detail=detail)

    async def post_swap_test(self) -> None:
        """Say the example with a voice of this machine, and hear that it is as long as such words are."""
        if not any(voice.ready and voice.kind != "network" for voice in await self.probe.speech_output.known()):
            return  # providers are not asked for the platform's own tests
        out = await self.run(self.example, self.probe)
        if not (0.4 < out.duration_s < 10 and len(out.marks) == 4):
            raise Unavailable(f"{out.voice} took {out.duration_s} s for four words", hint="neuroedge models verify")


def _plan(payload: Input) -> list[ssml.Saying | ssml.Pause]:
    """What is to be said, each passage with its voice and language."""
    if payload.text is not None:
        return ssml.plain(payload.text, manner=ssml.Manner(language=payload.language))
    try:
        return ssml.read(payload.ssml or "", language=payload.language)
    except ssml.SsmlError as error:
        raise InvalidInput(
            f"the SSML is not understood: {error}",
            hint="docs/synthesis.md lists the elements",
            errors=[_error("ssml", str(error))],
        ) from error


async def _said(job: _Job, saying: ssml.Saying) -> _Spoken:
    """A passage, by the first voice of those to try that can say it."""
    wanted = saying.manner.voice or job.payload.voice
    name = None if wanted == DEFAULT else wanted
    text = "".join(part.text for part in saying.parts)
    language = saying.manner.language or language_of_script(text)
    language = language or (name and own_language(job.voices, name)) or "en"
    choice = candidates(job.voices, wanted=name, language=language)
    if not choice:
        raise _no_voice(job.voices, wanted, language)
    last: NeuroEdgeError | None = None
    for voice in choice if job.payload.fallback else choice[:1]:
        if voice.model in job.failed:
            continue
        try:
            return _Spoken(voice, language, await _with(job, voice, saying, language))
        except _FALLS_BACK as error:
            last = error
            job.failed.add(voice.model)
            job.reasons.append(f"{voice.id}: {error.code}")
    raise last or Unavailable(f"no voice answers: {'; '.join(job.reasons)}", hint="try again later")


async def _with(
    job: _Job, voice: Voice, saying: ssml.Saying, language: str
) -> list[tuple[Sequence[Part], SpeechPiece]]:
    pieces: list[tuple[Sequence[Part], SpeechPiece]] = []
    pitch = _pitch(job, saying)
    # Raised by resampling, speech gets shorter: it is spoken as much slower.
    speed = min(4.0, max(0.25, job.payload.speed * saying.manner.rate / pitch))
    said_chars, said_s = job.said_chars, job.said_s
    for parts in utterances(pronounced(saying.parts, job.payload.lexicon), max_chars=_UTTERANCE_CHARS[voice.kind]):
        piece = await _cached(job.ctx, voice, parts, language, round(speed, 3))
        pieces.append((parts, piece))
        said_s = _within_limit(said_s + len(piece.samples) / piece.rate_hz / pitch)
        said_chars += sum(len(part.text) for part in parts)
        await job.ctx.progress(STAGE, min(0.99, said_chars / job.chars))
    job.said_chars, job.said_s = said_chars, said_s
    return pieces


def _within_limit(said_s: float) -> float:
    if said_s > MOST_AUDIO_S:
        raise TooLarge(f"more than {MOST_AUDIO_S:g} s of speech", hint="send it in parts")
    return said_s


def _pitch(job: _Job, saying: ssml.Saying) -> float:
    return min(2.0, max(0.5, job.payload.pitch * saying.manner.pitch))


async def _cached(ctx: EngineContext, voice: Voice, parts: Sequence[Part], language: str, speed: float) -> SpeechPiece:
    """What the voice says, computed once for the organisation."""
    asked = [voice.id, voice.fingerprint, language, speed, [[part.text, part.ipa] for part in parts]]
    digest = hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    async def compute(_: Sequence[int]) -> list[dict[str, Any]]:
        async with ctx.speech_output.opened(voice) as speaker:
            piece = await speaker.say(parts, voice=voice.voice, language=language, speed=speed)
        words = None if piece.words is None else [[word.word, word.start_s, word.end_s] for word in piece.words]
        return [{"pcm": pcm16(piece.samples), "rate": piece.rate_hz, "words": words, "warnings": list(piece.warnings)}]

    (kept,) = await ctx.cache.get_or_compute([f"synthesis/1/{digest}"], compute, ttl_s=_TTL_S)
    words = kept["words"]
    return SpeechPiece(
        samples=of_pcm16(kept["pcm"]),
        rate_hz=kept["rate"],
        words=None
        if words is None
        else [WordTime(word=w, start_s=start_s, end_s=end_s) for w, start_s, end_s in words],
        warnings=kept["warnings"],
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """The whole speech."""

    samples: Floats
    marks: list[Mark]
    gain_db: float
    lufs: float | None


def _assemble(job: _Job, spoken: Sequence[_Spoken | None], rate_hz: int) -> _Made:
    """One waveform at one rate, as loud as asked for, and when each word is said; blocking."""
    sounds: list[Floats] = []
    marks: list[Mark] = []
    at_s = 0.0
    for item, one in zip(job.items, spoken, strict=True):
        if isinstance(item, ssml.Pause):
            sounds.append(silence(item.seconds, rate_hz=rate_hz))
            at_s += item.seconds
        elif one is not None:
            pitch = _pitch(job, item)
            for parts, piece in one.pieces:
                marks += _marks(parts, piece, pitch=pitch, at_s=at_s)
                sound = resampled(repitched(piece.samples, pitch=pitch), piece.rate_hz, rate_hz)
                sounds.append(amplified(sound, gain_db=item.manner.volume_db))
                at_s += len(sound) / rate_hz
    samples = np.concatenate(sounds)
    gain_db = job.payload.gain_db or 0.0
    if job.payload.gain_db is None and job.payload.loudness_lufs is not None:
        gain_db = gain_to_db(samples, rate_hz=rate_hz, lufs=job.payload.loudness_lufs)
    samples = amplified(samples, gain_db=gain_db)
    return _Made(samples, marks, gain_db, loudness_lufs(resampled(samples, rate_hz, SAMPLE_RATE_HZ)))


def _marks(parts: Sequence[Part], piece: SpeechPiece, *, pitch: float, at_s: float) -> list[Mark]:
    """As the voice tells, else estimated."""
    if piece.words is None:
        start_s, end_s = heard_span(piece.samples, rate_hz=piece.rate_hz)
        words = spoken_words(parts)
        timed = [(w, *t) for w, t in zip(words, estimated_times(words, start_s=start_s, end_s=end_s), strict=True)]
    else:
        timed = [(word.word, word.start_s, word.end_s) for word in piece.words]
    return [
        Mark(word=word, start_s=round(at_s + start_s / pitch, 3), end_s=round(at_s + end_s / pitch, 3))
        for word, start_s, end_s in timed
    ]


def _no_voice(voices: Sequence[Voice], wanted: str, language: str) -> NeuroEdgeError:
    if not any(voice.ready for voice in voices):
        return Unavailable("no voice is installed", hint=INSTALL_VOICES)
    if wanted != DEFAULT and not any(wanted in (voice.id, voice.name) for voice in voices):
        problem = f"there is no voice {wanted[:100]!r}"
        return InvalidInput(problem, hint="GET /v1/audio/voices lists them", errors=[_error("voice", problem)])
    problem = f"{'no voice' if wanted == DEFAULT else wanted[:100]} here speaks {language!r}"
    return InvalidInput(problem, hint="GET /v1/audio/voices lists languages", errors=[_error("language", problem)])


def _error(field_: str, problem: str) -> dict[str, Any]:
    return {"loc": (field_,), "msg": problem, "type": "value_error"}
