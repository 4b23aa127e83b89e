"""What a client may ask of a live session, and how much the platform gives."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.infra.media_stream import MAX_RATE_HZ, MIN_RATE_HZ

MAX_MESSAGE_BYTES: Final = 1 << 20
"""Largest WebSocket message."""
MAX_AHEAD_S: Final = 30.0
"""Finished speech that may wait to be recognised; while there is more, nothing further is read from the client."""
MAX_UTTERANCE_S: Final = 18.0
"""An utterance that is longer is cut: the time to recognise it must not grow without end."""
BYTES_PER_S: Final = 2 * MAX_RATE_HZ
"""Most bytes a second of sound takes."""


class LiveOptions(BaseModel):
    """How the sound comes, and what is known of it."""

    model_config = ConfigDict(extra="forbid")

    encoding: Literal["pcm16", "webm_opus", "ogg_opus", "mp4"] = Field(
        default="pcm16",
        description="pcm16: signed 16 bit little-endian mono. webm_opus, ogg_opus, mp4 (fragments with AAC or Opus, as "
        "Safari records): the chunks of a browser's recorder.",
    )
    sample_rate_hz: int = Field(
        default=16_000, ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Rate of pcm16; a container knows its own."
    )
    language: str | None = Field(
        default=None,
        pattern="^([a-z]{2,3}|auto)$",
        description="Language spoken, as ISO 639-1 code; null or auto: detected in each utterance.",
    )
    hot_words: list[Annotated[str, Field(min_length=1, max_length=80)]] = Field(
        default_factory=list, max_length=50, description="Names and terms that may occur, to be spelt like this."
    )
    prompt: str = Field(default="", max_length=1000, description="Text that might have been said before.")
    partials: bool = Field(default=True, description="Whether to tell what is heard while somebody still speaks.")
    silence_s: float = Field(
        default=0.5,
        ge=0.2,
        le=3.0,
        allow_inf_nan=False,
        description="Silence that ends an utterance, seconds; 0.6 of it after 8 s of speech.",
    )
    threshold: float = Field(
        default=0.5, ge=0.1, le=0.95, allow_inf_nan=False, description="Probability above which sound is speech."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLimits:
    """What the operator allows."""

    sessions: int = 8
    """At the same time, for one organisation in one process."""
    max_audio_s: float = 4 * 3600.0
    resume_s: float = 60.0
    """How long a session whose connection is lost waits for the next one."""
    stop_s: float = 6.0
    """How long sessions may take to say what they have heard when the server stops."""
    idle_s: float = 300.0
    """How long a connection may send nothing."""
