"""Progress of an artifact: published while it is generated, followed by whoever may read it."""

import time
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import artifacts
from neuroedge.stores.artifacts import Artifact
from neuroedge.stores.postgres import Connection, Database

END: Final = ("ready", "failed", "deleted")
_TOLD_EVERY_S: Final = 0.5


class ArtifactProgress:
    """Publishes to and follows one artifact's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=END)

    async def publish(self, principal: Principal, artifact_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(principal.org_id, _topic(artifact_id), name, data)

    async def begin(self, principal: Principal, artifact_id: UUID) -> None:
        """Tell that a version is to be generated; what was told of those before is dropped."""
        await self._events.forget(principal.org_id, _topic(artifact_id))
        await self.publish(principal, artifact_id, "generating", {})

    async def forget(self, principal: Principal, artifact_id: UUID) -> None:
        """Drop a deleted artifact's events, after telling those who listen."""
        await self.publish(principal, artifact_id, "deleted", {})
        await self._events.forget(principal.org_id, _topic(artifact_id))

    def port(self, principal: Principal, artifact_id: UUID) -> "Told":
        """The Progress port of a generation."""
        return Told(self, principal, artifact_id)

    async def follow(
        self, principal: Principal, artifact_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, artifact_id)
        return self._following.follow(
            principal, _topic(artifact_id), after=after or "0", look=lambda: self._from_row(principal, artifact_id)
        )

    async def _from_row(self, principal: Principal, artifact_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            artifact = await artifacts.find(conn, artifact_id)
        if artifact is None:
            return ProgressEvent(id=None, name="deleted", data={})
        if artifact.state == "generating":
            return PING
        return ProgressEvent(id=None, name="failed" if failure(artifact) else "ready", data=outcome(artifact))


class Told:
    """A Progress port: a new stage is told at once, how far it is twice a second."""

    def __init__(self, progress: ArtifactProgress, principal: Principal, artifact_id: UUID) -> None:
        self._progress = progress
        self._principal = principal
        self._artifact_id = artifact_id
        self._stage = ""
        self._at = float("-inf")

    async def __call__(self, stage: str, fraction: float, **data: Any) -> None:
        """Tell how far the engine is; never a word of what it writes."""
        now = time.monotonic()
        if stage == self._stage and now - self._at < _TOLD_EVERY_S:
            return
        self._stage, self._at = stage, now
        told = {"stage": stage, "fraction": round(fraction, 3), "characters": data.get("characters", 0)}
        await self._progress.publish(self._principal, self._artifact_id, "progress", told)


def outcome(artifact: Artifact) -> dict[str, Any]:
    """How a generation ended, as an event carries it."""
    return failure(artifact) or {"version": artifact.version}


def failure(artifact: Artifact) -> dict[str, Any]:
    """Why the last generation failed; empty when it did not."""
    if artifact.error_code is None:
        return {}
    return {"code": artifact.error_code, "detail": artifact.error_detail, "hint": artifact.error_hint}


async def require(conn: Connection, artifact_id: UUID, *, lock: bool = False) -> Artifact:
    """The artifact, if the caller may see it. Raises NotFound."""
    artifact = await artifacts.find(conn, artifact_id, lock=lock)
    if artifact is None:
        # The same for an id that never existed, another tenant's, and one hidden from the caller.
        raise NotFound(f"no artifact {artifact_id}", hint="GET /v1/artifacts lists yours")
    return artifact


def _topic(artifact_id: UUID) -> str:
    return f"artifact:{artifact_id}"
