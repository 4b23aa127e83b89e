"""Tenant-bound ports: what an engine may touch of the world, already bound to its caller's organisation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import Floats


class AudioSource(BaseModel):
    """Where the audio of a request lies: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    base64: str | None = Field(
        default=None, description="The file's bytes in base64 (WAV, FLAC, OGG, MP3, M4A, WebM/Opus)."
    )
    blob: str | None = Field(default=None, description="Key of an object in the caller's blob storage.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "AudioSource":
        if (self.base64 is None) == (self.blob is None):
            raise ValueError("give exactly one of 'base64' and 'blob'")
        return self


class ImageSource(BaseModel):
    """Where the image of a request lies: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    base64: str | None = Field(
        default=None, description="The file's bytes in base64 (PNG, JPEG, TIFF, WebP, GIF, BMP)."
    )
    blob: str | None = Field(default=None, description="Key of an object in the caller's blob storage.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "ImageSource":
        if (self.base64 is None) == (self.blob is None):
            raise ValueError("give exactly one of 'base64' and 'blob'")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """A decoded waveform: mono float32 [n] at 16 kHz, with what the file said of itself."""

    samples: Floats
    duration_s: float
    source_rate_hz: int
    source_channels: int
    codec: str
    container: str


class Media(Protocol):
    """Decoding of what callers send."""

    async def audio(self, source: AudioSource) -> Audio:
        """Decode, mix to mono, resample to 16 kHz. Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """A file's sound as it is: float32 [channels, n] in [-1, 1] at the file's own rate."""

    samples: Floats
    rate_hz: int


class Sound(Protocol):
    """Processing of sound that keeps its channels and rate."""

    async def channels(self, source: AudioSource, *, max_duration_s: float) -> Channels:
        """Decode without mixing or resampling. Raises what Media.audio raises; TooLarge for a longer one."""
        ...

    async def denoised(self, sound: Channels, *, strength_db: float, floor_dbfs: float | None) -> Channels:
        """Less stationary noise, as long as before. `floor_dbfs`: level of the noise, where it is known."""
        ...

    async def resampled(self, sound: Channels, *, rate_hz: int) -> Channels:
        """The same sound at another rate."""
        ...


class NoSound:
    """The Sound of a context that has none."""

    async def channels(self, source: AudioSource, *, max_duration_s: float) -> Channels:
        """Refuse."""
        raise _no_sound()

    async def denoised(self, sound: Channels, *, strength_db: float, floor_dbfs: float | None) -> Channels:
        """Refuse."""
        raise _no_sound()

    async def resampled(self, sound: Channels, *, rate_hz: int) -> Channels:
        """Refuse."""
        raise _no_sound()


def _no_sound() -> Unavailable:
    return Unavailable("sound cannot be processed here", hint="give the context a `sound`")


Visibility = Literal["private", "division", "organisation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """Something to remember; `embedding` [dim] is L2-normalised."""

    content: str
    embedding: Floats
    embedding_model: str
    title: str | None = None
    tags: Sequence[str] = ()
    keywords: Sequence[str] = ()
    memory_type: str = "note"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    """Where it comes from, in the caller's words: a URL, a file, an application."""
    recording_id: UUID | None = None
    segment_id: UUID | None = None
    document_id: UUID | None = None
    position: int | None = None
    """Place in its document, from 0."""
    visibility: Visibility = "organisation"
    importance: float = 0.5
    """0 to 1."""
    occurred_at: datetime | None = None
    """When what it tells happened; now when not given."""
    expires_at: datetime | None = None
    """After this it is not found any more, and deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFilter:
    """Restrict a search; None means no restriction."""

    recording_id: UUID | None = None
    document_id: UUID | None = None
    memory_type: str | None = None
    """None: every type but `chat_message`, which is seen only where it is asked for, so that no answer rests on
    answers."""
    tags: Sequence[str] | None = None
    """All of these."""
    metadata: Mapping[str, Any] | None = None
    """All of these keys with exactly these scalars."""
    source: str | None = None
    user_id: UUID | None = None
    """Who remembered it."""
    since: datetime | None = None
    """`occurred_at` from here."""
    until: datetime | None = None
    """`occurred_at` before this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A remembered row."""

    id: UUID
    user_id: UUID
    content: str
    title: str | None
    tags: list[str]
    keywords: list[str]
    memory_type: str
    metadata: dict[str, Any]
    source: str | None
    recording_id: UUID | None
    document_id: UUID | None
    position: int | None
    visibility: Visibility
    importance: float
    occurred_at: datetime
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Scored:
    """A row with the score of the search that found it."""

    id: UUID
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the searches found, each best first."""

    dense: list[Scored]
    keyword: list[Scored]
    related: list[Scored] = field(default_factory=list)
    """What mentions the things named in the query, or things said to be connected with them; score 1 / rank."""
    rows: Mapping[UUID, Memory] = field(default_factory=dict)
    """Of what was found, what was to be kept."""
    cosines: Mapping[UUID, float] = field(default_factory=dict)
    """Of every row found by either, where it was asked for and the row has a vector of the model."""
    bm25: Mapping[UUID, float] = field(default_factory=dict)
    """Likewise; 0 for a row without any of the words."""


class Memories(Protocol):
    """The remembered rows the caller may see: by meaning (embeddings, HNSW) and by words (BM25 over keyed hashes)."""

    async def add(self, items: Sequence[NewMemory]) -> list[UUID]:
        """Store all or none; ids in the order given."""
        ...

    async def search(
        self,
        *,
        query: str,
        vector: Floats | None,
        model: str,
        limit: int,
        where: MemoryFilter = MemoryFilter(),
        score_all: bool = False,
        names: Sequence[str] = (),
        keep: int | None = None,
    ) -> Found:
        """At most `limit` rows each by cosine similarity (score in [-1, 1]) among rows embedded by `model`, none
        without a `vector`, and by BM25 of the query's words (score > 0). `score_all`: both scores of every row.
        `names`: keys of things (kit/names.py) whose memories, and whose neighbours' memories, are wanted too.
        `keep`: rows wanted of the first so many by reciprocal rank fusion of all searches only; None: of all."""
        ...

    async def vectors(self, ids: Sequence[UUID], *, model: str, dim: int) -> dict[UUID, Floats]:
        """Embeddings [dim] by `model` of those of these rows that have one."""
        ...

    async def embedding_model(self) -> str | None:
        """Catalogue id of the model the organisation's rows are searched with; None: the platform's default."""
        ...


class Blobs(Protocol):
    """The caller's objects; keys are relative to the organisation and cannot leave it."""

    async def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        ...

    async def get(self, key: str) -> bytes:
        """Read an object. Raises NotFound."""
        ...

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`; none is fine."""
        ...


class Cache(Protocol):
    """Results worth keeping, of the caller's organisation only; nothing is lost when one is forgotten."""

    async def get_or_compute(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[int]], Awaitable[Sequence[Any]]],
        *,
        ttl_s: float,
    ) -> list[Any]:
        """A value for each key, in order. `compute` gets the positions of those nobody has and gives their values.

        Equal keys asked for at the same time are computed once. Values are what msgpack holds: None, bool, int,
        float, str, bytes, list (a tuple comes back as one), dict. What `compute` raises is raised to all who wait for
        it and is not kept. A key must name everything the value depends on, the model and its version too. `compute`
        may outlive this call when others wait for the same key, so it leases the models it uses itself.
        """
        ...


class Progress(Protocol):
    """How long work tells where it is."""

    async def __call__(self, stage: str, fraction: float, **data: Any) -> None:
        """Report that `stage` is `fraction` (0..1) done."""
        ...


VOICE_EMOTION = "voice_emotion"
"""The switch without which nothing is inferred of a person's feelings from the voice."""


class Switches(Protocol):
    """What the caller's organisation has allowed on purpose; everything else is off."""

    async def allowed(self, name: str) -> bool:
        """Whether it is allowed now."""
        ...


class NothingAllowed:
    """The Switches of nobody in particular."""

    async def allowed(self, name: str) -> bool:
        """Never."""
        return False


VoicePurpose = Literal["verify", "identify", "label_recordings"]
"""What a person can agree to have the voice used for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledVoice:
    """Someone whose voice the organisation knows, and may use for what was asked for."""

    id: UUID
    name: str
    vectors: Floats
    """A row for each sample [n, dim], L2-normalised."""
    speech_s: Floats
    """Seconds of speech behind each row [n]."""


class Voices(Protocol):
    """The people whose voices the caller's organisation has enrolled."""

    async def enrolled(self, *, model: str, purpose: VoicePurpose) -> list[EnrolledVoice]:
        """Those with a voiceprint by this model (its fingerprint) who agreed to the purpose, while they do."""
        ...


class NoVoices:
    """The Voices of nobody in particular."""

    async def enrolled(self, *, model: str, purpose: VoicePurpose) -> list[EnrolledVoice]:
        """None."""
        return []


class Clock(Protocol):
    """Time, so that tests can set it."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...
