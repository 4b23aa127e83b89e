"""Versions of artifacts: kept and never changed, read, compared, made the present one again.

A version's content lies in its row, or in blob storage when it is large; either way sealed. The present version is a
memory of the type `artifact`, seen by who sees the artifact, so that it is found by what it says.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, Forbidden, NeuroEdgeError, NotFound
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.kit.artifact_checks import Check, Type, check, is_valid
from neuroedge.kit.artifact_diff import MAX_CHANGES, Change, structural, unified
from neuroedge.services.artifact_progress import ArtifactProgress, outcome, require
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.memory import Embedded, MemoryService, audit, manages
from neuroedge.services.memory_drafts import MAX_CONTENT
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import artifacts, memories
from neuroedge.stores.artifacts import Artifact, Named, New, Origin, Version, Written
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

MEMORY: Final = "artifact"
"""Type of the memories that artifacts are found by."""
IN_ROW_BYTES: Final = 64 * 1024
MAX_VERSIONS: Final = 1000
_EMBEDDED: Final = 8000
"""Characters whose meaning is looked at; encoders read less."""
Also = Callable[[Connection, Artifact], Awaitable[None]]
"""What else changes in the transaction of a new version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """An artifact with a version of it; None while there is none."""

    artifact: Artifact
    version: Version | None
    content: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed from one version to another."""

    before: int
    after: int
    unified: str
    changes: list[Change] | None
    """Of JSON and tables that can be read; None otherwise."""
    truncated: bool
    """Whether there are more changes than are told."""


class ArtifactVersions:
    """Versions of artifacts the caller may see."""

    def __init__(
        self, *, db: Database, runner: EngineRunner, memory: MemoryService, progress: ArtifactProgress
    ) -> None:
        self._db = db
        self._runner = runner
        self._memory = memory
        self._progress = progress

    async def get(self, principal: Principal, artifact_id: UUID, number: int | None = None) -> Detail:
        """An artifact with its present version or another one. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            artifact = await require(conn, artifact_id)
            version = await artifacts.version(conn, artifact_id, artifact.version if number is None else number)
        if version is None and number is not None:
            raise NotFound(f"the artifact has no version {number}", hint=f"GET /v1/artifacts/{artifact_id}/versions")
        content = None if version is None else await self._content(principal, version)
        return Detail(artifact=artifact, version=version, content=content)

    async def page(
        self, principal: Principal, artifact_id: UUID, *, limit: int, before: int | None = None
    ) -> list[Version]:
        """Newest first. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, artifact_id)
            return await artifacts.versions(conn, artifact_id, limit=limit, before=before)

    async def diff(
        self, principal: Principal, artifact_id: UUID, *, before: int | None, after: int | None
    ) -> Difference:
        """From one version to another; from the one before to the present one by default. Raises NotFound."""
        new = await self.get(principal, artifact_id, after)
        if new.version is None:
            raise NotFound("the artifact has no version yet", hint="wait until its state is ready")
        number = new.version.version
        old = await self.get(principal, artifact_id, max(1, number - 1) if before is None else before)
        return await asyncio.to_thread(_difference, old, new)

    async def restore(
        self, principal: Principal, artifact_id: UUID, number: int, *, expected: int | None, request_id: str
    ) -> Detail:
        """Make an older version the present one, as a new version. Raises NotFound, Forbidden, Conflict."""
        detail = await self.get(principal, artifact_id, number)
        check_change(detail.artifact, principal, expected=expected)
        version, content = detail.version, detail.content
        assert version is not None
        assert content is not None
        written = Written(
            content=content,
            sha256=version.sha256,
            checks=version.checks,
            method=version.method,
            models=version.models,
            note=f"version {number}",
        )
        return await self.keep(
            principal,
            detail.artifact,
            written,
            origin="restored",
            expected=detail.artifact.version if expected is None else expected,
            request_id=request_id,
        )

    async def keep(
        self,
        principal: Principal,
        artifact: Artifact | New,
        written: Written,
        *,
        origin: Origin,
        expected: int,
        request_id: str,
        of_job: bool = False,
        also: Also | None = None,
    ) -> Detail:
        """Store a version as the present one; a New artifact with it.

        Raises Conflict unless `expected` is the present version's number when it is stored, and while another one is
        generated, but by its own job.
        """
        version_id = new_id()
        embedded = await self._embed(principal, artifact, written, request_id=request_id)
        data = written.content.encode()
        blob = f"{version_folder(artifact.id, version_id)}/content" if len(data) > IN_ROW_BYTES else None
        kept: Detail | None = None
        try:
            if blob is not None:
                await self._runner.contexts.blobs(principal).put(blob, data)
            async with self._db.tenant(principal) as conn:
                if isinstance(artifact, New):
                    await artifacts.insert(conn, org_id=principal.org_id, new=artifact)
                current = await require(conn, artifact.id, lock=True)
                _check_place(current, expected=expected, of_job=of_job)
                if also is not None:
                    await also(conn, current)
                await artifacts.add_version(
                    conn,
                    org_id=principal.org_id,
                    artifact=artifact.id,
                    version_id=version_id,
                    author_id=principal.user_id,
                    origin=origin,
                    written=written,
                    valid=is_valid(written.checks),
                    blob=blob,
                )
                kept = await self._present(conn, principal, artifact.id, written, embedded, request_id=request_id)
        except BaseException:
            if blob is not None:
                await asyncio.shield(self._forget(principal, artifact.id, version_id, uncertain=kept is not None))
            raise
        await self._progress.publish(principal, artifact.id, "ready", outcome(kept.artifact))
        return kept

    async def _present(
        self,
        conn: Connection,
        principal: Principal,
        artifact_id: UUID,
        written: Written,
        embedded: Embedded,
        *,
        request_id: str,
    ) -> Detail:
        """The artifact with the version just added, which is found from now on, and stands in the audit log."""
        after = await require(conn, artifact_id)
        memory_id = await self._remember(conn, principal, after, written, embedded)
        action = "artifact.created" if after.version == 1 else "artifact.changed"
        await audit(conn, principal, request_id, action, f"artifact:{artifact_id}", {"version": after.version})
        return Detail(
            artifact=replace(after, memory_id=memory_id),
            version=await artifacts.version(conn, artifact_id, after.version),
            content=written.content,
        )

    async def _embed(
        self, principal: Principal, artifact: Artifact | New, written: Written, *, request_id: str
    ) -> Embedded:
        """The meaning of a version."""
        searched = f"{artifact.named.title}\n{written.content}"[:_EMBEDDED]
        (embedded,) = await self._memory.embed([searched], principal=principal, request_id=request_id)
        return embedded

    async def _forget(self, principal: Principal, artifact_id: UUID, version_id: UUID, *, uncertain: bool) -> None:
        """Delete the object of a version that was not stored; `uncertain`: it failed in the COMMIT, or after it."""
        if not (uncertain and await self._may_be_kept(principal, artifact_id, version_id)):
            await forget_blobs(self._runner.contexts.blobs(principal), version_folder(artifact_id, version_id))

    async def _may_be_kept(self, principal: Principal, artifact_id: UUID, version_id: UUID) -> bool:
        """Whether a version is there, or that cannot be told.

        An artifact's row cannot be locked before a COMMIT under way is over. One that is not there may be a new one
        whose COMMIT goes on: its objects are the sweep's, if it stays away.
        """
        try:
            async with self._db.tenant(principal) as conn:
                if await artifacts.find(conn, artifact_id, lock=True) is None:
                    return True
                return await artifacts.has_version(conn, artifact_id, version_id)
        except NeuroEdgeError as error:
            log.warning("version_object_left", artifact_id=str(artifact_id), detail=error.detail)
            return True

    async def _remember(
        self, conn: Connection, principal: Principal, artifact: Artifact, written: Written, embedded: Embedded
    ) -> UUID:
        """Let the present version be found, and no other one; by which memory."""
        item = NewMemory(
            content=written.content[:MAX_CONTENT] or artifact.named.title,
            title=artifact.named.title,
            tags=list(artifact.named.tags),
            keywords=embedded.keywords,
            memory_type=MEMORY,
            metadata={"artifact_id": str(artifact.id), "artifact_type": artifact.type, "version": artifact.version},
            visibility=artifact.visibility,
            embedding=embedded.vector,
            embedding_model=embedded.model,
        )
        org_id = principal.org_id
        if artifact.memory_id is not None and await memories.replace_content(
            conn, org_id=org_id, memory_id=artifact.memory_id, item=item
        ):
            return artifact.memory_id
        # Its owner's, whoever changed it: who sees the artifact sees the memory.
        (memory_id,) = await memories.insert(conn, org_id=org_id, user_id=artifact.user_id, items=[item])
        await artifacts.set_memory(conn, artifact.id, memory_id)
        return memory_id

    async def _content(self, principal: Principal, version: Version) -> str:
        if version.blob is None:
            assert version.content is not None
            return version.content
        return (await self._runner.contexts.blobs(principal).get(version.blob)).decode()


def check_change(artifact: Artifact, principal: Principal, *, expected: int | None) -> None:
    """Raise Forbidden for who may not change it, Conflict for another version than expected, and while one is made."""
    if artifact.user_id != principal.user_id and not manages(principal):
        raise Forbidden(
            "this artifact is another member's", hint="ask its owner, or an owner or admin of the organisation"
        )
    _check_place(artifact, expected=artifact.version if expected is None else expected, of_job=False)


def _check_place(artifact: Artifact, *, expected: int, of_job: bool) -> None:
    # That of a new artifact is "failed" until its first version is there, in the same transaction.
    if (artifact.state == "generating") is not of_job:
        raise Conflict(
            "a version of this artifact is being generated", hint=f"follow /v1/artifacts/{artifact.id}/events"
        )
    if artifact.version != expected:
        raise Conflict(
            f"the artifact is at version {artifact.version}, not {expected}", hint="read it again, then change it"
        )
    if artifact.version >= MAX_VERSIONS:
        raise Conflict(f"an artifact has at most {MAX_VERSIONS} versions", hint="store it as a new artifact")


def _difference(old: Detail, new: Detail) -> Difference:
    """Of two versions of one artifact (blocking)."""
    assert old.version is not None
    assert new.version is not None
    before, after = old.content or "", new.content or ""
    names = (f"version {old.version.version}", f"version {new.version.version}")
    changes: list[Change] | None = None
    named, kind = new.artifact.named, new.artifact.type
    if kind == "table":
        changes = structural(before, after, table=(named.format, named.format))
    elif kind in ("json", "slides"):
        changes = structural(before, after)
    return Difference(
        before=old.version.version,
        after=new.version.version,
        unified=unified(before, after, names=names),
        changes=None if changes is None else changes[:MAX_CHANGES],
        truncated=changes is not None and len(changes) > MAX_CHANGES,
    )


def folder_of(artifact_id: UUID) -> str:
    """Where an artifact's objects lie."""
    return f"artifacts/{artifact_id}"


def version_folder(artifact_id: UUID, version_id: UUID) -> str:
    """Where a large version lies."""
    return f"{folder_of(artifact_id)}/{version_id}"


async def checked(content: str, type_: Type, named: Named, *, note: str | None) -> Written:
    """Content opened as its type and looked at."""
    # In a thread: parsing may take seconds.
    checks = await asyncio.to_thread(
        check, type_, content, format_=named.format, schema=named.schema, slides=named.slides
    )
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return Written(content=content, sha256=sha256, checks=checks, note=note)


def generated(answer: Any, *, note: str | None) -> Written:
    """What the engine wrote, as it is stored."""
    return Written(
        content=answer.artifact,
        sha256=answer.sha256,
        checks=[Check(one.name, one.ok, one.detail) for one in answer.checks],
        method=answer.method,
        models=answer.models,
        note=note,
    )
