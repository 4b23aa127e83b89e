"""Speech analysis: transcription, articulation, fluency and prosody of one recording, side by side.

A part that fails tells why and leaves the others alone. Nothing is kept.
"""

import asyncio
import base64
import binascii
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from neuroedge.contract.errors import EmptyMedia, InvalidInput, NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.infra.containers import looks_like_media, wav_header
from neuroedge.services.run_engine import EngineRunner

log = structlog.get_logger(__name__)
PARTS = ("transcription", "articulation", "fluency", "prosody")
DISCLAIMER = "Observations for a professional, never a diagnosis."
NO_ERRORS = ("correct", "dialect", "connected_speech")
"""Findings of the engine articulation that are none."""
_NOISE_LIKE = 1.2
"""Mean squared difference of neighbouring samples over their mean square: 2 for white noise, far below 1 for speech."""
_BYTES_OF_A_SAMPLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """Audio as engines take it, with what is odd about it."""

    source: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What to analyse, and what is known of it."""

    audio: Mapping[str, Any]
    task: str = "speech"
    expected_text: str | None = None
    child_age_years: float | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The answer of one engine, or why there is none."""

    result: dict[str, Any] | None = None
    error: NeuroEdgeError | None = None


class NotAsked(InvalidInput):
    """A part that needs something the request does not give."""

    code = "not_asked"


def sound(audio_base64: str, *, sample_rate_hz: int | None) -> Sound:
    """A file in base64 as it is, raw PCM16 as a WAV file of `sample_rate_hz`.

    Raises InvalidInput for what is no base64 or no PCM16, EmptyMedia.
    """
    return sound_of(_decoded(audio_base64), sample_rate_hz=sample_rate_hz)


def sound_of(data: bytes, *, sample_rate_hz: int | None) -> Sound:
    """A file as it is, raw PCM16 as a WAV file of `sample_rate_hz`. Raises InvalidInput for no PCM16, EmptyMedia."""
    if not data:
        raise EmptyMedia("the audio holds no bytes", hint="send the recording")
    if _is_file(data):
        return Sound(source={"base64": _encoded(data)}, warnings=_wrong_rate(data, sample_rate_hz))
    if sample_rate_hz is None:
        raise InvalidInput(
            "the bytes are of no known audio format, and raw PCM16 needs its sampling rate",
            hint="send sampleRate, or a WAV, FLAC, OGG, MP3, M4A or WebM file",
        )
    if len(data) % _BYTES_OF_A_SAMPLE:
        raise InvalidInput("raw PCM16 has an even number of bytes", hint="send 16-bit little-endian mono samples")
    return Sound(source={"base64": _encoded(_wav(data, sample_rate_hz))}, warnings=_noise_like(data))


async def analyse(runner: EngineRunner, ask: Ask, *, principal: Principal, request_id: str) -> dict[str, Part]:
    """Every part of PARTS. Raises the error that all of them met, when none could answer."""
    say = _Asking(runner, principal, request_id)

    async def words_then_fluency() -> tuple[Part, Part]:
        heard = await say.part("transcription", transcription_payload(ask))
        return heard, await say.part("fluency", fluency_payload(ask, heard.result))

    async with asyncio.TaskGroup() as group:
        spoken = group.create_task(words_then_fluency())
        articulated = group.create_task(_articulation(say, ask))
        sung = group.create_task(say.part("prosody", prosody_payload(ask)))
    transcription, fluency = spoken.result()
    found = dict(zip(PARTS, (transcription, articulated.result(), fluency, sung.result()), strict=True))
    failed = [part.error for name, part in found.items() if part.error and not isinstance(part.error, NotAsked)]
    if failed and not any(part.result for part in found.values()):
        raise failed[0]
    return found


async def _articulation(say: "_Asking", ask: Ask) -> Part:
    if not ask.expected_text:
        return Part(error=NotAsked("articulation needs the text that was to be said", hint="send it as expected text"))
    return await say.part("articulation", articulation_payload(ask))


class _Asking:
    """Calls engines for one caller and turns what they raise into parts."""

    def __init__(self, runner: EngineRunner, principal: Principal, request_id: str) -> None:
        self._runner = runner
        self._principal = principal
        self._request_id = request_id

    async def part(self, name: str, payload: Mapping[str, Any]) -> Part:
        """The engine's answer or its error; only cancellation passes."""
        try:
            answer = await self._runner.run(name, payload, principal=self._principal, request_id=self._request_id)
        except NeuroEdgeError as error:
            return Part(error=error)
        except Exception:
            log.exception("speech_part_failed", part=name)
            return Part(error=NeuroEdgeError(f"{name} failed; the log tells more under this request's id"))
        return Part(result=answer.model_dump(mode="json"))


def articulation_errors(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Phones of the engine articulation's answer that were not said as expected."""
    return [phone for phone in result["phones"] if phone["type"] not in NO_ERRORS]


def reliable(parts: Mapping[str, Part]) -> bool:
    """Whether every part that answered and judges itself finds itself reliable."""
    return all(part.result.get("reliable", True) for part in parts.values() if part.result)


def warnings_of(parts: Mapping[str, Part]) -> list[str]:
    """What the parts warn of, each once, in order."""
    told = [warning for part in parts.values() if part.result for warning in part.result.get("warnings", [])]
    return list(dict.fromkeys(told))


def asked_for(
    heard: Sound,
    *,
    task_type: str | None,
    expected_text: str | None,
    child_age_years: float | None,
    language: str | None,
) -> Ask:
    """What a client of AIVO Brain Service wants analysed: its task types are free texts."""
    task = (task_type or "speech").strip().lower().replace("-", "_").replace(" ", "_")
    return Ask(
        audio=dict(heard.source),
        task="sustained_vowel" if task in ("sustained_vowel", "sustainedvowel") else "speech",
        expected_text=expected_text,
        child_age_years=child_age_years,
        language=None if language == "auto" else language,
    )


def transcription_payload(ask: Ask) -> dict[str, Any]:
    """For the engine transcription."""
    return {"audio": ask.audio, "language": ask.language}


def fluency_payload(ask: Ask, transcription: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """For the engine fluency, with the words a transcription holds."""
    words = None
    if transcription is not None:
        words = [word for segment in transcription["segments"] for word in segment["words"]]
    return {"audio": ask.audio, "language": ask.language, "words": words}


def prosody_payload(ask: Ask) -> dict[str, Any]:
    """For the engine prosody."""
    return {"audio": ask.audio, "task": "sustained_vowel" if ask.task == "sustained_vowel" else "speech"}


def articulation_payload(ask: Ask) -> dict[str, Any]:
    """For the engine articulation."""
    known = {"child_age_years": ask.child_age_years, "language": ask.language}
    return {
        "audio": ask.audio,
        "text": ask.expected_text,
        **{name: value for name, value in known.items() if value is not None},
    }


def _decoded(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the audio is not valid base64", hint="send the bytes in base64") from error
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _is_file(data: bytes) -> bool:
    """Whether these are a file's first bytes. MPEG's two bytes of sync may be a sample of raw PCM16: such a file must
    also show a second frame or a tag."""
    if not looks_like_media(io.BytesIO(data)):
        return False
    return data[0] != 0xFF or _has_second_frame(data)


_MPEG1_LAYER3_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MPEG2_LAYER3_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000, 0)


def _has_second_frame(data: bytes) -> bool:
    if len(data) < 6:
        return False
    if data[1] & 0xF6 == 0xF0:  # ADTS
        size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    else:
        first = bool(data[1] & 0x08)
        rate_hz = _MPEG1_RATES_HZ[data[2] >> 2 & 3] // (1 if first else 2 if data[1] & 0x10 else 4)
        kbits = (_MPEG1_LAYER3_KBITS if first else _MPEG2_LAYER3_KBITS)[data[2] >> 4]
        if not rate_hz or not kbits:
            return False
        size = (144 if first else 72) * kbits * 1000 // rate_hz + (data[2] >> 1 & 1)
    second = data[size : size + 2]
    # The same but for its last bit: one frame may have a checksum and the next one none.
    return size > 0 and len(second) == 2 and second[0] == 0xFF and (second[1] ^ data[1]) & 0xFE == 0


def _wrong_rate(data: bytes, sample_rate_hz: int | None) -> list[str]:
    header = wav_header(io.BytesIO(data))
    if header is None or sample_rate_hz in (None, header.rate_hz):
        return []
    return [f"sampleRate says {sample_rate_hz} Hz, the WAV file {header.rate_hz} Hz: the file's was used"]


def _wav(pcm: bytes, rate_hz: int) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * _BYTES_OF_A_SAMPLE, _BYTES_OF_A_SAMPLE, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _noise_like(pcm: bytes) -> list[str]:
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    power = float(np.mean((samples - samples.mean()) ** 2))
    if len(samples) < 2 or power <= 0 or float(np.mean(np.diff(samples) ** 2)) < _NOISE_LIKE * power:
        return []
    return ["the samples look like noise: are they 16-bit little-endian mono?"]
