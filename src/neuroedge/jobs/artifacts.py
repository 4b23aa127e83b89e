"""The jobs behind artifacts: generate a version, delete the objects of one that is gone."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.artifact_generation import GENERATE_TASK, ArtifactGeneration
from neuroedge.services.artifacts import DELETE_TASK, Artifacts


def register(app: procrastinate.App, *, generation: ArtifactGeneration, artifacts: Artifacts, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=DELETE_TASK, retry=ResumeOrRetry())
    async def delete_artifact_blobs(artifact_id: str, org_id: str) -> None:
        await artifacts.delete_blobs(UUID(org_id), UUID(artifact_id))

    @app.task(name=GENERATE_TASK, retry=ResumeOrRetry())
    async def generate_artifact(
        artifact_id: str,
        org_id: str,
        user_id: str,
        username: str,
        role: Role,
        models: list[str] | None,
        request_id: str,
    ) -> None:
        principal = Principal(
            user_id=UUID(user_id),
            org_id=UUID(org_id),
            username=username,
            role=role,
            permissions=ROLE_PERMISSIONS[role],
            models=None if models is None else tuple(models),
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id, artifact_id=artifact_id):
            outcome = "error"
            try:
                with call_scope(priority="low"):  # whoever waits for an answer goes first
                    await generation.run(principal, UUID(artifact_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(GENERATE_TASK, outcome).inc()

    _: Any = (delete_artifact_blobs, generate_artifact)
