"""The whole platform, from its parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from neuroedge.bootstrap.artifacts import artifacts_of
from neuroedge.bootstrap.assistant import assistant_of
from neuroedge.bootstrap.batches import batches_of
from neuroedge.bootstrap.chat import chats_of
from neuroedge.bootstrap.content import documents_of, recordings_of, tasks_of
from neuroedge.bootstrap.core import Core, open_core
from neuroedge.bootstrap.ending import ended
from neuroedge.bootstrap.federated import federations_of
from neuroedge.bootstrap.grpc import grpc_beside
from neuroedge.bootstrap.inference import share_device
from neuroedge.bootstrap.jobs import register_jobs, run_worker
from neuroedge.bootstrap.live import live_of
from neuroedge.bootstrap.mcp import mcp_tools_of
from neuroedge.bootstrap.safety import safety_of
from neuroedge.bootstrap.surfaces import api_keys_of, idempotency_of
from neuroedge.bootstrap.voices import voices_of
from neuroedge.http.platform import Platform
from neuroedge.infra import datadir
from neuroedge.services.accounts import Accounts
from neuroedge.services.chat.takeover import Takeovers
from neuroedge.services.divisions import Divisions
from neuroedge.services.files import Files
from neuroedge.services.images import Images
from neuroedge.services.index import MemoryIndex
from neuroedge.services.keys import KeyCare
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.learners import Learners
from neuroedge.services.llm.reports import UsageReports
from neuroedge.services.memory import MemoryService
from neuroedge.services.memory_merge import MemoryMerge
from neuroedge.services.memory_transfer import MemoryTransfer
from neuroedge.services.policies import Policies
from neuroedge.services.privacy import Privacy
from neuroedge.services.reembedding import Reembedding
from neuroedge.services.switches import Switches
from neuroedge.services.trained import TrainedCatalogue
from neuroedge.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


@asynccontextmanager
async def open_platform(settings: Settings, *, worker: bool) -> AsyncIterator[Platform]:
    """The whole platform; with `worker`, it also runs jobs. Everything started here is stopped on leaving."""
    async with AsyncExitStack() as stack:
        core = await open_core(settings, stack)
        platform = _assemble(core)
        if datadir.version(settings.data_dir) < datadir.SEALED_BLOBS_VERSION:
            await platform.recordings.seal_plain()
            datadir.set_version(settings.data_dir)
        await share_device(settings, core.pool, core.valkey, core.metrics, stack)
        register_jobs(platform)
        stack.push_async_callback(platform.live.close)
        stack.push_async_callback(platform.api_keys.close)
        stack.push_async_callback(platform.idempotency.close)
        stack.push_async_callback(platform.assistant.settled)
        stack.push_async_callback(platform.safety.close)
        if worker:
            job = asyncio.create_task(run_worker(platform))
            stack.push_async_callback(ended, job)
        yield platform


def _assemble(core: Core) -> Platform:
    recordings, recording_progress = recordings_of(core)
    voices, voice_naming = voices_of(core)
    federations, federated_rounds = federations_of(core)
    knowledge = Knowledge(db=core.db, runner=core.runner, queue=core.queue)
    documents, document_progress, document_process = documents_of(core, recordings, knowledge)
    tasks, task_progress = tasks_of(core)
    batches, batch_progress = batches_of(core)
    chats, mcp = chats_of(core), mcp_tools_of(core)
    db, runner, queue = core.db, core.runner, core.queue
    memories = MemoryService(db=db, runner=runner, knowledge=knowledge)
    safety = safety_of(core, memories=memories, chats=chats.chats)
    artifacts, artifact_versions, artifact_generation, artifact_progress = artifacts_of(core, memories, safety.safety)
    assistant = assistant_of(core, chats, documents=documents, artifacts=artifacts, safety=safety.safety, mcp=mcp)
    return Platform(
        settings=core.settings,
        db=db,
        events=core.events,
        limits=core.limits,
        metrics=core.metrics,
        inference_metrics=core.inference_metrics,
        breakers=core.breakers,
        cache=core.cache,
        pool=core.pool,
        catalogue=core.catalogue,
        queue=queue,
        tokens=core.tokens,
        accounts=Accounts(db=db, tokens=core.tokens, clock=core.clock, settings=core.settings),
        api_keys=api_keys_of(core),
        idempotency=idempotency_of(core),
        runner=runner,
        speech_output=core.speech_output,
        reloader=core.reloader,
        recordings=recordings,
        recording_progress=recording_progress,
        voices=voices,
        voice_naming=voice_naming,
        documents=documents,
        document_progress=document_progress,
        document_process=document_process,
        providers=core.llm_accounts.providers,
        budgets=core.llm_accounts.budgets,
        usage_reports=UsageReports(db=db),
        switches=Switches(db=db),
        live=live_of(core),
        knowledge=knowledge,
        learners=Learners(db=db),
        policies=Policies(db=db),
        federations=federations,
        federated_rounds=federated_rounds,
        memories=memories,
        memory_merge=MemoryMerge(db=db),
        memory_transfer=MemoryTransfer(db=db, memory=memories),
        divisions=Divisions(db=db),
        privacy=Privacy(db=db, queue=queue, contexts=core.contexts, cache=core.cache, events=core.events),
        keys=KeyCare(db=db, keys=core.vault, queue=queue),
        memory_index=MemoryIndex(db=db, owner_url=core.servers.postgres_owner, queue=queue),
        reembedding=Reembedding(db=db, runner=runner, queue=queue),
        mcp_tools=mcp,
        files=Files(db=db, contexts=core.contexts),
        images=Images(db=db, runner=runner),
        chats=chats.chats,
        chat_attachments=chats.attachments,
        chat_search=chats.search,
        chat_transfer=chats.transfer,
        chat_sweep=chats.sweep,
        session_progress=chats.progress,
        artifacts=artifacts,
        artifact_versions=artifact_versions,
        artifact_generation=artifact_generation,
        artifact_progress=artifact_progress,
        assistant=assistant,
        chat_takeovers=Takeovers(db=db, assistant=assistant, chats=chats.chats, counter=core.limits),
        safety=safety.safety,
        safety_sweep=safety.sweep,
        reviews=safety.reviews,
        tasks=tasks,
        task_progress=task_progress,
        batches=batches,
        batch_progress=batch_progress,
        trained=TrainedCatalogue(db=db, contexts=core.contexts, graphs=core.trained_graphs),
    )


def build_app(settings: Settings) -> "FastAPI":
    """The HTTP application over a platform that its lifespan opens."""
    from neuroedge.http.app import create_app

    return create_app(settings, lambda: _serving(settings))


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[Platform]:
    async with open_platform(settings, worker=settings.worker == "embedded") as platform, grpc_beside(platform):
        yield platform
