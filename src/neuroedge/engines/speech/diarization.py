"""Who spoke when: turns of the speakers of a recording, whose number it finds by itself.

Method: voice activity detection, GE2E speaker vectors (Wan et al. 2018) of 1.6 s windows every 0.25 s, agglomerative
clustering, then a hidden Markov model over 50 ms frames whose speakers merge while their pooled vectors are one voice's
(kit/diarization.py; after Sell et al. 2018 and VBx, Landini et al. 2022).
Models: roles voice_activity (Silero, MIT) and speaker_embedding (Resemblyzer, Apache-2.0).
Limits: in the turns, overlapping speech goes to one speaker; `overlaps` lists where a second one is nearly as likely,
which finds some of it and takes changes of speaker for it (docs/recordings.md: measured). Interjections under about a
second are often given to the other one; a speaker with less than about 3 s in all may be missed, and one who only ever
interjects and sounds like two others mixed; someone who changes language or microphone may count twice.
Vectors are personal data and are not returned. Not for identifying anyone.
"""

import asyncio
import base64
import io
import wave

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import (
    SAMPLE_RATE_HZ,
    SPEAKER_EMBEDDING,
    VOICE_ACTIVITY,
    Floats,
    SpeakerEncoder,
    VoiceActivity,
)
from neuroedge.contract.ports import AudioSource, Progress
from neuroedge.kit.diarization import Diarized, Turn, cut, diarized, sliding_windows, snap_to_words

_CHUNK = 128
"""Windows encoded between two progress reports; also the longest another caller waits for the encoder."""
_OVERLAP_NOTE = "In the turns each moment has one speaker; overlaps are possible ones, many of them mere changes."
_ONE_NOTE = "One voice is heard; people who speak at once all the time count as one."
_LEAST_CONFIDENCE = 0.6
_LEAST_SPEECH_S = 3.0


class WordTimes(BaseModel):
    """A transcribed word, used to keep a change of speaker from cutting it."""

    model_config = ConfigDict(extra="forbid")

    w: str = Field(description="The word.")
    start_s: float = Field(ge=0, description="Start, in seconds from the start of the recording.")
    end_s: float = Field(ge=0, description="End, in seconds from the start of the recording.")


class Input(EngineInput):
    """A recording, with what is known of its speakers."""

    audio: AudioSource = Field(description="The recording.")
    min_speakers: int = Field(default=1, ge=1, le=20, description="At least so many speakers.")
    max_speakers: int = Field(default=8, ge=1, le=20, description="At most so many speakers.")
    num_speakers: int | None = Field(
        default=None, ge=1, le=20, description="The number of speakers, if known; overrides the two limits."
    )
    words: list[WordTimes] | None = Field(
        default=None, description="Words of a transcription in order of time; changes of speaker move to their edges."
    )

    @model_validator(mode="after")
    def _limits_agree(self) -> "Input":
        if self.min_speakers > self.max_speakers:
            raise ValueError("'min_speakers' must not exceed 'max_speakers'")
        return self


class SpeakerTurn(BaseModel):
    """A stretch of one speaker."""

    speaker: str = Field(description="S1, S2, … in the order in which they first speak.")
    start_s: float = Field(description="Start, in seconds from the start of the recording.")
    end_s: float = Field(description="End, in seconds from the start of the recording.")
    confidence: float = Field(
        description="Mean posterior probability (0..1) of this speaker over the turn; ranks turns, is not calibrated."
    )


class PossibleOverlap(BaseModel):
    """A stretch in which two people may speak at once."""

    speakers: list[str] = Field(description="The two, as in the turns.")
    start_s: float = Field(description="Start, in seconds from the start of the recording.")
    end_s: float = Field(description="End, in seconds from the start of the recording.")
    p: float = Field(description="0..1, ranks them: how near the second speaker's evidence is; not calibrated.")


class Output(EngineOutput):
    """Who spoke when."""

    turns: list[SpeakerTurn] = Field(description="Turns in order of time; none when nobody speaks.")
    overlaps: list[PossibleOverlap] = Field(
        default_factory=list, description="Where two may speak at once, in order of time; a hint, not a finding."
    )
    num_speakers: int = Field(description="Speakers found.")
    speech_s: float = Field(description="Seconds of speech in the recording.")
    notes: list[str] = Field(default_factory=list, description="What this answer cannot say, or could not do as asked.")
    reliable: bool = Field(default=True, description="Whether speakers could be told apart with some confidence.")
    warnings: list[str] = Field(default_factory=list, description="Why not.")


def _silence_wav() -> str:
    """A quarter of a second of silence as a WAV file in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(1)
        wav.setframerate(8000)
        wav.writeframes(b"\x80" * 2000)
    return base64.b64encode(file.getvalue()).decode()


class Diarization(Engine[Input, Output]):
    """Turns of speakers from voice activity, speaker vectors, clustering and a hidden Markov model."""

    name = "diarization"
    title = "Who spoke when"
    method = "ge2e-ahc-hmm"
    example = Input(audio=AudioSource(base64=_silence_wav()))
    needs = (VOICE_ACTIVITY, SPEAKER_EMBEDDING)
    timeout_s = 4 * 3600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Find the turns. Raises what decoding raises, and ModelUnavailable."""
        audio = await ctx.media.audio(payload.audio)
        fewest, most = payload.min_speakers, payload.max_speakers
        if payload.num_speakers is not None:
            fewest = most = payload.num_speakers
        async with ctx.models.lease(VOICE_ACTIVITY) as voice, ctx.models.lease(SPEAKER_EMBEDDING) as encoder:
            found, speech_s = await who_spoke(
                audio.samples, voice, encoder, min_speakers=fewest, max_speakers=most, progress=ctx.progress
            )
            models = [voice.model_id, encoder.model_id]
        turns = found.turns
        if payload.words:
            turns = snap_to_words(turns, sorted((word.start_s, word.end_s) for word in payload.words))
        speakers = len({turn.speaker for turn in turns})
        warnings = _warnings(turns, speech_s)
        return Output(
            method=self.method,
            models=models,
            turns=[_answer(turn) for turn in turns],
            overlaps=[
                PossibleOverlap(
                    speakers=list(o.speakers), start_s=round(o.start_s, 3), end_s=round(o.end_s, 3), p=round(o.p, 3)
                )
                for o in found.overlaps
            ],
            num_speakers=speakers,
            speech_s=round(speech_s, 3),
            notes=_notes(speakers, fewest=fewest),
            reliable=not warnings,
            warnings=warnings,
        )

    async def post_swap_test(self) -> None:
        """The example, which nobody speaks in, and a vector of noise from the speaker encoder."""
        await super().post_swap_test()
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
        async with self.probe.models.lease(SPEAKER_EMBEDDING) as encoder:
            vectors = await encoder.encode([noise])
            if vectors.shape != (1, encoder.dim) or not np.isclose(np.linalg.norm(vectors), 1.0, atol=1e-3):
                raise ModelUnavailable(f"{encoder.model_id} gives no unit vectors")


async def speaker_turns(
    samples: Floats,
    voice: VoiceActivity,
    encoder: SpeakerEncoder,
    *,
    min_speakers: int = 1,
    max_speakers: int = 8,
    progress: Progress | None = None,
) -> tuple[list[Turn], float]:
    """Turns of a waveform [n] at 16 kHz, and the seconds of speech in it."""
    found, speech_s = await who_spoke(
        samples, voice, encoder, min_speakers=min_speakers, max_speakers=max_speakers, progress=progress
    )
    return found.turns, speech_s


async def who_spoke(
    samples: Floats,
    voice: VoiceActivity,
    encoder: SpeakerEncoder,
    *,
    min_speakers: int = 1,
    max_speakers: int = 8,
    progress: Progress | None = None,
) -> tuple[Diarized, float]:
    """Turns and possible overlaps of a waveform [n] at 16 kHz, and the seconds of speech in it."""
    spans = [(span.start_s, span.end_s) for span in await voice.speech(samples)]
    windows = sliding_windows(spans)
    if not windows:
        return Diarized(turns=[], overlaps=[]), 0.0
    vectors = np.empty((len(windows), encoder.dim), np.float32)
    for first in range(0, len(windows), _CHUNK):
        chunk = windows[first : first + _CHUNK]
        vectors[first : first + len(chunk)] = await encoder.encode(cut(samples, chunk, rate_hz=SAMPLE_RATE_HZ))
        if progress is not None:
            await progress("diarization", (first + len(chunk)) / len(windows))
    found = await asyncio.to_thread(
        diarized, vectors, windows, spans, min_speakers=min_speakers, max_speakers=max_speakers
    )
    return found, sum(end - start for start, end in spans)


def _warnings(turns: list[Turn], speech_s: float) -> list[str]:
    """What makes the answer doubtful."""
    if not turns:
        return ["nobody is heard to speak: silence, noise, music, or whispering, which has no voice"]
    found = []
    if speech_s < _LEAST_SPEECH_S:
        found.append(f"{speech_s:.1f} s of speech are too little to tell voices apart")
    length_s = sum(turn.end_s - turn.start_s for turn in turns)
    confidence = sum(turn.confidence * (turn.end_s - turn.start_s) for turn in turns) / max(length_s, 1e-9)
    if confidence < _LEAST_CONFIDENCE:
        found.append("the voices are hardly told apart: many people at once, noise or music, or a poor line")
    return found


def _notes(found: int, *, fewest: int) -> list[str]:
    if found == 0:
        return ["Nobody speaks in this recording."]
    if found < fewest:
        return [_OVERLAP_NOTE, f"There is too little speech to tell {fewest} speakers apart; {found} found."]
    return [_OVERLAP_NOTE] if found > 1 else [_ONE_NOTE]


def _answer(turn: Turn) -> SpeakerTurn:
    return SpeakerTurn(
        speaker=turn.speaker,
        start_s=round(turn.start_s, 3),
        end_s=round(turn.end_s, 3),
        confidence=round(min(1.0, turn.confidence), 4),
    )
