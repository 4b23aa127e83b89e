"""The jobs behind documents: process one, delete the objects of one."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.document_process import DocumentProcess
from neuroedge.services.documents import DELETE_TASK, PROCESS_TASK, Documents


def register(app: procrastinate.App, *, process: DocumentProcess, documents: Documents, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=DELETE_TASK, retry=ResumeOrRetry())
    async def delete_document_blobs(document_id: str, org_id: str) -> None:
        await documents.delete_blobs(UUID(org_id), UUID(document_id))

    @app.task(name=PROCESS_TASK, retry=ResumeOrRetry())
    async def process_document(
        document_id: str, version: int, org_id: str, user_id: str, username: str, role: Role, request_id: str
    ) -> None:
        principal = Principal(
            user_id=UUID(user_id),
            org_id=UUID(org_id),
            username=username,
            role=role,
            permissions=ROLE_PERMISSIONS[role],
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id, document_id=document_id):
            outcome = "error"
            try:
                with call_scope(priority="low"):  # whoever waits for an answer goes first
                    await process.run(principal, UUID(document_id), version=version, request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(PROCESS_TASK, outcome).inc()

    _: Any = (delete_document_blobs, process_document)
