"""Artifacts: stored or generated, read, changed, found, deleted. Who may see one is held by row level security, as of
memories: its owner (private), the owner's division, or the organisation. Changing and deleting is for its owner and
for who manages the organisation.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.errors import Forbidden, InvalidInput, NotFound
from neuroedge.contract.ports import Progress
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.kit.artifact_checks import Type, format_of
from neuroedge.kit.artifact_prompts import title_of
from neuroedge.kit.artifact_schema import require_schema
from neuroedge.services.artifact_drafts import ArtifactChanges, ArtifactDraft, Order, require_size
from neuroedge.services.artifact_generation import ENGINE, GENERATE_TASK, ArtifactGeneration
from neuroedge.services.artifact_progress import ArtifactProgress, require
from neuroedge.services.artifact_versions import (
    MEMORY,
    Also,
    ArtifactVersions,
    Detail,
    check_change,
    checked,
    folder_of,
)
from neuroedge.services.housekeeping import forget_blobs, service_principal
from neuroedge.services.memory import audit
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.run_engine import EngineRunner, no_progress
from neuroedge.stores import artifacts, memories, memory_lists
from neuroedge.stores.artifacts import Artifact, Named, New, Origin, State, Written
from neuroedge.stores.ids import new_id
from neuroedge.stores.memories import item_of
from neuroedge.stores.postgres import Connection, Database

DELETE_TASK: Final = "delete_artifact_blobs"
_EXCERPT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An artifact a search found."""

    artifact: Artifact
    score: float
    excerpt: str
    """Where the words of the query stand in it."""


class Artifacts:
    """Artifacts of the caller's organisation, those the caller may see."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: ArtifactProgress,
        versions: ArtifactVersions,
        generation: ArtifactGeneration,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._versions = versions
        self._generation = generation

    async def create(
        self, principal: Principal, draft: ArtifactDraft, *, request_id: str, progress: Progress = no_progress
    ) -> Detail:
        """Store what was given, or generate it: at once, or in a job, and then it has no version yet.

        Raises InvalidInput, NotFound for a conversation or memory the caller does not see, TooLarge, what generating
        raises. Content that fails its checks is stored as invalid, and says so.
        """
        await _require_schema(draft.json_schema)
        named = Named(
            title=draft.title or "",
            tags=list(dict.fromkeys(draft.tags)),
            format=draft.format or "",
            schema=draft.json_schema,
            slides=draft.slides,
        )
        new = New(
            id=new_id(),
            user_id=principal.user_id,
            visibility=draft.visibility,
            type=draft.type,
            named=named,
            session_id=draft.session_id,
            message_id=draft.message_id,
        )
        async with self._db.tenant(principal) as conn:
            await _require_chat(conn, new)
            if new.visibility == "division":  # before anything is written
                await memories.division_of(conn, principal.org_id, principal.user_id)
        if draft.background and draft.instruction is not None:
            return await self._begin_new(principal, new, draft, request_id)
        if draft.content is not None:
            require_size(draft.content)
            written = await checked(draft.content, new.type, named, note=draft.note)
            origin: Origin = "given"
            title = title_of(new.type, draft.content, "")
        else:
            written, title = await self._written(principal, draft, new.type, named, None, request_id, progress)
            origin = "generated"
        new = replace(new, named=replace(named, title=named.title or title))
        return await self._versions.keep(principal, new, written, origin=origin, expected=0, request_id=request_id)

    async def make(
        self,
        principal: Principal,
        *,
        type_: Type,
        format_: str | None,
        instruction: str,
        sources: Sequence[str],
        order: Order,
        request_id: str,
        session_id: UUID | None = None,
    ) -> Detail:
        """Generate a private artifact out of a conversation, from these texts, which the safety policy let through
        already, as it did the instruction. Raises what generating raises."""
        named = Named(title="", tags=[], format=format_of(type_, format_), schema=None, slides=None)
        request = {**order.request(), "instruction": instruction}
        written, title = await self._generation.write(
            principal,
            request,
            type_=type_,
            named=named,
            present=None,
            request_id=request_id,
            progress=no_progress,
            sources=sources,
            judged=True,
        )
        new = New(
            id=new_id(),
            user_id=principal.user_id,
            visibility="private",
            type=type_,
            named=replace(named, title=title),
            session_id=session_id,
        )
        return await self._versions.keep(principal, new, written, origin="generated", expected=0, request_id=request_id)

    async def page(
        self,
        principal: Principal,
        *,
        limit: int,
        before: UUID | None = None,
        type_: Type | None = None,
        state: State | None = None,
        session_id: UUID | None = None,
    ) -> list[Artifact]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await artifacts.recent(
                conn, limit=limit, before=before, type_=type_, state=state, session_id=session_id
            )

    async def change(
        self,
        principal: Principal,
        artifact_id: UUID,
        changes: ArtifactChanges,
        *,
        expected: int | None,
        request_id: str,
        progress: Progress = no_progress,
    ) -> Detail:
        """Rename, share, or give it a new version: given, by instruction, or by a job that is to come.

        Raises NotFound, Forbidden, Conflict for another version than expected and while one is generated.
        """
        detail = await self._versions.get(principal, artifact_id)
        artifact = detail.artifact
        check_change(artifact, principal, expected=expected)
        if changes.visibility in ("private", "division") and artifact.user_id != principal.user_id:
            raise Forbidden("only its owner can hide an artifact from others", hint="delete it, or ask its owner")
        also = _renaming(principal, changes)
        place = artifact.version if expected is None else expected
        if changes.instruction is not None and changes.background:
            return await self._begin_change(principal, artifact, changes, also, place, request_id)
        if changes.content is None and changes.instruction is None:
            return await self._rename(principal, artifact, also, place, request_id)
        artifact = replace(artifact, named=_renamed(artifact.named, changes))
        origin: Origin = "given"
        if changes.content is not None:
            require_size(changes.content)
            written = await checked(changes.content, artifact.type, artifact.named, note=changes.note)
        else:
            written, _ = await self._written(
                principal, changes, artifact.type, artifact.named, detail.content, request_id, progress
            )
            origin = "generated"
        return await self._versions.keep(
            principal,
            artifact,
            written,
            origin=origin,
            expected=place,
            request_id=request_id,
            also=also,
        )

    async def delete(self, principal: Principal, artifact_id: UUID, *, request_id: str) -> None:
        """Delete an artifact with its versions and what it is found by. Raises NotFound, Forbidden."""
        async with self._db.tenant(principal) as conn:
            artifact = await require(conn, artifact_id, lock=True)
            if artifact.state != "generating":
                check_change(artifact, principal, expected=None)
            elif artifact.user_id != principal.user_id:
                raise Forbidden("it is being generated for another member", hint="wait until that is done")
            if artifact.memory_id is not None:
                await memories.delete(conn, org_id=principal.org_id, ids=[artifact.memory_id])
            await artifacts.delete(conn, artifact_id)
            await audit(conn, principal, request_id, "artifact.deleted", f"artifact:{artifact_id}")
            # Deleted here at once, and by the job for certain: it outlives a crash or a blob store that is away.
            await self._queue.defer(
                conn,
                DELETE_TASK,
                lock=f"artifact:{artifact_id}",
                args={"artifact_id": str(artifact_id), "org_id": str(principal.org_id)},
            )
        await forget_blobs(self._runner.contexts.blobs(principal), folder_of(artifact_id))
        await self._progress.forget(principal, artifact_id)

    async def delete_blobs(self, org_id: UUID, artifact_id: UUID) -> None:
        """Delete an artifact's objects; none is fine. Raises Unavailable when the blob store is away."""
        await self._runner.contexts.blobs(service_principal(org_id)).delete_prefix(folder_of(artifact_id))

    async def search(self, principal: Principal, query: str, *, limit: int, request_id: str) -> list[Found]:
        """What their present versions say, by meaning and by words, the best first."""
        answer: Any = await self._runner.run(
            "search",
            {"query": query, "top_k": limit, "memory_type": MEMORY},
            principal=principal,
            request_id=request_id,
        )
        async with self._db.tenant(principal) as conn:
            found = await artifacts.of_memories(conn, [hit.id for hit in answer.hits])
        return [
            Found(artifact=found[hit.id], score=hit.score, excerpt=_excerpt(hit))
            for hit in answer.hits
            if hit.id in found
        ]

    async def sweep(self) -> int:
        """Delete objects that a crash left without an artifact, in every organisation; how many folders."""
        return await sweep_orphans(self._db, self._runner.contexts, "artifacts", exist=artifacts.exist)

    async def _written(
        self,
        principal: Principal,
        order: Order,
        type_: Type,
        named: Named,
        present: str | None,
        request_id: str,
        progress: Progress,
    ) -> tuple[Written, str]:
        return await self._generation.write(
            principal,
            order.request(),
            type_=type_,
            named=named,
            present=present,
            request_id=request_id,
            progress=progress,
        )

    async def _begin_new(self, principal: Principal, new: New, draft: ArtifactDraft, request_id: str) -> Detail:
        named = replace(new.named, title=new.named.title or title_of(new.type, "", draft.instruction or ""))
        new = replace(new, named=named, request=draft.request())
        async with self._db.tenant(principal) as conn:
            await artifacts.insert(conn, org_id=principal.org_id, new=new)
            await self._queued(conn, principal, new.id, request_id)
            artifact = await require(conn, new.id)
        await self._progress.begin(principal, new.id)
        return Detail(artifact=artifact, version=None, content=None)

    async def _begin_change(
        self,
        principal: Principal,
        artifact: Artifact,
        changes: ArtifactChanges,
        also: Also,
        expected: int,
        request_id: str,
    ) -> Detail:
        async with self._db.tenant(principal) as conn:
            current = await require(conn, artifact.id, lock=True)
            check_change(current, principal, expected=expected)
            await also(conn, current)
            await artifacts.set_request(conn, artifact.id, changes.request())
            await self._queued(conn, principal, artifact.id, request_id)
        await self._progress.begin(principal, artifact.id)
        return await self._versions.get(principal, artifact.id)

    async def _rename(
        self, principal: Principal, artifact: Artifact, also: Also, expected: int, request_id: str
    ) -> Detail:
        async with self._db.tenant(principal) as conn:
            current = await require(conn, artifact.id, lock=True)
            check_change(current, principal, expected=expected)
            await also(conn, current)
            await audit(conn, principal, request_id, "artifact.changed", f"artifact:{artifact.id}")
        return await self._versions.get(principal, artifact.id)

    async def _queued(self, conn: Connection, principal: Principal, artifact_id: UUID, request_id: str) -> None:
        # What the runner would refuse, the job would only find out later.
        engine = self._runner.registry.get(ENGINE)
        if not principal.may(engine.permission) or not principal.may_run(ENGINE):
            raise Forbidden(f"running {ENGINE} needs the permission {engine.permission}")
        await audit(conn, principal, request_id, "artifact.ordered", f"artifact:{artifact_id}")
        await self._queue.defer(
            conn,
            GENERATE_TASK,
            lock=f"artifact:{artifact_id}",
            args={
                "artifact_id": str(artifact_id),
                "org_id": str(principal.org_id),
                "user_id": str(principal.user_id),
                "username": principal.username,
                "role": principal.role,
                "models": None if principal.models is None else list(principal.models),
                "request_id": request_id,
            },
        )


async def _require_schema(schema: dict[str, Any] | None) -> None:
    """Raise InvalidInput for a schema that is none."""
    if schema is not None:
        try:
            await asyncio.to_thread(require_schema, schema)
        except ValueError as error:
            raise InvalidInput(f"json_schema is no schema: {error}", hint="give a JSON Schema of 2020-12") from error


async def _require_chat(conn: Connection, new: New) -> None:
    if not await artifacts.sees_chat(conn, session_id=new.session_id, message_id=new.message_id):
        raise NotFound("no such conversation, or no such message in it", hint="GET /v1/sessions lists yours")


def _renamed(named: Named, changes: ArtifactChanges) -> Named:
    tags = named.tags if changes.tags is None else list(dict.fromkeys(changes.tags))
    return replace(named, title=changes.title or named.title, tags=tags)


def _renaming(principal: Principal, changes: ArtifactChanges) -> Also:
    """What of the changes makes no version; done in the transaction of what does."""
    anew = changes.content is not None or (changes.instruction is not None and not changes.background)

    async def rename(conn: Connection, artifact: Artifact) -> None:
        org_id, memory_id = principal.org_id, artifact.memory_id
        if changes.title is not None or changes.tags is not None:
            named = _renamed(artifact.named, changes)
            await artifacts.rename(conn, artifact.id, named=named)
            # A new version writes its memory anew by itself, and would wait for the graph with the corpus in hand.
            if memory_id is not None and not anew:
                for found in await memories.find(conn, org_id=org_id, ids=[memory_id]):
                    item = item_of(found, {"title": named.title, "tags": list(named.tags)})
                    await memories.rewrite(conn, org_id=org_id, memory_id=memory_id, item=item)
        if changes.visibility is not None:
            owner, seen = artifact.user_id, changes.visibility
            await artifacts.set_visibility(
                conn, org_id=org_id, artifact_id=artifact.id, owner_id=owner, visibility=seen
            )
            if memory_id is not None:
                await memory_lists.set_visibility(
                    conn, org_id=org_id, memory_id=memory_id, owner_id=owner, visibility=seen
                )

    return rename


def _excerpt(hit: Any) -> str:
    """The passage that holds most of the query's words, else the beginning."""
    start = max(0, hit.highlight.start - 50) if hit.highlight else 0
    return str(hit.content[start : start + _EXCERPT])
