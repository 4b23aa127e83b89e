"""A worker: runs queued jobs, takes over those of workers that died, and outlives a database that is away."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from neuroedge.infra.queue import JOB_QUEUE, TASK_QUEUE, JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.settings import Settings

log = structlog.get_logger(__name__)
Sweep = Callable[[], Awaitable[int | None]]
_GRACE_S = 3.0
"""Seconds a stopping worker lets a job finish; after that the job is given back and resumed by the next worker."""
_AGAIN_S = 1.0
"""Pause before a worker that lost the database starts again."""
_POLL_S = 1.0
"""Most a due job, or a cancelled one, waits when the database's notification was missed."""
_SWEEP_EVERY_S = 3600.0
_CUT_OFF_KEPT_H = 24


async def work(
    queue: JobQueue,
    *,
    sweeps: Mapping[str, Sweep],
    settings: Settings,
    metrics: Metrics,
) -> None:
    """Run jobs of both queues until cancelled; sweep now and then.

    `sweeps` by the name of their log line: each tells how much it removed.
    """

    async def cut_off() -> None:
        await queue.forget_cut_off(queue=TASK_QUEUE, kept_h=_CUT_OFF_KEPT_H)

    running = [
        asyncio.create_task(_serve(queue, JOB_QUEUE, concurrency=settings.worker_concurrency, settings=settings)),
        asyncio.create_task(_serve(queue, TASK_QUEUE, concurrency=settings.task_concurrency, settings=settings)),
        asyncio.create_task(_take_over(queue, settings=settings, metrics=metrics)),
        asyncio.create_task(_sweep_now_and_then({**sweeps, "cut_off_jobs_swept": cut_off})),
    ]
    try:
        await asyncio.Event().wait()
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _serve(queue: JobQueue, name: str, *, concurrency: int, settings: Settings) -> None:
    """Run the jobs of one queue for ever. A worker ends when the database goes away; then there is a new one."""
    while True:
        try:
            await queue.app.run_worker_async(
                queues=[name],
                name=name,
                concurrency=concurrency,
                install_signal_handlers=False,
                shutdown_graceful_timeout=_GRACE_S,
                delete_jobs="successful",
                fetch_job_polling_interval=_POLL_S,
                abort_job_polling_interval=_POLL_S,
                update_heartbeat_interval=settings.job_heartbeat_s,
                stalled_worker_timeout=settings.job_stalled_s,
            )
        except Exception as error:  # whatever it is: without a worker nothing of this queue would ever run again
            log.warning("worker_stopped", queue=name, error=str(error))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return  # it was told to end, and could not say goodbye to the database
        await asyncio.sleep(_AGAIN_S)


async def _sweep_now_and_then(sweeps: Mapping[str, Sweep]) -> None:
    while True:
        for event, sweep in sweeps.items():
            await _swept(event, sweep)
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _swept(event: str, sweep: Sweep) -> None:
    try:
        count = await sweep()
    except Exception as error:  # the database may be away for a while; the next sweep makes up for this one
        log.warning("sweep_failed", what=event, error=str(error))
        return
    if count:
        log.info(event, count=count)


async def _take_over(queue: JobQueue, *, settings: Settings, metrics: Metrics) -> None:
    while True:
        try:
            resumed = await queue.retry_stalled(stalled_s=settings.job_stalled_s)
        except Exception as error:  # the database may be away for a while; the loop must outlive that
            log.warning("takeover_failed", error=str(error))
            # Heartbeats failed as well: running jobs would look like those of a dead worker until they are renewed.
            await asyncio.sleep(settings.job_stalled_s)
            continue
        if resumed:
            metrics.jobs_resumed.inc(resumed)
            log.info("jobs_resumed", count=resumed)
        await asyncio.sleep(settings.job_heartbeat_s)
