"""Bulk jobs, from their parts."""

from neuroedge.bootstrap.core import Core
from neuroedge.http.platform import Platform
from neuroedge.jobs import batches as batch_jobs
from neuroedge.services.batch_progress import BatchProgress
from neuroedge.services.batch_run import BatchRuns
from neuroedge.services.batches import Batches


def batches_of(core: Core) -> tuple[Batches, BatchProgress]:
    """Bulk jobs, and how far they are."""
    progress = BatchProgress(db=core.db, events=core.events)
    batches = Batches(
        db=core.db,
        runner=core.runner,
        queue=core.queue,
        progress=progress,
        clock=core.clock,
        keep_days=core.settings.task_keep_days,
        max_waiting=core.settings.batch_item_limit,
    )
    return batches, progress


def register_batches(platform: Platform) -> None:
    """Let the platform's queue know how to run them."""
    runs = BatchRuns(
        db=platform.db,
        runner=platform.runner,
        queue=platform.queue,
        progress=platform.batch_progress,
        retry_wait_s=platform.settings.task_retry_s,
    )
    batch_jobs.register(platform.queue.app, runs=runs, metrics=platform.metrics)
