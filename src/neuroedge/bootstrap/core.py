"""What every part of the platform is built from: servers, database, cache, models, engines, queue."""

import asyncio
import hashlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import valkey.asyncio

from neuroedge.bootstrap.content_ports import documents_port, pictures_port
from neuroedge.bootstrap.ending import ended
from neuroedge.bootstrap.inference import catalogue_of, open_pool
from neuroedge.bootstrap.llm import gateway_of
from neuroedge.bootstrap.llm_accounts import LLMAccounts, open_llm_accounts
from neuroedge.bootstrap.servers import Servers, app_password, open_servers, open_vault
from neuroedge.bootstrap.speech_output import speech_output_of
from neuroedge.bootstrap.trained import graphs_of, trained_port
from neuroedge.infra.blobs import open_store
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.shared import SharedLevel
from neuroedge.infra.cache.tiered import NoCache, TieredCache
from neuroedge.infra.clock import SystemClock
from neuroedge.infra.events import Events
from neuroedge.infra.inference_metrics import InferenceMetrics
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.loop_guard import LoopGuard
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.infra.vault import Vault
from neuroedge.runtimes import device
from neuroedge.runtimes.catalogue import Catalogue
from neuroedge.runtimes.pool import Pool
from neuroedge.runtimes.tabular import TabularSessions
from neuroedge.services import engines
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.gateway import Gateway
from neuroedge.services.reload import EngineReloader
from neuroedge.services.run_engine import Contexts, EngineRunner
from neuroedge.services.speech_output import SpeechOutputs
from neuroedge.services.usage import UsageLedger
from neuroedge.settings import Settings
from neuroedge.stores import schema
from neuroedge.stores.derived import Underived
from neuroedge.stores.ledgers import UsageTable
from neuroedge.stores.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The parts that all others need."""

    settings: Settings
    servers: Servers
    db: Database
    vault: Vault
    valkey: "valkey.asyncio.Valkey"
    events: Events
    metrics: Metrics
    inference_metrics: InferenceMetrics
    breakers: Breakers
    cache: TieredCache
    catalogue: Catalogue
    pool: Pool
    speech_output: SpeechOutputs
    trained_graphs: TabularSessions
    llm_accounts: LLMAccounts
    gateway: Gateway
    contexts: Contexts
    runner: EngineRunner
    usage: UsageLedger
    reloader: EngineReloader
    queue: JobQueue
    limits: RateLimits
    tokens: AccessTokens
    clock: SystemClock

    @property
    def tmp(self) -> Path:
        """Folder for files that no crash leaves for long."""
        return self.settings.data_dir / "tmp"


async def open_core(settings: Settings, stack: AsyncExitStack) -> Core:
    """Start it; the stack stops it."""
    metrics = Metrics()
    await stack.enter_async_context(
        LoopGuard(limit_s=settings.loop_block_limit_s, lag=metrics.loop_lag_seconds, blocked=metrics.loop_blocked)
    )
    servers = await stack.enter_async_context(open_servers(settings, metrics=metrics))
    vault = await asyncio.to_thread(open_vault, settings, servers.secrets)
    db = await _open_database(settings, servers, vault, stack)
    client = valkey.asyncio.Valkey.from_url(servers.valkey, socket_connect_timeout=2, socket_timeout=4)
    stack.push_async_callback(client.aclose)
    events = Events(client)
    stack.push_async_callback(events.settled)
    clock, catalogue = SystemClock(), catalogue_of(settings)
    inference_metrics, breakers = InferenceMetrics(metrics.registry), Breakers()
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else servers.secrets.jwt_secret
    cache = _open_cache(settings, servers, secret, inference_metrics, stack)
    pool = await open_pool(settings, catalogue, inference_metrics, breakers, cache, stack)
    accounts = await open_llm_accounts(settings, db=db, events=events, catalogue=catalogue, clock=clock, stack=stack)
    gateway = gateway_of(
        models=pool,
        offers=accounts.providers,
        ledger=accounts.ledger,
        breakers=breakers,
        registry=metrics.registry,
        clock=clock,
        stack=stack,
        addresses=accounts.hosts.addresses,
    )
    speech_output = await speech_output_of(
        settings, catalogue=catalogue, models=pool, accounts=accounts, breakers=breakers, clock=clock, stack=stack
    )
    graphs = graphs_of(stack)
    contexts = Contexts(
        db=db,
        models=pool,
        blob_store=open_store(settings.blob_url, settings.data_dir / "blobs"),
        tmp=settings.data_dir / "tmp",
        # What proves an engine must not be answered from the cache.
        cache=lambda principal: NoCache() if principal is PROBE else cache.of(principal),
        clock=clock,
        llm=gateway.of,
        max_audio_bytes=settings.max_upload_bytes,
        max_audio_s=settings.max_audio_s,
        speech_output=speech_output.of,
        trained=trained_port(db, graphs),
        documents=documents_port(settings, tmp=settings.data_dir / "tmp"),
        pictures=pictures_port(),
    )
    usage = UsageLedger(table=UsageTable(db, to_disk=settings.usage_to_disk), metrics=metrics)
    stack.push_async_callback(usage.close)
    runner = EngineRunner(contexts=contexts, usage=usage, breakers=breakers, metrics=metrics, overload=device.overload)
    reloader = _open_engines(settings, runner, db, events, metrics, stack)
    queue = JobQueue(db.pool)
    await queue.open()
    limits = RateLimits(servers.valkey, metrics=metrics)
    stack.push_async_callback(limits.close)
    return Core(
        settings=settings,
        servers=servers,
        db=db,
        vault=vault,
        valkey=client,
        events=events,
        metrics=metrics,
        inference_metrics=inference_metrics,
        breakers=breakers,
        cache=cache,
        catalogue=catalogue,
        pool=pool,
        speech_output=speech_output,
        trained_graphs=graphs,
        llm_accounts=accounts,
        gateway=gateway,
        contexts=contexts,
        runner=runner,
        usage=usage,
        reloader=reloader,
        queue=queue,
        limits=limits,
        tokens=AccessTokens(secret),
        clock=clock,
    )


async def _open_database(settings: Settings, servers: Servers, vault: Vault, stack: AsyncExitStack) -> Database:
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
    return db


def _open_cache(
    settings: Settings, servers: Servers, secret: str, metrics: InferenceMetrics, stack: AsyncExitStack
) -> TieredCache:
    disk_bytes = settings.cache_disk_bytes
    cache = TieredCache(
        secret=hashlib.blake2b(secret.encode(), person=b"cache keys").digest(),
        memory=MemoryLevel(settings.cache_memory_bytes),
        shared=SharedLevel(servers.valkey),
        disk=DiskLevel(settings.data_dir / "cache", limit_bytes=disk_bytes) if disk_bytes else None,
        count=metrics.cached,
    )
    stack.push_async_callback(cache.close)
    return cache


def _open_engines(
    settings: Settings, runner: EngineRunner, db: Database, events: Events, metrics: Metrics, stack: AsyncExitStack
) -> EngineReloader:
    """Find the engines, let the runner run them, and follow the reloads of the other processes."""
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
    stack.push_async_callback(ended, asyncio.create_task(reloader.follow()))
    return reloader
