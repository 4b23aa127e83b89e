"""Artifacts over a real database, queue and blob store, with a model under the test's control: versions, conflicts,
jobs cut off, who may do what, what is left when one is gone."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import Conflict, ContentBlocked, Forbidden, InvalidInput, NotFound, TooLarge, Unavailable
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.engines.language.artifact import ArtifactEngine
from neuroedge.infra.blobs import TenantBlobs, open_store
from neuroedge.infra.queue import JobQueue
from neuroedge.services import artifact_versions, housekeeping
from neuroedge.services.artifact_drafts import MAX_CONTENT_BYTES, ArtifactChanges, ArtifactDraft, Order
from neuroedge.services.artifact_generation import MAX_ERRORS, MAX_STARTS, ArtifactGeneration
from neuroedge.services.artifact_progress import ArtifactProgress
from neuroedge.services.artifact_versions import IN_ROW_BYTES, ArtifactVersions, Detail
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.memory import MemoryService
from neuroedge.services.safety import Verdict
from neuroedge.stores import artifacts as store
from neuroedge.stores import chat_sessions, memories
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.engines.language.test_artifact import Scripted
from tests.everything_stored import unit_vector
from tests.fakes import make_context
from tests.services.test_privacy import Bench as PrivacyBench
from tests.services.test_tasks import Stream
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio
LARGE = "# Large\n\n" + "A line of words.\n" * (IN_ROW_BYTES // 16)


class Runner:
    """Runs the artifact engine with a scripted model; embeds everything alike; finds what the test says."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._db = db
        self._folder = folder
        self.contexts = self.registry = self
        self.store = open_store(None, folder / "blobs")
        (folder / "tmp").mkdir()
        self.llm = Scripted()
        self.failure: Exception | None = None
        self.embedded: list[str] = []
        self.hits: list[Any] = []
        self.payloads: list[Any] = []

    def get(self, name: str) -> Any:
        """The engine, as the registry gives it."""
        return ArtifactEngine(probe=make_context())

    def blobs(self, principal: Principal) -> TenantBlobs:
        """The caller's objects."""

        async def cipher() -> Cipher:
            return (await self._db.known(principal.org_id)).cipher

        return TenantBlobs(self.store, principal.org_id, cipher=cipher, tmp=self._folder / "tmp")

    async def organisations(self) -> list[UUID]:
        """Those the test has objects of."""
        return [UUID(path.name) for path in (self._folder / "blobs").iterdir()]

    async def run(self, name: str, payload: Any, *, principal: Principal, request_id: str, progress: Any = None) -> Any:
        """The engine's part."""
        if name == "embedding":
            self.embedded += payload["texts"]
            vectors = np.zeros((len(payload["texts"]), 384), np.float32)
            vectors[:, 0] = 1
            return SimpleNamespace(vectors=vectors.tolist(), model="fake")
        if name == "search":
            return SimpleNamespace(hits=self.hits)
        assert name == "artifact"
        self.payloads.append(payload)
        if self.failure is not None:
            raise self.failure
        ctx = make_context(models={"chat": self.llm}, progress=progress)
        engine = ArtifactEngine(probe=ctx)
        return await engine.run(engine.Input.model_validate(payload), ctx)


class Masks:
    """A safety policy that masks one word and blocks another."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    async def check(self, principal: Principal, text: str, *, stage: Any, request_id: str) -> Verdict:
        """By the words of the text."""
        self.seen.append((stage, text))
        action: Any = "block" if "dynamite" in text else "mask" if "Ada" in text else "allow"
        return Verdict(action=action, text=text.replace("Ada", "[name]"), stage=stage)


class Bench:
    """The services over the test's database."""

    def __init__(self, db: Database, queue: JobQueue, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.queue = queue
        self.runner = Runner(db, folder)
        self.stream = Stream()
        runner, stream = cast(Any, self.runner), cast(Any, self.stream)
        for name in ("generate_artifact", "delete_artifact_blobs"):
            queue.app.task(name=name)(lambda: None)
        progress = ArtifactProgress(db=db, events=stream)
        memory = MemoryService(db=db, runner=runner)
        self.versions = ArtifactVersions(db=db, runner=runner, memory=memory, progress=progress)
        self.safety = Masks()
        self.generation = ArtifactGeneration(
            db=db, runner=runner, versions=self.versions, progress=progress, safety=cast(Any, self.safety)
        )
        self.artifacts = Artifacts(
            db=db,
            runner=runner,
            queue=queue,
            progress=progress,
            versions=self.versions,
            generation=self.generation,
        )

    async def add(self, caller: Principal, **draft: Any) -> Detail:
        """Store or generate one; a short document unless told otherwise."""
        given: dict[str, Any] = {"type": "document", **draft}
        if "instruction" not in given:
            given.setdefault("content", "# One\n")
        return await self.artifacts.create(caller, ArtifactDraft(**given), request_id="r")

    async def change(
        self, caller: Principal, artifact_id: UUID, *, expected: int | None = None, **changes: Any
    ) -> Detail:
        """Change one."""
        return await self.artifacts.change(
            caller, artifact_id, ArtifactChanges(**changes), expected=expected, request_id="r"
        )

    def script(self, *answers: str) -> None:
        """What the model says next."""
        self.runner.llm = Scripted(*answers)

    def files(self) -> list[Path]:
        """Everything in the blob store."""
        return [path for path in (self.folder / "blobs").rglob("*") if path.is_file()]

    async def remembered(self, caller: Principal) -> list[Any]:
        """Memories of artifacts, whoever sees them."""
        async with self.db.tenant(caller, sees_all=True) as conn:
            cursor = await conn.execute("SELECT id FROM memories WHERE memory_type = 'artifact'")
            ids = [row["id"] for row in await cursor.fetchall()]
            return await memories.find(conn, org_id=caller.org_id, ids=ids)


@pytest.fixture
async def bench(db: Database, tmp_path: Path) -> Bench:
    """Everything but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    return Bench(db, queue, tmp_path)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


@pytest.mark.parametrize(
    ("draft", "valid"),
    [
        ({"type": "document", "content": "# A\n"}, True),
        ({"type": "code", "format": "python", "content": "x = 1\n"}, True),
        ({"type": "code", "format": "python", "content": "x = = 1\n"}, False),
        ({"type": "table", "content": "a,b\n1,2\n"}, True),
        ({"type": "table", "format": "json", "content": '[{"a": 1}]'}, True),
        ({"type": "diagram", "content": "pie\n"}, False),
        ({"type": "json", "content": '{"a": "x"}', "json_schema": {"required": ["a"]}}, True),
        ({"type": "json", "content": '{"a": "x"}', "json_schema": {"required": ["b"]}}, False),
        ({"type": "slides", "content": '{"title": "T", "slides": []}'}, False),
    ],
)
async def test_what_is_given_is_kept_as_it_is_and_checked(
    bench: Bench, caller: Principal, draft: dict[str, Any], valid: bool
) -> None:
    """Every type there and back; what fails its checks is kept, and says so."""
    made = await bench.add(caller, **draft)
    read = await bench.versions.get(caller, made.artifact.id)
    assert read == made
    assert read.version is not None
    assert (read.content, read.version.valid, read.version.origin) == (draft["content"], valid, "given")
    assert (read.artifact.state, read.artifact.version, read.artifact.visibility) == ("ready", 1, "private")


async def test_a_large_version_lies_sealed_in_blob_storage(bench: Bench, caller: Principal) -> None:
    """A small one in its row; nothing in the store is plain; deleting leaves nothing."""
    made = await bench.add(caller, content=LARGE)
    assert made.version is not None
    (file,) = bench.files()
    assert b"A line of words" not in file.read_bytes()
    await bench.change(caller, made.artifact.id, content="# Small\n")
    assert len(bench.files()) == 1
    assert (await bench.versions.get(caller, made.artifact.id, 1)).content == LARGE
    await bench.artifacts.delete(caller, made.artifact.id, request_id="r")
    assert bench.files() == []
    assert await bench.remembered(caller) == []
    with pytest.raises(NotFound):
        await bench.versions.get(caller, made.artifact.id)


async def test_versions_count_up_and_older_ones_come_back(bench: Bench, caller: Principal) -> None:
    """Each with its content; a restored one is a new version, and what is searched is always the present one."""
    made = await bench.add(caller, content="# First\n", title="Plan")
    artifact_id = made.artifact.id
    await bench.change(caller, artifact_id, content="# Second\n", note="shorter")
    restored = await bench.versions.restore(caller, artifact_id, 1, expected=2, request_id="r")
    assert (restored.content, restored.artifact.version) == ("# First\n", 3)
    page = await bench.versions.page(caller, artifact_id, limit=2)
    rest = await bench.versions.page(caller, artifact_id, limit=9, before=page[-1].version)
    assert [(one.version, one.origin, one.note) for one in [*page, *rest]] == [
        (3, "restored", "version 1"),
        (2, "given", "shorter"),
        (1, "given", None),
    ]
    (memory,) = await bench.remembered(caller)
    assert (memory.content, memory.title, memory.visibility) == ("# First\n", "Plan", "private")
    assert memory.metadata == {"artifact_id": str(artifact_id), "artifact_type": "document", "version": 3}
    for missing in (0, 4):
        with pytest.raises(NotFound, match=f"no version {missing}"):
            await bench.versions.restore(caller, artifact_id, missing, expected=None, request_id="r")


async def test_the_diff_of_two_versions(bench: Bench, caller: Principal) -> None:
    """Against the one before by default, and the other way round too; JSON by structure."""
    made = await bench.add(caller, type="json", content='{"a": 1}')
    artifact_id = made.artifact.id
    await bench.change(caller, artifact_id, content='{"a": 2}')
    found = await bench.versions.diff(caller, artifact_id, before=None, after=None)
    assert (found.before, found.after, found.truncated) == (1, 2, False)
    assert '-{"a": 1}' in found.unified
    assert [(change.op, change.path, change.after) for change in found.changes or []] == [("replace", "/a", 2)]
    back = await bench.versions.diff(caller, artifact_id, before=2, after=1)
    assert '+{"a": 1}' in back.unified
    await bench.change(caller, artifact_id, content="{broken")
    broken = await bench.versions.diff(caller, artifact_id, before=None, after=None)
    assert broken.changes is None
    assert "+{broken" in broken.unified


async def test_only_one_of_two_changes_of_one_version_counts(bench: Bench, caller: Principal) -> None:
    """The other one is told; without a number the later one builds on the earlier one, or is told as well."""
    made = await bench.add(caller)
    artifact_id = made.artifact.id
    results = await asyncio.gather(
        *(bench.change(caller, artifact_id, content=f"# {n}\n" + LARGE, expected=1) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Detail) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 3
    assert len(bench.files()) == 1
    with pytest.raises(Conflict, match="version 2, not 1"):
        await bench.change(caller, artifact_id, title="x", expected=1)
    assert (await bench.change(caller, artifact_id, title="x", expected=2)).artifact.version == 2


async def test_what_is_generated_is_stored_with_how(bench: Bench, caller: Principal) -> None:
    """Its models, method and instruction; it is named by its own heading; material comes from memories."""
    async with bench.db.tenant(caller) as conn:
        item = NewMemory(content="Pump 3 leaks.", title="Log", embedding=unit_vector(), embedding_model="m")
        ids = await memories.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=[item])
    bench.script("# Pump report\n\nPump 3 leaks.")
    made = await bench.add(caller, instruction="Report on pump 3.", context_ids=ids)
    assert made.version is not None
    assert (made.artifact.named.title, made.version.origin, made.version.models) == (
        "Pump report",
        "generated",
        ["local/scripted"],
    )
    assert made.version.note == "Report on pump 3."
    assert "[1] Log: Pump 3 leaks." in bench.runner.llm.asked[0].messages[1].content
    bench.script("# Pump report\n\nIt is dry.")
    changed = await bench.change(caller, made.artifact.id, instruction="It was repaired.")
    assert (changed.content, changed.artifact.version) == ("# Pump report\n\nIt is dry.\n", 2)
    assert "Pump 3 leaks." in bench.runner.llm.asked[0].messages[1].content
    with pytest.raises(NotFound, match="no memory"):
        await bench.add(caller, instruction="x", context_ids=[new_id()])


async def test_what_the_safety_policy_says_holds(bench: Bench, caller: Principal) -> None:
    """Masked before the model sees it and before it is stored; blocked, nothing is made, and a job fails with that."""
    bench.script('{"title": "Ada"}')
    made = await bench.add(caller, type="json", instruction="About Ada.")
    assert made.version is not None
    assert made.content == '{\n  "title": "[name]"\n}'
    assert (made.artifact.named.title, made.version.models) == ("[name]", ["local/scripted"])
    assert made.version.sha256 == hashlib.sha256(made.content.encode()).hexdigest()
    assert bench.runner.llm.asked[0].messages[1].content == "About [name]."
    assert [stage for stage, _ in bench.safety.seen] == ["input", "output"]
    with pytest.raises(ContentBlocked):
        await bench.add(caller, instruction="How to make dynamite.")
    order = await bench.add(caller, instruction="A report.", background=True)
    bench.script("All about dynamite.")
    await bench.generation.run(caller, order.artifact.id, request_id="r")
    failed = (await bench.versions.get(caller, order.artifact.id)).artifact
    assert (failed.state, failed.error_code) == ("failed", "content_blocked")


async def test_an_invalid_result_says_so(bench: Bench, caller: Principal) -> None:
    """After the repair failed too it is stored as invalid, never as right."""
    bench.script("def f(:", "def g(:")
    made = await bench.add(caller, type="code", format="python", instruction="A function.")
    assert made.version is not None
    assert not made.version.valid
    assert any(check.ok is False for check in made.version.checks)


async def test_what_fails_while_it_is_generated_leaves_nothing(bench: Bench, caller: Principal) -> None:
    """Within a request: no artifact, or the one that was there as it was."""
    bench.runner.failure = Unavailable("no model")
    with pytest.raises(Unavailable):
        await bench.add(caller, instruction="x")
    assert await bench.artifacts.page(caller, limit=9) == []
    made = await bench.add(caller)
    with pytest.raises(Unavailable):
        await bench.change(caller, made.artifact.id, instruction="x", title="new")
    after = await bench.versions.get(caller, made.artifact.id)
    assert after == made


async def test_a_job_generates_in_the_background(bench: Bench, caller: Principal) -> None:
    """Told from the beginning to the end; meanwhile nobody else changes the artifact, afterwards the job is over."""
    made = await bench.add(caller, instruction="A report.", background=True, title="Report")
    artifact_id = made.artifact.id
    assert (made.artifact.state, made.version, made.artifact.version) == ("generating", None, 0)
    for change in ({"content": "x"}, {"title": "x"}, {"instruction": "x", "background": True}):
        with pytest.raises(Conflict, match="being generated"):
            await bench.change(caller, artifact_id, **change)
    bench.script("# A\n\n" + "Some words. " * 50)
    await bench.generation.run(caller, artifact_id, request_id="r")
    after = await bench.versions.get(caller, artifact_id)
    assert (after.artifact.state, after.artifact.version, after.artifact.named.title) == ("ready", 1, "Report")
    assert bench.stream.names[0] == "generating"
    assert bench.stream.names[-1] == "ready"
    told = [data for name, data in zip(bench.stream.names, bench.stream.data, strict=True) if name == "progress"]
    assert {data["stage"] for data in told} == {"draft", "check"}
    assert "words" not in json.dumps(told)
    await bench.generation.run(caller, artifact_id, request_id="r")
    assert (await bench.versions.get(caller, artifact_id)).artifact.version == 1
    changed = await bench.change(caller, artifact_id, instruction="Shorter.", background=True, expected=1)
    assert (changed.artifact.state, changed.content) == ("generating", after.content)
    bench.script("# Short")
    await bench.generation.run(caller, artifact_id, request_id="r")
    assert (await bench.versions.get(caller, artifact_id)).content == "# Short\n"


async def test_a_job_cut_off_is_resumed_and_one_that_fails_comes_to_an_end(bench: Bench, caller: Principal) -> None:
    """Interruptions and errors are counted apart; a caller's mistake ends it at once; what was there stays."""
    made = await bench.add(caller)
    artifact_id = made.artifact.id
    await bench.change(caller, artifact_id, instruction="x", background=True)
    bench.runner.failure = Unavailable("no model now")
    for _ in range(MAX_ERRORS - 1):
        with pytest.raises(Unavailable):
            await bench.generation.run(caller, artifact_id, request_id="r")
    await bench.generation.run(caller, artifact_id, request_id="r")
    failed = (await bench.versions.get(caller, artifact_id)).artifact
    assert (failed.state, failed.version, failed.error_code) == ("ready", 1, "unavailable")
    assert bench.stream.names[-1] == "failed"
    await bench.change(caller, artifact_id, instruction="x", background=True)
    bench.runner.failure = InvalidInput("the model takes no such thing")
    await bench.generation.run(caller, artifact_id, request_id="r")
    assert (await bench.versions.get(caller, artifact_id)).artifact.error_code == "invalid_input"
    fresh = await bench.add(caller, instruction="x", background=True)
    bench.runner.failure = cast(Any, asyncio.CancelledError())
    for _ in range(MAX_STARTS):
        with pytest.raises(asyncio.CancelledError):
            await bench.generation.run(caller, fresh.artifact.id, request_id="r")
    await bench.generation.run(caller, fresh.artifact.id, request_id="r")
    given_up = (await bench.versions.get(caller, fresh.artifact.id)).artifact
    assert (given_up.state, given_up.version) == ("failed", 0)
    assert "interrupted" in (given_up.error_detail or "")
    made = await bench.change(caller, fresh.artifact.id, content="# By hand\n")
    assert (made.artifact.state, made.artifact.error_code) == ("ready", None)


async def test_one_deleted_while_it_is_generated_stays_away(bench: Bench, caller: Principal) -> None:
    """The job ends quietly and stores nothing."""
    made = await bench.add(caller, instruction="x", background=True)
    run = bench.runner.run

    async def deleting(name: str, payload: Any, **more: Any) -> Any:
        if name == "embedding":
            await bench.artifacts.delete(caller, made.artifact.id, request_id="r")
        return await run(name, payload, **more)

    bench.runner.run = deleting  # type: ignore[method-assign]
    bench.script(LARGE)
    await bench.generation.run(caller, made.artifact.id, request_id="r")
    assert await bench.artifacts.page(caller, limit=9) == []
    assert bench.files() == []
    assert await bench.remembered(caller) == []


async def test_who_may_see_and_change_one(bench: Bench, caller: Principal, db: Database) -> None:
    """Private ones their owner; shared ones are read by all and changed by who manages; the memory goes along."""
    member, admin = colleague(caller, "member"), colleague(caller, "admin")
    made = await bench.add(caller)
    artifact_id = made.artifact.id
    for other in (member, admin, await new_principal(db)):
        with pytest.raises(NotFound):
            await bench.versions.get(other, artifact_id)
        with pytest.raises(NotFound):
            await bench.artifacts.delete(other, artifact_id, request_id="r")
    await bench.change(caller, artifact_id, visibility="organisation", tags=["shared"])
    (memory,) = await bench.remembered(caller)
    assert (memory.visibility, memory.tags) == ("organisation", ["shared"])
    assert (await bench.versions.get(member, artifact_id)).content == "# One\n"
    for attempt in ({"title": "x"}, {"content": "x"}, {"instruction": "x"}):
        with pytest.raises(Forbidden):
            await bench.change(member, artifact_id, **attempt)
    with pytest.raises(Forbidden):
        await bench.artifacts.delete(member, artifact_id, request_id="r")
    with pytest.raises(Forbidden):
        await bench.versions.restore(member, artifact_id, 1, expected=None, request_id="r")
    with pytest.raises(Forbidden, match="owner can hide"):
        await bench.change(admin, artifact_id, visibility="private")
    changed = await bench.change(admin, artifact_id, content="# Two\n")
    assert changed.version is not None
    assert changed.version.author_id == admin.user_id
    (memory,) = await bench.remembered(caller)
    assert (memory.content, memory.user_id) == ("# Two\n", caller.user_id)
    with pytest.raises(NotFound):
        await bench.versions.get(await new_principal(db), artifact_id)


async def test_a_deleted_memory_comes_back_with_the_next_version(bench: Bench, caller: Principal) -> None:
    """Until then the artifact is not found, but is there."""
    made = await bench.add(caller)
    (memory,) = await bench.remembered(caller)
    async with bench.db.tenant(caller) as conn:
        await memories.delete(conn, org_id=caller.org_id, ids=[memory.id])
    await bench.change(caller, made.artifact.id, content="# Two\n")
    (again,) = await bench.remembered(caller)
    assert (again.content, again.id != memory.id) == ("# Two\n", True)


async def test_a_search_gives_artifacts_the_caller_sees(bench: Bench, caller: Principal, db: Database) -> None:
    """In the order of the hits, with the passage; memories that only call themselves artifacts are left out."""
    made = await bench.add(caller, content="# Pumps\n\nThey leak.\n")
    (memory,) = await bench.remembered(caller)
    bench.runner.hits = [
        SimpleNamespace(id=i, score=1.0, content="# Pumps\n\nThey leak.", highlight=None) for i in (new_id(), memory.id)
    ]
    (found,) = await bench.artifacts.search(caller, "leaks", limit=5, request_id="r")
    assert (found.artifact.id, found.excerpt) == (made.artifact.id, "# Pumps\n\nThey leak.")
    assert await bench.artifacts.search(await new_principal(db), "leaks", limit=5, request_id="r") == []


async def test_a_conversation_gets_an_artifact(bench: Bench, caller: Principal) -> None:
    """Private, from the texts it was given, linked to the conversation."""
    async with bench.db.tenant(caller) as conn:
        session = await chat_sessions.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            session_id=new_id(),
            said=chat_sessions.Said(title="chat"),
            visibility="private",
        )
    bench.script("flowchart TD\nA --> B")
    made = await bench.artifacts.make(
        caller,
        type_="diagram",
        format_=None,
        instruction="Draw it.",
        sources=["A goes to B.", " "],
        order=Order(max_tokens=200),
        request_id="r",
        session_id=session.id,
    )
    assert made.version is not None
    assert (made.content, made.version.valid) == ("flowchart TD\nA --> B\n", True)
    assert (made.artifact.visibility, made.artifact.session_id) == ("private", session.id)
    assert bench.runner.llm.asked[0].max_tokens == 200
    assert "A goes to B." in bench.runner.llm.asked[0].messages[1].content


async def test_an_export_holds_every_version_and_an_erasure_none(
    bench: Bench, caller: Principal, tmp_path: Path
) -> None:
    """Large contents as files of their own; a colleague's artifact stays, without the name of who changed it."""
    admin = colleague(caller, "admin")
    large = await bench.add(caller, content=LARGE, title="Mine")
    await bench.change(caller, large.artifact.id, content="# Small\n")
    theirs = await bench.add(admin, visibility="organisation")
    await bench.change(caller, theirs.artifact.id, content="# Changed\n")
    (tmp_path / "privacy").mkdir()
    privacy = PrivacyBench(bench.db, bench.queue, tmp_path / "privacy")
    privacy.store = bench.runner.store
    order = await privacy.privacy.order_export(caller, user_id=None, organisation=False, request_id="r")
    await privacy.privacy.run_export(caller.org_id, order.id, folder=tmp_path / "privacy")
    with zipfile.ZipFile(io.BytesIO(await privacy.privacy.exported(caller, order.id))) as file:
        (artifact,) = (json.loads(line) for line in file.read("artifacts.jsonl").splitlines())
        first, second = (json.loads(line) for line in file.read("artifact_versions.jsonl").splitlines())
        assert file.read(first["blob"]).decode() == LARGE
    assert (artifact["title"], second["content"]) == ("Mine", "# Small\n")
    erasure = await privacy.privacy.order_user_erasure(caller, caller.user_id, account=False, request_id="r")
    await privacy.privacy.run_erasure(caller.org_id, erasure.id, request_id="r")
    done = await privacy.privacy.erasure(caller, erasure.id)
    assert done.report is not None
    assert not any(done.report["left"].values())
    assert done.report["erased"]["artifacts"] == 1
    assert bench.files() == []
    assert f"artifact:{large.artifact.id}" in privacy.topics.forgotten
    kept = await bench.versions.get(admin, theirs.artifact.id)
    assert kept.version is not None
    assert (kept.content, kept.version.author_id) == ("# Changed\n", None)
    await privacy.cache.close()


@pytest.mark.parametrize(
    "draft",
    [
        {},
        {"content": "x", "instruction": "y"},
        {"content": "x", "background": True},
        {"content": "x", "max_tokens": 20},
        {"content": "half \ud800"},
        {"content": "zero \0"},
        {"content": "x", "type": "film"},
        {"content": "x", "type": "code"},
        {"content": "x", "type": "json", "format": "yaml"},
        {"content": "x", "json_schema": {}},
        {"content": "x", "slides": 2},
        {"content": "x", "message_id": str(new_id())},
        {"content": "x", "unknown": 1},
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(draft: dict[str, Any]) -> None:
    """Before anything is looked up."""
    with pytest.raises(ValidationError):
        ArtifactDraft.model_validate({"type": "document", **draft})


@pytest.mark.parametrize("changes", [{}, {"note": "x"}, {"expected_version": 1}, {"title": None}, {"content": None}])
def test_changes_of_nothing_are_refused(changes: dict[str, Any]) -> None:
    """A remark alone makes no version, and null is no value."""
    with pytest.raises(ValidationError):
        ArtifactChanges.model_validate(changes)


async def test_bad_input_leaves_nothing(bench: Bench, caller: Principal) -> None:
    """Ten megabytes, a schema that is none, somebody else's conversation, a division the caller is not in."""
    for content in ("x" * 10_000_000, "ü" * (MAX_CONTENT_BYTES // 2 + 1)):
        with pytest.raises(TooLarge):
            await bench.add(caller, content=content)
    with pytest.raises(InvalidInput, match="json_schema"):
        await bench.add(caller, type="json", content="{}", json_schema={"type": 5})
    with pytest.raises(NotFound, match="conversation"):
        await bench.add(caller, session_id=new_id())
    for more in ({}, {"instruction": "x"}, {"instruction": "x", "background": True}):
        with pytest.raises(InvalidInput, match="division"):
            await bench.add(caller, visibility="division", **more)
    large = await bench.add(caller, content="word " * 100_000)
    with pytest.raises(TooLarge, match="by instruction"):
        await bench.change(caller, large.artifact.id, instruction="Shorter.")
    assert len(await bench.artifacts.page(caller, limit=9)) == 1
    assert bench.runner.payloads == []


async def test_the_sweep_deletes_what_a_crash_left(bench: Bench, caller: Principal) -> None:
    """Objects of an old id without a row; those of an artifact stay."""
    made = await bench.add(caller, content=LARGE)
    await bench.runner.blobs(caller).put("artifacts/01900000-0000-7000-8000-000000000000/x/content", b"left")
    assert await bench.artifacts.sweep() == 1
    assert len(bench.files()) == 1
    await bench.artifacts.delete_blobs(caller.org_id, made.artifact.id)
    assert bench.files() == []


@dataclass
class Breaking:
    """A database whose transactions fail in their COMMIT, or after it: the first one, or every one."""

    db: Database
    error: BaseException
    _: KW_ONLY
    every: bool
    committed: bool = True
    used: bool = False

    @asynccontextmanager
    async def tenant(self, principal: Principal) -> AsyncIterator[Any]:
        """One that does all but end well."""
        fails, self.used = self.every or not self.used, True
        async with self.db.tenant(principal) as conn:
            yield conn
            if fails and not self.committed:
                raise self.error
        if fails:
            raise self.error


@pytest.mark.parametrize(
    ("error", "every"), [(asyncio.CancelledError(), False), (Unavailable("the connection is lost"), True)]
)
async def test_a_version_that_is_cut_off_when_it_is_stored_keeps_its_content(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch, error: BaseException, every: bool
) -> None:
    """Its COMMIT was through, whether that can be asked afterwards or not."""
    with monkeypatch.context() as patched:
        patched.setattr(bench.versions, "_db", Breaking(bench.db, error, every=every))
        with pytest.raises(type(error)):
            await bench.add(caller, content=LARGE)
    (stored,) = await bench.artifacts.page(caller, limit=9)
    assert (await bench.versions.get(caller, stored.id)).content == LARGE


async def test_a_version_that_is_not_stored_leaves_no_object(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a new artifact, and of one that is there."""

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the database is away")

    made = await bench.add(caller, content="# Small\n")
    monkeypatch.setattr(store, "add_version", away)
    with pytest.raises(Unavailable):
        await bench.change(caller, made.artifact.id, content=LARGE)
    with pytest.raises(Unavailable):
        await bench.add(caller, content=LARGE)
    assert bench.files() == []


async def test_a_version_whose_commit_fails_leaves_its_object_to_the_sweep_at_most(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted at once where the artifact is there without it."""
    made = await bench.add(caller, content="# Small\n")
    first = await bench.versions.get(caller, made.artifact.id)
    breaking = Breaking(bench.db, Unavailable("the connection is lost"), every=False, committed=False)
    monkeypatch.setattr(bench.versions, "_db", breaking)
    large = await artifact_versions.checked(LARGE, "document", first.artifact.named, note=None)
    with pytest.raises(Unavailable):
        await bench.versions.keep(caller, first.artifact, large, origin="given", expected=1, request_id="r")
    assert bench.files() == []
    monkeypatch.setattr(bench.versions, "_db", replace(breaking, used=False))
    with pytest.raises(Unavailable):
        await bench.add(caller, content=LARGE)
    monkeypatch.setattr(housekeeping, "_ORPHAN_S", -60)
    assert await bench.artifacts.sweep() == 1
    assert bench.files() == []


async def test_a_blob_store_that_is_away_stores_nothing(bench: Bench, caller: Principal) -> None:
    """No row without its content."""

    class Away:
        async def put(self, key: str, data: bytes) -> None:
            raise Unavailable("no store")

        async def delete_prefix(self, prefix: str) -> None:
            raise Unavailable("no store")

    bench.runner.blobs = cast(Any, lambda principal: Away())  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await bench.add(caller, content=LARGE)
    async with bench.db.tenant(caller) as conn:
        assert await store.recent(conn, limit=9) == []
