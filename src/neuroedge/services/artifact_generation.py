"""Having artifacts written: within a request, or as a durable job that outlives the process it runs in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, NeuroEdgeError, NotFound, TooLarge
from neuroedge.contract.ports import Progress
from neuroedge.contract.principal import Principal
from neuroedge.engines.language.artifact import MAX_CHARACTERS, MAX_EXCERPTS
from neuroedge.kit.artifact_checks import Type
from neuroedge.kit.artifact_prompts import title_of
from neuroedge.services.artifact_progress import ArtifactProgress, failure
from neuroedge.services.artifact_versions import ArtifactVersions, checked, generated
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.safety import Safety
from neuroedge.services.safety_policy import Stage
from neuroedge.stores import artifacts, memories
from neuroedge.stores.artifacts import Artifact, Named, Written
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)

ENGINE: Final = "artifact"
GENERATE_TASK: Final = "generate_artifact"
MAX_STARTS: Final = 5
"""Starts, crashes of the worker included, before a generation is given up."""
MAX_ERRORS: Final = 3


class ArtifactGeneration:
    """Writes what is asked for, and stores what jobs wrote."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        versions: ArtifactVersions,
        progress: ArtifactProgress,
        safety: Safety | None = None,
    ) -> None:
        self._safety = safety
        self._db = db
        self._runner = runner
        self._versions = versions
        self._progress = progress

    async def write(
        self,
        principal: Principal,
        request: Mapping[str, Any],
        *,
        type_: Type,
        named: Named,
        present: str | None,
        request_id: str,
        progress: Progress,
        sources: Sequence[str] = (),
        judged: bool = False,
    ) -> tuple[Written, str]:
        """What the engine makes of a request, and the title it found. `request` as Order.request() gives it; `judged`:
        what goes in passed the organisation's safety policy already.

        Raises what the engine raises, NotFound for a memory the caller does not see, TooLarge, ContentBlocked.
        """
        if present is not None and len(present) > MAX_CHARACTERS:
            raise TooLarge(
                f"more than {MAX_CHARACTERS} characters cannot be changed by instruction", hint="send the new content"
            )
        excerpts = [{"text": text} for text in sources if text.strip()][:MAX_EXCERPTS]
        excerpts += await self._excerpts(principal, request["context_ids"])
        instruction = request["instruction"]
        if not judged:
            instruction = await self._passed(principal, instruction, "input", request_id)
            for excerpt in excerpts:
                excerpt["text"] = await self._passed(principal, excerpt["text"], "context", request_id)
        payload = {
            "type": type_,
            "instruction": instruction,
            "format": named.format,
            "json_schema": named.schema,
            "slides": named.slides,
            "context": excerpts,
            "present": present,
            "title": named.title or None,
            "max_tokens": request["max_tokens"],
            "model": request["model"],
            "local_only": request["local_only"],
        }
        answer: Any = await self._runner.run(
            ENGINE, payload, principal=principal, request_id=request_id, progress=progress
        )
        written = generated(answer, note=request["instruction"][:2000])
        content = await self._passed(principal, written.content, "output", request_id)
        if content == written.content:
            return written, answer.title
        # What was masked is another text: it is opened and looked at again.
        again = await checked(content, type_, named, note=written.note)
        masked = replace(again, method=written.method, models=written.models)
        return masked, named.title or title_of(type_, content, instruction)

    async def _passed(self, principal: Principal, text: str, stage: Stage, request_id: str) -> str:
        """The text as the organisation's safety policy lets it through. Raises ContentBlocked."""
        if self._safety is None or not text.strip():
            return text
        return (await self._safety.check(principal, text, stage=stage, request_id=request_id)).passed()

    async def run(self, principal: Principal, artifact_id: UUID, *, request_id: str) -> None:
        """The job. Raises what a retry can mend; stores as failure what it can't."""
        async with self._db.tenant(principal) as conn:
            artifact = await artifacts.find(conn, artifact_id, lock=True)
            request = await artifacts.request(conn, artifact_id)
            if artifact is None or request is None:
                return
            await artifacts.start_attempt(conn, artifact_id)
        if artifact.attempts >= MAX_STARTS:
            await self._fail(principal, artifact, NeuroEdgeError("generating it was interrupted too often"))
            return
        try:
            await self._generate(principal, artifact, request, request_id)
        except NeuroEdgeError as error:
            if not error.retryable or await self._was_last(principal, artifact_id):
                await self._fail(principal, artifact, error)
                return
            raise
        except Exception:
            if await self._was_last(principal, artifact_id):
                log.exception("artifact_failed", artifact_id=str(artifact_id))
                await self._fail(principal, artifact, NeuroEdgeError(f"generating failed (request {request_id})"))
                return
            raise

    async def _generate(
        self, principal: Principal, artifact: Artifact, request: Mapping[str, Any], request_id: str
    ) -> None:
        present = None
        if artifact.version:
            present = (await self._versions.get(principal, artifact.id, artifact.version)).content
        written, _ = await self.write(
            principal,
            request,
            type_=artifact.type,
            named=artifact.named,
            present=present,
            request_id=request_id,
            progress=self._progress.port(principal, artifact.id),
        )
        try:
            await self._versions.keep(
                principal,
                artifact,
                written,
                origin="generated",
                expected=artifact.version,
                request_id=request_id,
                of_job=True,
            )
        except (NotFound, Conflict):
            log.info("artifact_not_wanted", artifact_id=str(artifact.id))  # deleted, or made by another run meanwhile

    async def _excerpts(self, principal: Principal, ids: Sequence[str]) -> list[dict[str, Any]]:
        wanted = [UUID(str(i)) for i in ids]
        async with self._db.tenant(principal) as conn:
            found = await memories.find(conn, org_id=principal.org_id, ids=wanted)
        if missing := set(wanted) - {memory.id for memory in found}:
            raise NotFound(f"no memory {min(missing)}", hint="context_ids are ids of memories: GET /v1/memories")
        return [{"text": memory.content, "title": memory.title} for memory in found if memory.content.strip()]

    async def _was_last(self, principal: Principal, artifact_id: UUID) -> bool:
        """Count an error, apart from interruptions; whether it was the last that is retried."""
        async with self._db.tenant(principal) as conn:
            return await artifacts.count_error(conn, artifact_id) >= MAX_ERRORS

    async def _fail(self, principal: Principal, artifact: Artifact, error: NeuroEdgeError) -> None:
        async with self._db.tenant(principal) as conn:
            now = await artifacts.find(conn, artifact.id, lock=True)
            if now is None or now.state != "generating":
                return
            await artifacts.fail(conn, artifact.id, code=error.code, detail=error.detail, hint=error.hint)
            after = await artifacts.find(conn, artifact.id)
        if after is not None:
            await self._progress.publish(principal, artifact.id, "failed", failure(after))
