"""Builds the platform: settings → data directory → servers → pools → runtimes → engines → services.

Nothing else constructs adapters, and importing this module does nothing.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import valkey.asyncio

from neuroedge.contract import scope
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import OCR
from neuroedge.http.platform import Platform
from neuroedge.infra import datadir
from neuroedge.infra.accelerator import Accelerator, AcceleratorMetrics
from neuroedge.infra.blobs import open_store
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.shared import SharedLevel
from neuroedge.infra.cache.tiered import NoCache, TieredCache
from neuroedge.infra.clock import SystemClock
from neuroedge.infra.documents.outcome import ParseLimits
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.events import Events
from neuroedge.infra.fetch import Fetcher
from neuroedge.infra.inference_metrics import InferenceMetrics
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.loop_guard import LoopGuard
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.infra.vault import Vault
from neuroedge.jobs import documents as document_jobs
from neuroedge.jobs import index as index_jobs
from neuroedge.jobs import keys as key_jobs
from neuroedge.jobs import knowledge as knowledge_jobs
from neuroedge.jobs import privacy as privacy_jobs
from neuroedge.jobs import recordings as recording_jobs
from neuroedge.jobs import reembedding as reembedding_jobs
from neuroedge.jobs import tasks as task_jobs
from neuroedge.jobs.worker import work
from neuroedge.runtimes import device, memory
from neuroedge.runtimes.catalogue import Catalogue, load_catalogue
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.services import engines
from neuroedge.services.accounts import PROBE, Accounts
from neuroedge.services.divisions import Divisions
from neuroedge.services.document_process import ChunkSize, DocumentProcess, OpenPageReader
from neuroedge.services.document_progress import DocumentProgress
from neuroedge.services.documents import Documents
from neuroedge.services.index import MemoryIndex
from neuroedge.services.keys import KeyCare
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.memory import MemoryService
from neuroedge.services.memory_merge import MemoryMerge
from neuroedge.services.memory_transfer import MemoryTransfer
from neuroedge.services.page_reader import EnginePageReader
from neuroedge.services.privacy import Privacy
from neuroedge.services.recording_process import RecordingProcess
from neuroedge.services.recording_progress import RecordingProgress
from neuroedge.services.recordings import Recordings
from neuroedge.services.reembedding import Reembedding
from neuroedge.services.reload import EngineReloader
from neuroedge.services.run_engine import Contexts, EngineRunner
from neuroedge.services.task_progress import TaskProgress
from neuroedge.services.task_run import TaskRuns
from neuroedge.services.tasks import Tasks
from neuroedge.services.usage import UsageLedger
from neuroedge.settings import Settings
from neuroedge.stores import schema
from neuroedge.stores.derived import Underived
from neuroedge.stores.ledgers import UsageTable
from neuroedge.stores.postgres import Database

if TYPE_CHECKING:
    from fastapi import FastAPI


GPU_SHARE = 0.9
"""Part of a GPU's free memory at start that models may take; computing takes some too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where database and cache are, embedded or external."""

    postgres_owner: str
    postgres_app: str
    valkey: str
    secrets: datadir.Secrets


def catalogue_of(settings: Settings) -> Catalogue:
    """The model catalogue with the operator's additions and choices."""
    return load_catalogue(
        store=settings.model_store, extra=settings.data_dir / "models.toml", overrides=settings.models
    )


@asynccontextmanager
async def open_servers(settings: Settings, *, metrics: Metrics | None = None) -> AsyncIterator[Servers]:
    """Data directory ready, embedded servers running (unless external ones are configured).

    With `metrics` they are kept running: one that dies is started again, and counted.
    """
    secrets = await asyncio.to_thread(datadir.prepare, settings)
    embedded = EmbeddedServers(
        settings.data_dir, secrets, postgres=settings.postgres_url is None, valkey=settings.redis_url is None
    )
    addresses = await asyncio.to_thread(embedded.start)
    keeping = metrics and asyncio.create_task(embedded.keep_running(restarts=metrics.embedded_restarts))
    try:
        yield Servers(
            postgres_owner=addresses.postgres_owner or _secret(settings.postgres_url),
            postgres_app=addresses.postgres_app or _external_app_url(settings, secrets),
            valkey=addresses.valkey or _secret(settings.redis_url),
            secrets=secrets,
        )
    finally:
        if keeping:
            await _end(keeping)
        await asyncio.to_thread(embedded.stop)


def app_password(settings: Settings, secrets: datadir.Secrets) -> str | None:
    """The password `db upgrade` gives the application's role; None when the operator made the role."""
    return None if settings.postgres_app_url is not None else secrets.postgres_app_password


def open_vault(settings: Settings, secrets: datadir.Secrets) -> Vault:
    """What wraps every organisation's keys. Raises VaultLocked."""
    master = settings.master_key.get_secret_value() if settings.master_key else secrets.master_key
    return Vault(master, former=[key.get_secret_value() for key in settings.master_keys_former])


@asynccontextmanager
async def open_platform(settings: Settings, *, worker: bool) -> AsyncIterator[Platform]:
    """The whole platform; with `worker`, it also runs jobs. Everything started here is stopped on leaving."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            LoopGuard(limit_s=settings.loop_block_limit_s, lag=metrics.loop_lag_seconds, blocked=metrics.loop_blocked)
        )
        servers = await stack.enter_async_context(open_servers(settings, metrics=metrics))
        vault = await asyncio.to_thread(open_vault, settings, servers.secrets)
        await asyncio.to_thread(
            schema.upgrade, servers.postgres_owner, app_password=app_password(settings, servers.secrets), keys=vault
        )
        db = Database(
            servers.postgres_app,
            max_size=settings.postgres_pool_size,
            keys=vault,
            underived=Underived(embedding=settings.memory_no_embedding, words=settings.memory_no_words),
        )
        await db.open()
        stack.push_async_callback(db.close)
        client = valkey.asyncio.Valkey.from_url(servers.valkey, socket_connect_timeout=2, socket_timeout=4)
        stack.push_async_callback(client.aclose)
        events = Events(client)
        stack.push_async_callback(events.settled)
        platform = await _assemble(settings, servers, db, vault, events, stack, metrics)
        if datadir.version(settings.data_dir) < datadir.SEALED_BLOBS_VERSION:
            await platform.recordings.seal_plain()
            datadir.set_version(settings.data_dir)
        await _share_device(settings, platform.pool, client, platform.metrics, stack)
        recording_jobs.register(
            platform.queue.app,
            process=RecordingProcess(
                db=db, runner=platform.runner, progress=platform.recording_progress, metrics=platform.metrics
            ),
            recordings=platform.recordings,
            metrics=platform.metrics,
        )
        document_jobs.register(
            platform.queue.app,
            process=platform.document_process,
            documents=platform.documents,
            metrics=platform.metrics,
        )
        privacy_jobs.register(
            platform.queue.app, privacy=platform.privacy, tmp=settings.data_dir / "tmp", metrics=platform.metrics
        )
        key_jobs.register(platform.queue.app, keys=platform.keys, metrics=platform.metrics)
        index_jobs.register(platform.queue.app, index=platform.memory_index, metrics=platform.metrics)
        reembedding_jobs.register(platform.queue.app, reembedding=platform.reembedding, metrics=platform.metrics)
        knowledge_jobs.register(platform.queue.app, knowledge=platform.knowledge, metrics=platform.metrics)
        task_jobs.register(
            platform.queue.app,
            runs=TaskRuns(
                db=db,
                runner=platform.runner,
                queue=platform.queue,
                progress=platform.task_progress,
                clock=SystemClock(),
                retry_wait_s=settings.task_retry_s,
            ),
            tasks=platform.tasks,
            metrics=platform.metrics,
        )
        if worker:
            job = asyncio.create_task(run_worker(platform, signals=False))
            stack.push_async_callback(_end, job)
        yield platform


async def _assemble(
    settings: Settings,
    servers: Servers,
    db: Database,
    vault: Vault,
    events: Events,
    stack: AsyncExitStack,
    metrics: Metrics,
) -> Platform:
    clock, catalogue = SystemClock(), catalogue_of(settings)
    inference_metrics, breakers = InferenceMetrics(metrics.registry), Breakers()
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else servers.secrets.jwt_secret
    cache = TieredCache(
        secret=hashlib.blake2b(secret.encode(), person=b"cache keys").digest(),
        memory=MemoryLevel(settings.cache_memory_bytes),
        shared=SharedLevel(servers.valkey),
        disk=DiskLevel(settings.data_dir / "cache", limit_bytes=settings.cache_disk_bytes)
        if settings.cache_disk_bytes
        else None,
        count=inference_metrics.cached,
    )
    stack.push_async_callback(cache.close)
    pool = await _open_pool(settings, catalogue, inference_metrics, breakers, cache, stack)
    contexts = Contexts(
        db=db,
        models=pool,
        blob_store=open_store(settings.blob_url, settings.data_dir / "blobs"),
        tmp=settings.data_dir / "tmp",
        # What proves an engine must not be answered from the cache.
        cache=lambda principal: NoCache() if principal is PROBE else cache.of(principal),
        clock=clock,
        max_audio_bytes=settings.max_upload_bytes,
        max_audio_s=settings.max_audio_s,
    )
    usage = UsageLedger(table=UsageTable(db, to_disk=settings.usage_to_disk), metrics=metrics)
    stack.push_async_callback(usage.close)
    runner = EngineRunner(contexts=contexts, usage=usage, breakers=breakers, metrics=metrics)
    probe = runner.context(PROBE, request_id="probe")
    registry = engines.build(probe=probe)
    runner.use(registry)
    reloader = EngineReloader(
        registry=registry,
        executor=runner.executor,
        probe=probe,
        db=db,
        events=events,
        metrics=metrics,
        proof_s=settings.engine_proof_s,
        drain_s=settings.engine_drain_s,
    )
    stack.push_async_callback(reloader.close)
    stack.push_async_callback(_end, asyncio.create_task(reloader.follow()))  # reloads of the other processes
    progress = RecordingProgress(db=db, events=events)
    task_progress = TaskProgress(db=db, events=events)
    queue = JobQueue(db.pool)
    await queue.open()
    limits = RateLimits(servers.valkey, metrics=metrics)
    stack.push_async_callback(limits.close)
    tokens = AccessTokens(secret)
    recordings = Recordings(db=db, runner=runner, queue=queue, progress=progress, settings=settings)
    parser = DocumentParser(limits=_parse_limits(settings), at_once=2)
    document_progress = DocumentProgress(db=db, events=events)
    page_reader = _page_reader(runner, pool)
    documents = Documents(
        db=db,
        runner=runner,
        queue=queue,
        progress=document_progress,
        recordings=recordings,
        parser=parser,
        fetcher=Fetcher(
            hosts=settings.document_hosts, max_bytes=settings.document_max_bytes, timeout_s=settings.document_fetch_s
        ),
        tmp=settings.data_dir / "tmp",
        reads_images=page_reader is not None,
    )
    memories = MemoryService(db=db, runner=runner)
    return Platform(
        settings=settings,
        db=db,
        events=events,
        limits=limits,
        metrics=metrics,
        inference_metrics=inference_metrics,
        breakers=breakers,
        cache=cache,
        pool=pool,
        catalogue=catalogue,
        queue=queue,
        tokens=tokens,
        accounts=Accounts(db=db, tokens=tokens, clock=clock, settings=settings),
        runner=runner,
        reloader=reloader,
        recordings=recordings,
        recording_progress=progress,
        documents=documents,
        document_progress=document_progress,
        document_process=DocumentProcess(
            db=db,
            runner=runner,
            progress=document_progress,
            parser=parser,
            tmp=settings.data_dir / "tmp",
            page_reader=page_reader,
            size=ChunkSize(capacity_tokens=settings.chunk_tokens, overlap_tokens=settings.chunk_overlap_tokens),
        ),
        knowledge=Knowledge(db=db, runner=runner, queue=queue),
        memories=memories,
        memory_merge=MemoryMerge(db=db),
        memory_transfer=MemoryTransfer(db=db, memory=memories),
        divisions=Divisions(db=db),
        privacy=Privacy(db=db, queue=queue, contexts=contexts, cache=cache, events=events),
        keys=KeyCare(db=db, keys=vault, queue=queue),
        memory_index=MemoryIndex(db=db, owner_url=servers.postgres_owner, queue=queue),
        reembedding=Reembedding(db=db, runner=runner, queue=queue),
        tasks=Tasks(
            db=db,
            runner=runner,
            queue=queue,
            progress=task_progress,
            clock=clock,
            keep_days=settings.task_keep_days,
            max_unfinished=settings.task_queue_limit,
        ),
        task_progress=task_progress,
    )


def _page_reader(runner: EngineRunner, pool: Pool) -> OpenPageReader | None:
    """What reads scans; None where no OCR model is installed."""
    status = pool.status(OCR)
    if status.state == "missing":
        return None
    return lambda principal, request_id: EnginePageReader(runner, principal, request_id=request_id, model_id=status.id)


def _parse_limits(settings: Settings) -> ParseLimits:
    return ParseLimits(
        memory_bytes=settings.document_parse_memory_bytes,
        time_s=settings.document_parse_s,
        pages=settings.document_max_pages,
        characters=settings.document_max_characters,
        file_bytes=settings.document_max_bytes,
    )


async def _open_pool(
    settings: Settings,
    catalogue: Catalogue,
    metrics: InferenceMetrics,
    breakers: Breakers,
    cache: TieredCache,
    stack: AsyncExitStack,
) -> Pool:
    memory.keep_large_blocks_apart()
    cores = device.available_cores()
    pool = Pool(
        catalogue,
        PoolSettings(
            cores=cores,
            threads=settings.model_threads or cores,
            budget_bytes=await asyncio.to_thread(_budgets, settings),
            idle_s=settings.model_idle_s,
            wait_s=settings.model_wait_s,
            pinned=settings.models_pinned,
            options={"calibration_dir": str(settings.model_store / "calibration")},
        ),
        router=Router(settings.model_device),
        metrics=metrics,
        guard=lambda name, counts: breakers.guard(name, counts=counts),
        on_pressure=lambda level: cache.shrink(),
    )
    stack.push_async_callback(pool.close)
    stack.push_async_callback(_end, asyncio.create_task(pool.watch()))
    if settings.models_warm:
        stack.push_async_callback(_end, asyncio.create_task(pool.warm_up(settings.models_warm)))
    return pool


async def _share_device(
    settings: Settings, pool: Pool, client: "valkey.asyncio.Valkey", metrics: Metrics, stack: AsyncExitStack
) -> None:
    """Take part in sharing the device with other processes, and let `exclusive_roles` have it alone."""
    kind = "gpu" if any(device.split(name)[0] == "cuda" for name in pool.rooms.budget_bytes) else "ram"
    accelerator = Accelerator(
        client,
        device=settings.device_name or f"{socket.gethostname()}/{kind}",
        participant=pool,
        metrics=AcceleratorMetrics(metrics.registry),
    )
    await accelerator.open()
    stack.push_async_callback(accelerator.close)

    def alone(role: str) -> AbstractAsyncContextManager[object]:
        if role not in settings.exclusive_roles:
            return nullcontext()
        wait_s = scope.remaining_s(settings.model_wait_s)
        return accelerator.exclusive(owner=role, priority=scope.priority(), wait_s=wait_s)

    pool.share_device(alone)


def _budgets(settings: Settings) -> dict[str, int]:
    """Bytes models may take on each device."""
    budgets = {device.CPU: settings.memory_budget_bytes or memory.default_budget_bytes()}
    if settings.model_device in ("auto", "cuda"):
        budgets |= {gpu.device: int(gpu.free_bytes * GPU_SHARE) for gpu in device.gpus()}
    return budgets


async def run_worker(platform: Platform, *, signals: bool) -> None:
    """Run jobs until cancelled, or until a signal to stop when `signals`."""
    await work(
        platform.queue,
        sweeps={
            "recording_orphans_swept": platform.recordings.sweep,
            "document_orphans_swept": platform.documents.sweep,
            "exports_swept": platform.privacy.sweep,
            "expired_memories_swept": platform.memories.sweep,
            "tasks_swept": platform.tasks.sweep,
        },
        settings=platform.settings,
        metrics=platform.metrics,
        signals=signals,
    )


def build_app(settings: Settings) -> "FastAPI":
    """The HTTP application over a platform that its lifespan opens."""
    from neuroedge.http.app import create_app

    return create_app(settings, lambda: open_platform(settings, worker=settings.worker == "embedded"))


async def _end(task: "asyncio.Task[None]") -> None:
    """Cancel a task of ours and wait for it; its own failure is logged by asyncio, not raised into the shutdown."""
    task.cancel()
    await asyncio.wait([task])


def _secret(value: object) -> str:
    if value is None:
        raise Unavailable("no address for a server that is not embedded")
    return str(value.get_secret_value())  # type: ignore[attr-defined]


def _external_app_url(settings: Settings, secrets: datadir.Secrets) -> str:
    if settings.postgres_app_url is not None:
        return settings.postgres_app_url.get_secret_value()
    from psycopg.conninfo import make_conninfo

    return make_conninfo(_secret(settings.postgres_url), user="neuroedge_app", password=secrets.postgres_app_password)
