"""What a transcription session of OpenAI's realtime API may be told."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.openai.errors import ModelNotFound
from neuroedge.infra.media_stream import MAX_RATE_HZ, MIN_RATE_HZ
from neuroedge.services.live.options import LiveOptions

ALIASES = ("default", "whisper-1")
RATE_HZ = 24_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")  # clients send fields of models that are not here


class RealtimeTranscription(_Part):
    """How to transcribe."""

    model: str | None = Field(default=None, max_length=200, description="Catalogue id in use, whisper-1 or default.")
    language: str | None = Field(default=None, pattern="^[a-z]{2,3}$", description="ISO 639-1 code.")
    prompt: str = Field(default="", max_length=1000, description="Text that might have been said before.")
    keywords: list[str] = Field(default_factory=list, max_length=50, description="Names and terms that may occur.")


class RealtimeTurns(_Part):
    """When speech is over."""

    type: Literal["server_vad"] = Field(default="server_vad", description="Only by silence.")
    threshold: float = Field(default=0.5, ge=0.1, le=0.95, allow_inf_nan=False, description="Above it, it is speech.")
    silence_duration_ms: int = Field(default=500, ge=200, le=3000, description="Silence that ends speech.")


class RealtimeFormat(_Part):
    """How the sound is encoded."""

    type: Literal["audio/pcm"] = Field(default="audio/pcm", description="Signed 16 bit little-endian mono.")
    rate: int = Field(default=RATE_HZ, ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Samples a second.")


class RealtimeInput(_Part):
    """The sound and what is done with it."""

    format: RealtimeFormat = Field(default_factory=RealtimeFormat, description="Encoding.")
    transcription: RealtimeTranscription = Field(default_factory=RealtimeTranscription, description="Transcription.")
    turn_detection: RealtimeTurns | None = Field(
        default_factory=RealtimeTurns, description="null: only a commit ends what is transcribed as one."
    )

    def live_options(self) -> LiveOptions:
        """The same for a live session."""
        turns = self.turn_detection or RealtimeTurns()
        return LiveOptions(
            encoding="pcm16",
            sample_rate_hz=self.format.rate,
            language=self.transcription.language,
            prompt=self.transcription.prompt,
            hot_words=[word[:80] for word in self.transcription.keywords if word],
            silence_s=turns.silence_duration_ms / 1000,
            threshold=turns.threshold,
        )


def updated(current: RealtimeInput, session: Any, *, active_model: str) -> RealtimeInput:
    """The settings after session.update (`audio.input`), or transcription_session.update (flat, `input_audio_…`).

    Fields that are not there stay as they are. Raises InvalidInput, ModelNotFound.
    """
    if not isinstance(session, dict):
        raise InvalidInput("session is no object", hint='send {"type": "session.update", "session": {…}}')
    kind = session.get("type", "transcription")
    if kind != "transcription":
        raise InvalidInput(f"{str(kind)[:50]!r} is no session here", hint="only transcription sessions are served")
    audio = session.get("audio")
    given: Any = audio.get("input", {}) if isinstance(audio, dict) else _flat(session)
    if not isinstance(given, dict):
        raise InvalidInput("audio.input is no object")
    merged = current.model_dump()
    for name in ("format", "transcription", "turn_detection"):
        if name not in given:
            continue
        value, before = given[name], merged[name]
        merged[name] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value
        if value is None and name != "turn_detection":
            del merged[name]
    try:
        found = RealtimeInput.model_validate(merged)
    except ValidationError as error:
        raise InvalidInput(
            "the session is not what this route takes",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
    if (model := found.transcription.model) not in (None, active_model, *ALIASES):
        raise ModelNotFound(f"{model!r} is not the speech model here", hint=f"{active_model}, or {ALIASES[1]}")
    return found


def _flat(session: dict[str, Any]) -> dict[str, Any]:
    names = {
        "input_audio_transcription": "transcription",
        "turn_detection": "turn_detection",
    }
    found = {new: session[old] for old, new in names.items() if old in session}
    if (form := session.get("input_audio_format")) is not None:
        if form != "pcm16":
            raise InvalidInput(f"{str(form)[:50]!r} is no format here", hint="pcm16")
        found["format"] = {"type": "audio/pcm", "rate": RATE_HZ}
    return found
