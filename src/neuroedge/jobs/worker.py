"""A worker: runs queued jobs, and takes over those of workers that died."""

import asyncio

import structlog

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.infra.queue import JOB_QUEUE, JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.recordings import Recordings
from neuroedge.settings import Settings

log = structlog.get_logger(__name__)
_GRACE_S = 3.0
"""Seconds a stopping worker lets a job finish; after that the job is given back and resumed by the next worker."""


async def work(queue: JobQueue, *, recordings: Recordings, settings: Settings, metrics: Metrics, signals: bool) -> None:
    """Run jobs until cancelled, or until SIGTERM or SIGINT when `signals`; first, sweep what a crash left."""
    sweeping = asyncio.create_task(_sweep(recordings))
    takeover = asyncio.create_task(_take_over(queue, settings=settings, metrics=metrics))
    try:
        await queue.app.run_worker_async(
            queues=[JOB_QUEUE],
            concurrency=settings.worker_concurrency,
            install_signal_handlers=signals,
            shutdown_graceful_timeout=_GRACE_S,
            delete_jobs="successful",
            update_heartbeat_interval=settings.job_heartbeat_s,
            stalled_worker_timeout=settings.job_stalled_s,
        )
    finally:
        takeover.cancel()
        sweeping.cancel()


async def _sweep(recordings: Recordings) -> None:
    try:
        swept = await recordings.sweep()
    except NeuroEdgeError as error:
        log.warning("sweep_failed", detail=error.detail)
        return
    if swept:
        log.info("orphans_swept", folders=swept)


async def _take_over(queue: JobQueue, *, settings: Settings, metrics: Metrics) -> None:
    while True:
        try:
            resumed = await queue.retry_stalled(stalled_s=settings.job_stalled_s)
        except Exception as error:  # the database may be away for a while; the loop must outlive that
            log.warning("takeover_failed", error=str(error))
            resumed = 0
        if resumed:
            metrics.jobs_resumed.inc(resumed)
            log.info("jobs_resumed", count=resumed)
        await asyncio.sleep(settings.job_heartbeat_s)
