"""How a job runs that is ordered once for a whole organisation: behind whoever waits, and given up in the end."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import structlog
from procrastinate.job_context import JobContext

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics

log = structlog.get_logger(__name__)
MAX_ATTEMPTS: Final = 20
"""Cut off or failed so often, it is given up; what was done stays, and a new order goes on from there."""


def orderer(*, org_id: str, user_id: str, role: Role) -> Principal:
    """Who ordered it, with the rights of a role: what was ordered goes on when its member has left."""
    return Principal(
        user_id=UUID(user_id), org_id=UUID(org_id), username="", role=role, permissions=ROLE_PERMISSIONS[role]
    )


async def run_or_give_up(
    work: Callable[[], Awaitable[None]],
    give_up: Callable[[], Awaitable[None]],
    *,
    context: JobContext,
    name: str,
    metrics: Metrics,
) -> None:
    """Do the work at low priority, or `give_up` on it after too many attempts; `metrics` counts how it ended.

    Raises what the work raises.
    """
    if context.job.attempts >= MAX_ATTEMPTS:
        metrics.jobs.labels(name, "dead").inc()
        log.error("job_given_up", job=name, attempts=context.job.attempts)
        await give_up()
        return
    outcome = "error"
    try:
        with call_scope(priority="low"):  # whoever waits for an answer goes first
            await work()
        outcome = "ok"
    finally:
        metrics.jobs.labels(name, outcome).inc()
