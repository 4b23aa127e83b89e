"""What workers run: the jobs of each service, and their housekeeping."""

import asyncio

from neuroedge.bootstrap.batches import register_batches
from neuroedge.bootstrap.ending import ended
from neuroedge.http.platform import Platform
from neuroedge.infra.clock import SystemClock
from neuroedge.jobs import artifacts as artifact_jobs
from neuroedge.jobs import chats as chat_jobs
from neuroedge.jobs import documents as document_jobs
from neuroedge.jobs import federated as federated_jobs
from neuroedge.jobs import index as index_jobs
from neuroedge.jobs import keys as key_jobs
from neuroedge.jobs import knowledge as knowledge_jobs
from neuroedge.jobs import privacy as privacy_jobs
from neuroedge.jobs import recordings as recording_jobs
from neuroedge.jobs import reembedding as reembedding_jobs
from neuroedge.jobs import tasks as task_jobs
from neuroedge.jobs import voices as voice_jobs
from neuroedge.jobs.worker import work
from neuroedge.services.recording_process import RecordingProcess
from neuroedge.services.task_run import TaskRuns


def register_jobs(platform: Platform) -> None:
    """Let the platform's queue know every job."""
    app, metrics, settings = platform.queue.app, platform.metrics, platform.settings
    recording_jobs.register(
        app,
        process=RecordingProcess(
            db=platform.db, runner=platform.runner, progress=platform.recording_progress, metrics=metrics
        ),
        recordings=platform.recordings,
        metrics=metrics,
    )
    voice_jobs.register(app, naming=platform.voice_naming, metrics=metrics)
    federated_jobs.register(app, rounds=platform.federated_rounds, metrics=metrics)
    document_jobs.register(app, process=platform.document_process, documents=platform.documents, metrics=metrics)
    chat_jobs.register(app, attachments=platform.chat_attachments, search=platform.chat_search, metrics=metrics)
    artifact_jobs.register(app, generation=platform.artifact_generation, artifacts=platform.artifacts, metrics=metrics)
    privacy_jobs.register(app, privacy=platform.privacy, tmp=settings.data_dir / "tmp", metrics=metrics)
    key_jobs.register(app, keys=platform.keys, metrics=metrics)
    index_jobs.register(app, index=platform.memory_index, metrics=metrics)
    reembedding_jobs.register(app, reembedding=platform.reembedding, metrics=metrics)
    knowledge_jobs.register(app, knowledge=platform.knowledge, metrics=metrics)
    runs = TaskRuns(
        db=platform.db,
        runner=platform.runner,
        queue=platform.queue,
        progress=platform.task_progress,
        clock=SystemClock(),
        retry_wait_s=settings.task_retry_s,
    )
    task_jobs.register(app, runs=runs, tasks=platform.tasks, metrics=metrics)
    register_batches(platform)


async def run_worker(platform: Platform) -> None:
    """Run jobs until cancelled."""
    takeovers = asyncio.create_task(platform.chat_takeovers.keep())
    try:
        await _work(platform)
    finally:
        await ended(takeovers)


async def _work(platform: Platform) -> None:
    await work(
        platform.queue,
        sweeps={
            "recording_orphans_swept": platform.recordings.sweep,
            "document_orphans_swept": platform.documents.sweep,
            "chats_swept": platform.chat_sweep.run,
            "artifact_orphans_swept": platform.artifacts.sweep,
            "files_swept": platform.files.sweep,
            "images_swept": platform.images.sweep,
            "safety_decisions_swept": platform.safety_sweep.run,
            "voices_swept": platform.voice_naming.sweep,
            "federations_swept": platform.federations.sweep,
            "exports_swept": platform.privacy.sweep,
            "expired_memories_swept": platform.memories.sweep,
            "tasks_swept": platform.tasks.sweep,
            "batches_swept": platform.batches.sweep,
            "trained_models_swept": platform.trained.sweep,
        },
        settings=platform.settings,
        metrics=platform.metrics,
    )
