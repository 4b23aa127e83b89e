"""A worker: runs queued jobs, takes over those of workers that died, and outlives a database that is away."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog

from neuroedge.infra.queue import JOB_QUEUE, TASK_QUEUE, JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.documents import Documents
from neuroedge.services.recordings import Recordings
from neuroedge.services.tasks import Tasks
from neuroedge.settings import Settings

log = structlog.get_logger(__name__)
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
    recordings: Recordings,
    documents: Documents,
    tasks: Tasks,
    settings: Settings,
    task_concurrency: int,
    metrics: Metrics,
    signals: bool,
) -> None:
    """Run jobs of both queues until cancelled, or until SIGTERM or SIGINT when `signals`; sweep now and then."""
    running = [
        asyncio.create_task(_serve(queue, JOB_QUEUE, concurrency=settings.worker_concurrency, settings=settings)),
        asyncio.create_task(_serve(queue, TASK_QUEUE, concurrency=task_concurrency, settings=settings)),
        asyncio.create_task(_take_over(queue, settings=settings, metrics=metrics)),
        asyncio.create_task(_swept("orphans_swept", recordings.sweep)),
        asyncio.create_task(_swept("document_orphans_swept", documents.sweep)),
        asyncio.create_task(_sweep_tasks(queue, tasks)),
    ]
    try:
        await (_signal_to_stop() if signals else asyncio.Event().wait())
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _signal_to_stop() -> None:
    """Return on the first SIGTERM or SIGINT; the second one then ends the process at once, as is usual."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


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
        await asyncio.sleep(_AGAIN_S)


async def _sweep_tasks(queue: JobQueue, tasks: Tasks) -> None:
    while True:
        await _swept("tasks_swept", tasks.sweep)
        await _swept("cut_off_jobs_swept", lambda: queue.forget_cut_off(queue=TASK_QUEUE, kept_h=_CUT_OFF_KEPT_H))
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _swept(event: str, sweep: Callable[[], Awaitable[int | None]]) -> None:
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
