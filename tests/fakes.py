"""In-memory ports, so that an engine can be tested without database, cache or weights."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from uuid_utils.compat import uuid7

from neuroedge.contract.chat import LLM
from neuroedge.contract.engine import EngineCall, EngineContext
from neuroedge.contract.errors import ModelUnavailable, NotFound
from neuroedge.contract.models import Floats, ModelRef, ModelStatus
from neuroedge.contract.ports import Audio, AudioSource, Found, Memory, MemoryFilter, NewMemory, Scored
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.services.llm.local import LocalLLM


class FakeModels:
    """A pool whose roles hold the objects it was given."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = dict(models)

    @asynccontextmanager
    async def lease(self, ref: ModelRef[Any], *, priority: Any = None) -> AsyncIterator[Any]:
        """Hand out the object of the role."""
        if ref.role not in self._models:
            raise ModelUnavailable(f"no model for {ref.role}", hint="give one to make_context")
        yield self._models[ref.role]

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """Ready when the role has an object."""
        state = "ready" if ref.role in self._models else "missing"
        return ModelStatus(role=ref.role, id=ref.role, state=state, runtime="fake")  # type: ignore[arg-type]


class FakeMemories:
    """Rows in a list; exact cosine and word overlap."""

    def __init__(self) -> None:
        self.rows: list[tuple[UUID, NewMemory, datetime]] = []

    async def add(self, items: Sequence[NewMemory]) -> list[UUID]:
        """Keep the rows."""
        ids = [UUID(str(uuid7())) for _ in items]
        self.rows += [(i, m, datetime.now(UTC)) for i, m in zip(ids, items, strict=True)]
        return ids

    def _where(self, where: MemoryFilter) -> list[tuple[UUID, NewMemory, datetime]]:
        return [
            r
            for r in self.rows
            if (where.recording_id in (None, r[1].recording_id))
            and (where.memory_type in (None, r[1].memory_type))
            and (where.tags is None or set(where.tags) <= set(r[1].tags))
        ]

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
        """Exact cosine, and the share of the query's words the row holds."""
        rows, words = self._where(where), set(query.lower().split())
        dense = [] if vector is None else [Scored(r[0], float(np.dot(r[1].embedding, vector))) for r in rows]
        worded = [Scored(r[0], len(words & set(r[1].content.lower().split())) / max(1, len(words))) for r in rows]
        return Found(
            dense=sorted(dense, key=lambda h: -h.score)[:limit],
            keyword=sorted((h for h in worded if h.score > 0), key=lambda h: -h.score)[:limit],
            rows={row[0]: _memory(row) for row in rows},
        )

    async def vectors(self, ids: Sequence[UUID], *, model: str, dim: int) -> dict[UUID, Floats]:
        """Of the rows asked for."""
        return {i: np.asarray(m.embedding, np.float32) for i, m, _ in self.rows if i in ids}

    async def embedding_model(self) -> str | None:
        """The platform's default."""
        return None


def _memory(row: tuple[UUID, NewMemory, datetime]) -> Memory:
    id_, m, at = row
    return Memory(
        id=id_,
        user_id=UUID(int=1),
        content=m.content,
        title=m.title,
        tags=list(m.tags),
        keywords=list(m.keywords),
        memory_type=m.memory_type,
        metadata=dict(m.metadata),
        source=m.source,
        recording_id=m.recording_id,
        document_id=m.document_id,
        position=m.position,
        visibility=m.visibility,
        importance=m.importance,
        occurred_at=m.occurred_at or at,
        expires_at=m.expires_at,
        created_at=at,
        updated_at=at,
    )


class FakeBlobs:
    """Objects in a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        """Keep the bytes."""
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        """Return the bytes or NotFound."""
        if key not in self.objects:
            raise NotFound(f"no object {key}")
        return self.objects[key]

    async def delete_prefix(self, prefix: str) -> None:
        """Drop what starts with the prefix."""
        self.objects = {k: v for k, v in self.objects.items() if not k.startswith(prefix)}


class FakeCache:
    """Keeps everything in a dict."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def get_or_compute(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[int]], Awaitable[Sequence[Any]]],
        *,
        ttl_s: float,
    ) -> list[Any]:
        """Compute what is not there."""
        missing = [i for i, key in enumerate(keys) if key not in self.values]
        if missing:
            for i, value in zip(missing, await compute(missing), strict=True):
                self.values[keys[i]] = value
        return [self.values[key] for key in keys]


class FakeMedia:
    """Answers every source with one waveform."""

    def __init__(self, samples: Floats | None = None) -> None:
        self._samples = np.zeros(16_000, np.float32) if samples is None else samples

    async def audio(self, source: AudioSource) -> Audio:
        """The waveform, as if decoded from a 16 kHz WAV."""
        return Audio(
            samples=self._samples,
            duration_s=len(self._samples) / 16_000,
            source_rate_hz=16_000,
            source_channels=1,
            codec="pcm_s16le",
            container="wav",
        )


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        """Now, in UTC."""
        return datetime.now(UTC)


class RecordedProgress:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, float]] = []

    async def __call__(self, stage: str, fraction: float, **data: Any) -> None:
        """Keep the report."""
        self.reports.append((stage, fraction))


async def _no_call(name: str, payload: Any) -> Any:
    raise AssertionError(f"the engine called {name}; give make_context a `call`")


def make_principal() -> Principal:
    """A member of a fresh organisation."""
    return Principal(
        user_id=UUID(str(uuid7())),
        org_id=UUID(str(uuid7())),
        username="test",
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )


def make_context(
    *,
    models: Mapping[str, Any] | None = None,
    memories: FakeMemories | None = None,
    blobs: FakeBlobs | None = None,
    media: Any = None,
    cache: FakeCache | None = None,
    call: EngineCall = _no_call,
    progress: RecordedProgress | None = None,
    llm: LLM | None = None,
) -> EngineContext:
    """An EngineContext over in-memory ports; without `llm`, the model of the role chat answers."""
    fakes = FakeModels(models or {})
    return EngineContext(
        principal=make_principal(),
        request_id="test",
        models=fakes,
        memories=memories or FakeMemories(),
        blobs=blobs or FakeBlobs(),
        media=media or FakeMedia(),
        cache=cache or FakeCache(),
        clock=SystemClock(),
        progress=progress or RecordedProgress(),
        call=call,
        llm=llm or LocalLLM(fakes),
    )
