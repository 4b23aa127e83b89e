"""The job that builds the index of all memories."""

from typing import Any
from uuid import UUID

import procrastinate

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.index import BUILD_TASK, MemoryIndex
from neuroedge.stores.indexes import Kind


def register(app: procrastinate.App, *, index: MemoryIndex, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=BUILD_TASK, retry=ResumeOrRetry())
    async def build_memory_index(kind: Kind, build_id: str) -> None:
        outcome = "error"
        try:
            await index.build(kind, build_id=UUID(build_id))
            outcome = "ok"
        finally:
            metrics.jobs.labels(BUILD_TASK, outcome).inc()

    _: Any = build_memory_index
