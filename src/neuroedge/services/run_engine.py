"""Permission, validation, deadline, usage and metrics around any engine call: every protocol goes through here."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from pydantic import BaseModel, ValidationError

from neuroedge.contract import scope
from neuroedge.contract.chat import LLM
from neuroedge.contract.content import Documents, NoDocuments, NoPictures, Pictures
from neuroedge.contract.engine import Engine, EngineContext
from neuroedge.contract.errors import (
    DeadlineExceeded,
    EngineBlocked,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    Overloaded,
)
from neuroedge.contract.models import Models
from neuroedge.contract.ports import Cache, Clock, Progress
from neuroedge.contract.principal import Principal
from neuroedge.contract.speech import NoSpeechOutput, SpeechOutput
from neuroedge.contract.trained import NoTrainedModels, TrainedModels
from neuroedge.contract.vault import Cipher
from neuroedge.executors.local import LocalExecutor
from neuroedge.infra.blobs import TenantBlobs, organisations
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.media import PyAVMedia
from neuroedge.infra.sound import PyAVSound
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.engine_blobs import EngineBlobs
from neuroedge.services.engines import Registry
from neuroedge.services.llm.permitted import permitted
from neuroedge.services.usage import UsageLedger
from neuroedge.stores.ids import new_id
from neuroedge.stores.index_trials import TenantIndexes
from neuroedge.stores.ledgers import UsageRow
from neuroedge.stores.postgres import Database
from neuroedge.stores.switches import TenantSwitches
from neuroedge.stores.tenant_memories import TenantMemories
from neuroedge.stores.voices import TenantVoices

log = structlog.get_logger(__name__)
_TOO_BUSY = 1.5
"""A machine with so many times as much to do as it has cores is why an engine does not end within its own limit."""
_BUSY_RETRY_S = 60
"""The load is an average over a minute."""
_TRIALS_AT_ONCE = 2
"""Of vector indexes: each keeps a connection and a processor of the database busy."""


async def no_progress(stage: str, fraction: float, **data: Any) -> None:
    """Progress nobody listens to."""


class Contexts:
    """Makes contexts whose every port is bound to one caller."""

    def __init__(
        self,
        *,
        db: Database,
        models: Models,
        blob_store: Any,
        tmp: Path,
        cache: Callable[[Principal], Cache],
        clock: Clock,
        llm: Callable[[Principal, str], LLM],
        max_audio_bytes: int,
        max_audio_s: float,
        speech_output: Callable[[Principal, str], SpeechOutput] = lambda principal, request_id: NoSpeechOutput(),
        trained: Callable[[Principal, TenantBlobs, str], TrainedModels] = lambda *_: NoTrainedModels(),
        documents: Documents | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        self._db = db
        self._models = models
        self._blob_store = blob_store
        self._tmp = tmp
        self._cache = cache
        self._clock = clock
        self._llm = llm
        self._max_audio_bytes = max_audio_bytes
        self._max_audio_s = max_audio_s
        self._speech_output = speech_output
        self._trained = trained
        self._documents = documents or NoDocuments()
        self._trials = asyncio.Semaphore(_TRIALS_AT_ONCE)
        self._pictures = pictures or NoPictures()

    def blobs(self, principal: Principal) -> TenantBlobs:
        """The caller's objects."""

        async def cipher() -> Cipher:
            return (await self._db.known(principal.org_id)).cipher

        return TenantBlobs(self._blob_store, principal.org_id, cipher=cipher, tmp=self._tmp)

    def seen_blobs(self, principal: Principal) -> EngineBlobs:
        """Those of the caller's objects that a request may name."""
        return EngineBlobs(self.blobs(principal), db=self._db, principal=principal)

    async def organisations(self) -> list[UUID]:
        """Every organisation that has objects; for the platform's own housekeeping."""
        return await organisations(self._blob_store)

    def media(self, principal: Principal) -> PyAVMedia:
        """Decoding of what the caller sends or has stored."""
        blobs = self.seen_blobs(principal)
        return PyAVMedia(
            blobs=blobs,
            max_bytes=self._max_audio_bytes,
            max_duration_s=self._max_audio_s,
            tmp=self._tmp,
            fetch=blobs.fetch,
        )

    def llm(self, principal: Principal, *, request_id: str) -> LLM:
        """The language models the caller may use."""
        return permitted(self._llm(principal, request_id), principal)

    def make(self, principal: Principal, *, request_id: str, progress: Progress, call: Any) -> EngineContext:
        """A context for one engine call."""
        media = self.media(principal)
        return EngineContext(
            principal=principal,
            request_id=request_id,
            models=self._models,
            memories=TenantMemories(self._db, principal),
            blobs=self.seen_blobs(principal),
            media=media,
            cache=self._cache(principal),
            clock=self._clock,
            progress=progress,
            call=call,
            llm=self.llm(principal, request_id=request_id),
            switches=TenantSwitches(self._db, principal),
            sound=PyAVSound(media),
            voices=TenantVoices(self._db, principal),
            speech_output=self._speech_output(principal, request_id),
            trained=self._trained(principal, self.blobs(principal), request_id),
            documents=self._documents,
            pictures=self._pictures,
            indexes=TenantIndexes(self._db, principal, slots=self._trials),
        )


class EngineRunner:
    """Runs engines by name."""

    def __init__(
        self,
        *,
        contexts: Contexts,
        usage: UsageLedger,
        breakers: Breakers,
        metrics: Metrics,
        overload: Callable[[], float],
    ) -> None:
        """`overload`: how many times as much work the machine has as cores."""
        self.contexts = contexts
        self._overload = overload
        self._breakers = breakers
        self._usage = usage
        self._metrics = metrics
        self.executor = LocalExecutor()
        self._registry = Registry([])

    def use(self, registry: Registry) -> None:
        """Take the engines in; they are built after the runner, because their probe context calls through it."""
        self._registry = registry

    @property
    def registry(self) -> Registry:
        """The engines it runs."""
        return self._registry

    async def run(
        self,
        name: str,
        payload: Mapping[str, Any] | BaseModel,
        *,
        principal: Principal,
        request_id: str,
        progress: Progress = no_progress,
    ) -> BaseModel:
        """The engine's Output. Raises NotFound, Forbidden, InvalidInput, DeadlineExceeded, Overloaded, its own."""
        engine = self._registry.get(name)
        if not principal.may(engine.permission):
            raise Forbidden(f"running {name} needs the permission {engine.permission}")
        if not principal.may_run(name):
            raise Forbidden(f"this API key does not allow the engine {name}")
        checked = validate(engine, payload)
        ctx = self.context(principal, request_id=request_id, progress=progress)
        started = time.perf_counter()
        outcome, answer = "ok", None
        try:
            answer = await self._within_deadline(engine, checked, ctx)
        except NeuroEdgeError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            await self._account(engine, outcome, answer, time.perf_counter() - started, ctx)
        return answer

    def context(self, principal: Principal, *, request_id: str, progress: Progress = no_progress) -> EngineContext:
        """A context whose `call` runs other engines under the same caller; they count as part of the outer call."""

        async def call(name: str, payload: BaseModel) -> BaseModel:
            engine = self._registry.get(name)
            return await self.executor.run(engine, validate(engine, payload), ctx)

        ctx = self.contexts.make(principal, request_id=request_id, progress=progress, call=call)
        return ctx

    async def _within_deadline(self, engine: Engine[Any, Any], payload: BaseModel, ctx: EngineContext) -> BaseModel:
        with scope.call_scope(timeout_s=engine.timeout_s):
            left_s = scope.remaining_s(engine.timeout_s)
            try:
                async with self._breakers.guard(f"engine:{engine.name}", counts=_blocked), asyncio.timeout(left_s):
                    return await self.executor.run(engine, payload, ctx)
            except TimeoutError as error:
                raise self._late(engine, left_s) from error

    def _late(self, engine: Engine[Any, Any], limit_s: float) -> NeuroEdgeError:
        """Overloaded where the limit was the engine's own and the machine too busy for it, else DeadlineExceeded."""
        late, busy = f"{engine.name} did not answer within {limit_s:.3g} s", self._overload()
        if busy >= _TOO_BUSY and limit_s > 0.99 * engine.timeout_s:
            return Overloaded(
                f"{late}: the machine has {busy:.1f} times as much to do as it has cores",
                hint="try again later, or send less",
                retry_after_s=_BUSY_RETRY_S,
            )
        return DeadlineExceeded(late, hint="send less, or try again later")

    async def _account(
        self, engine: Engine[Any, Any], outcome: str, answer: BaseModel | None, seconds: float, ctx: EngineContext
    ) -> None:
        self._metrics.observe_engine(engine.name, outcome, seconds)
        used = getattr(answer, "usage", None)
        await self._usage.record(
            UsageRow(
                id=new_id(),
                org_id=ctx.principal.org_id,
                user_id=ctx.principal.user_id,
                request_id=ctx.request_id,
                engine=engine.name,
                outcome=outcome,
                seconds=seconds,
                created_at=ctx.clock.now(),
                prompt_tokens=getattr(used, "prompt_tokens", 0) or 0,
                completion_tokens=getattr(used, "completion_tokens", 0) or 0,
            )
        )


def _blocked(error: BaseException) -> bool:
    """An engine that holds up the whole process is not tried for ever; its other errors concern its caller alone."""
    return isinstance(error, EngineBlocked)


def validate(engine: Engine[Any, Any], payload: Mapping[str, Any] | BaseModel) -> BaseModel:
    """The payload as the engine's Input. Raises InvalidInput with the fields that are wrong."""
    if isinstance(payload, engine.Input):
        return payload
    raw = payload.model_dump() if isinstance(payload, BaseModel) else payload
    try:
        return engine.Input.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput(
            f"the payload is not what {engine.name} takes",
            hint=f"GET /v1/engines/{engine.name} shows the schema and an example",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
