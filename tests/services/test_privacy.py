"""Exports and erasures over a real database, blob store, cache and Valkey."""

import dataclasses
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound, SealBroken, Unavailable
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.vault import Cipher
from neuroedge.infra.blobs import TenantBlobs, open_store
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.tiered import TieredCache
from neuroedge.infra.queue import JobQueue
from neuroedge.services.privacy import Privacy, report_sha256
from neuroedge.stores import privacy as store
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.everything_stored import Stored, store_everything
from tests.services.test_tasks import Stream
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio


class Topics(Stream):
    """Events, in memory; remembers which topics were forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []

    async def forget(self, org_id: Any, topic: str) -> None:
        """Note it."""
        self.forgotten.append(topic)

    async def forget_all(self, org_id: Any) -> int:
        """Note it."""
        self.forgotten.append("*")
        return 0


class Bench:
    """The service over the test's database."""

    def __init__(self, db: Database, queue: JobQueue, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.queue = queue
        self.store = open_store(None, folder / "blobs")
        self.topics = Topics()
        self.cache = TieredCache(memory=MemoryLevel(1 << 20))
        (folder / "tmp").mkdir()
        for name in ("erase_data", "export_data"):
            queue.app.task(name=name)(lambda: None)
        self.privacy = Privacy(
            db=db, queue=queue, contexts=cast(Any, self), cache=self.cache, events=cast(Any, self.topics)
        )

    def blobs(self, principal: Principal) -> TenantBlobs:
        """The caller's objects."""

        async def cipher() -> Cipher:
            return (await self.db.known(principal.org_id)).cipher

        return TenantBlobs(self.store, principal.org_id, cipher=cipher, tmp=self.folder / "tmp")

    async def fill(self, caller: Principal, word: str) -> Stored:
        """Rows of every kind with their objects, a cached value and a job."""
        stored = await store_everything(self.db, caller, word)
        for key in (
            f"recordings/{stored.recording_id}/audio.wav",
            f"documents/{stored.document_id}/1/original",
            f"tasks/{stored.task_id}/1/result.json",
        ):
            await self.blobs(caller).put(key, word.encode())

        async def compute(positions: Any) -> list[str]:
            return [word]

        await self.cache.of(caller).get_or_compute(["k"], compute, ttl_s=60)
        return stored

    async def defer(self, caller: Principal, task: str, args: dict[str, Any]) -> None:
        """Order a job as the caller."""
        if task not in self.queue.app.tasks:
            self.queue.app.task(name=task)(lambda: None)
        named = {"org_id": str(caller.org_id), "user_id": str(caller.user_id), **args}
        async with self.db.tenant(caller) as conn:
            await self.queue.defer(conn, task, lock=task, args=named)

    async def jobs(self, caller: Principal) -> list[tuple[str, dict[str, Any], UUID]]:
        """The organisation's jobs that a user is named in: task, other arguments, user."""
        async with self.db.tenant(caller) as conn:
            rows = await conn.execute(
                "SELECT task_name, args - 'user_id' - 'org_id' AS args, (args ->> 'user_id')::uuid AS user_id"
                " FROM procrastinate_jobs WHERE args ->> 'org_id' = %s AND args ? 'user_id' ORDER BY id",
                [str(caller.org_id)],
            )
            return [(row["task_name"], row["args"], row["user_id"]) for row in await rows.fetchall()]

    async def rows(self, caller: Principal) -> dict[str, int]:
        """What the caller's organisation has in each table."""
        async with self.privacy._bound(caller.org_id) as conn:
            return await store.left_of_organisation(conn)


@pytest.fixture
async def bench(db: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    """Everything but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    made = Bench(db, queue, tmp_path)
    yield made
    await made.cache.close()


async def _colleague(migrated: Migrated, owner: Principal, *, role: Any = "member") -> Principal:
    """Another member of the same organisation."""
    user_id = new_id()
    name = f"u{user_id.hex}"
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        await conn.execute(
            "INSERT INTO users (id, username, email, password_hash) VALUES (%s, %s, %s, '-')",
            [user_id, name, f"{name}@example.org"],
        )
        await conn.execute(
            "INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, %s)", [owner.org_id, user_id, role]
        )
    return dataclasses.replace(owner, user_id=user_id, username=name, role=role, permissions=ROLE_PERMISSIONS[role])


async def _erased(bench: Bench, caller: Principal, order: store.Erasure) -> store.Erasure:
    await bench.privacy.run_erasure(caller.org_id, order.id, request_id="r")
    done = await bench.privacy.erasure(caller, order.id)
    assert done.state == "done"
    assert done.report is not None
    assert done.report_sha256 == report_sha256(done.report)
    assert not any(done.report["left"].values())
    return done


async def test_one_users_data_goes_and_a_colleagues_stays(bench: Bench, migrated: Migrated) -> None:
    """Rows, objects, cache, events and exports of the user; the proof stands in the audit log."""
    owner = await new_principal(bench.db)
    colleague = await _colleague(migrated, owner)
    await bench.fill(owner, "own")
    theirs = await bench.fill(colleague, "theirs")
    before = await bench.rows(owner)
    order = await bench.privacy.order_user_erasure(owner, colleague.user_id, account=False, request_id="r")
    done = await _erased(bench, owner, order)
    assert done.report is not None
    erased = done.report["erased"]
    assert erased["memories"] + erased["documents"] + erased["recordings"] + erased["tasks"] >= 6
    assert (erased["blobs"], erased["exports"], erased["refresh_tokens"]) == (3, 1, 1)
    after = await bench.rows(owner)
    for table in ("memories", "recordings", "segments", "documents", "tasks", "entities", "mentions", "relations"):
        assert after[table] == before[table] // 2, table
    for table in ("memory_vectors_384", "memory_vectors_768", "memory_vectors_1024"):
        assert after[table] == before[table] // 2, table
    assert await bench.blobs(owner).count() == 3
    assert f"recording:{theirs.recording_id}" in bench.topics.forgotten
    assert bench.cache.memory_bytes == 0
    async with bench.db.tenant(owner) as conn:
        cursor = await conn.execute("SELECT target, detail FROM audit WHERE action = 'privacy.erased'")
        row = await cursor.fetchone() or {}
        assert await (await conn.execute("SELECT 1 FROM users WHERE id = %s", [colleague.user_id])).fetchone()
    assert row["target"] == f"user:{colleague.user_id}"
    assert row["detail"] == {"report": done.report, "sha256": done.report_sha256}
    assert "theirs" not in json.dumps(row["detail"])


async def test_with_the_account_the_user_is_gone(bench: Bench, migrated: Migrated) -> None:
    """A member may ask for that; the only owner may not, since nobody could manage the organisation."""
    owner = await new_principal(bench.db)
    colleague = await _colleague(migrated, owner, role="viewer")
    order = await bench.privacy.order_user_erasure(colleague, colleague.user_id, account=True, request_id="r")
    await _erased(bench, owner, order)
    async with bench.db.tenant(owner) as conn:
        assert not await (await conn.execute("SELECT 1 FROM users WHERE id = %s", [colleague.user_id])).fetchone()
    with pytest.raises(Conflict):
        await bench.privacy.order_user_erasure(owner, owner.user_id, account=True, request_id="r")


async def test_an_account_that_another_organisation_has_too_stays_there(bench: Bench, migrated: Migrated) -> None:
    """One organisation's admin, or its end, does not take a user from another one."""
    owner, other, ending = [await new_principal(bench.db) for _ in range(3)]
    colleague = await _colleague(migrated, owner)
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        for org in (other, ending):
            await conn.execute(
                "INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, 'member')",
                [org.org_id, colleague.user_id],
            )
    order = await bench.privacy.order_user_erasure(owner, colleague.user_id, account=True, request_id="r")
    await _erased(bench, owner, order)
    order = await bench.privacy.order_organisation_erasure(ending, confirm=ending.username, request_id="r")
    await _erased(bench, ending, order)
    for org, stays in ((owner, False), (other, True)):
        async with bench.db.tenant(org) as conn:
            cursor = await conn.execute("SELECT 1 FROM users WHERE id = %s", [colleague.user_id])
            assert bool(await cursor.fetchone()) is stays


async def test_who_may_ask_for_what(bench: Bench, migrated: Migrated) -> None:
    """A member for what is theirs, who manages the organisation for its members, its owner for all of it, after
    naming it; nobody for another organisation's user."""
    owner, stranger = await new_principal(bench.db), await new_principal(bench.db)
    member, admin = await _colleague(migrated, owner), await _colleague(migrated, owner, role="admin")
    await bench.privacy.order_export(member, user_id=None, organisation=False, request_id="r")
    await bench.privacy.order_export(admin, user_id=member.user_id, organisation=False, request_id="r")
    with pytest.raises(Forbidden):
        await bench.privacy.order_export(member, user_id=owner.user_id, organisation=False, request_id="r")
    with pytest.raises(Forbidden):
        await bench.privacy.order_export(member, user_id=None, organisation=True, request_id="r")
    with pytest.raises(Forbidden):
        await bench.privacy.order_user_erasure(member, owner.user_id, account=False, request_id="r")
    for user_id in (stranger.user_id, new_id()):
        with pytest.raises(NotFound):
            await bench.privacy.order_user_erasure(owner, user_id, account=False, request_id="r")
    with pytest.raises(Forbidden):
        await bench.privacy.order_organisation_erasure(admin, confirm=owner.username, request_id="r")
    with pytest.raises(InvalidInput):
        await bench.privacy.order_organisation_erasure(owner, confirm="something else", request_id="r")
    order = await bench.privacy.order_export(owner, user_id=None, organisation=True, request_id="r")
    for other in (stranger, admin):
        with pytest.raises(NotFound):
            await bench.privacy.exported(other, order.id)


async def test_an_organisation_goes_with_its_keys_first(bench: Bench) -> None:
    """The order alone makes every sealed value unreadable; the job then removes it all, and the proof outlives it."""
    owner, other = await new_principal(bench.db), await new_principal(bench.db)
    await bench.fill(owner, "own")
    await bench.fill(other, "kept")
    kept = await bench.rows(other)
    async with bench.db.tenant(owner) as conn:
        cursor = await conn.execute("SELECT id, sealed FROM memories LIMIT 1")
        memory = await cursor.fetchone() or {}
    order = await bench.privacy.order_organisation_erasure(owner, confirm=owner.username, request_id="r")
    rows = await bench.rows(owner)
    assert rows["tenant_keys"] == 0
    assert rows["memories"] == 5
    async with bench.db.tenant(owner) as conn:  # whoever has an access token yet
        with pytest.raises(SealBroken):
            conn.vault.open(memory["sealed"], f"memories/{memory['id']}")
    assert (await bench.rows(owner))["tenant_keys"] == 0
    done = await _erased(bench, owner, order)
    assert done.report is not None
    assert done.report["left"].keys() >= {"memories", "audit", "usage", "organisations", "blobs"}
    assert (done.report["erased"]["tenant_keys"], done.report["erased"]["users"]) == (1, 1)
    assert not any((await bench.rows(owner)).values())
    assert not list((bench.folder / "blobs" / str(owner.org_id)).rglob("*.*"))
    assert await bench.rows(other) == kept
    assert await bench.blobs(other).count() == 3
    listed = {erasure.id: erasure for erasure in await bench.privacy.erasures_of_all(limit=1000)}
    assert listed[order.id].report_sha256 == done.report_sha256
    assert "own" not in json.dumps(done.report["erased"])


async def test_an_erasure_cut_off_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was erased before the crash is counted in the proof as well."""
    owner = await new_principal(bench.db)
    await bench.fill(owner, "own")
    order = await bench.privacy.order_user_erasure(owner, owner.user_id, account=False, request_id="r")

    async def away(*args: Any, **kwargs: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(store, "delete_traces", away)
        with pytest.raises(Unavailable):
            await bench.privacy.run_erasure(owner.org_id, order.id, request_id="r")
    assert (await bench.privacy.erasure(owner, order.id)).state == "running"
    done = await _erased(bench, owner, order)
    assert done.report is not None
    assert done.report["erased"]["blobs"] == 3
    assert done.report["erased"]["recordings"] == 1


async def test_an_erasure_that_leaves_something_is_not_called_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count decides, not the deletes."""
    owner = await new_principal(bench.db)
    await bench.fill(owner, "own")
    order = await bench.privacy.order_user_erasure(owner, owner.user_id, account=False, request_id="r")
    with monkeypatch.context() as broken:
        broken.setattr(store, "OWNED", ("documents",))
        with pytest.raises(Unavailable, match="memories"):
            await bench.privacy.run_erasure(owner.org_id, order.id, request_id="r")
    assert (await bench.privacy.erasure(owner, order.id)).state == "running"


async def test_work_that_others_wait_for_goes_on(bench: Bench, migrated: Migrated) -> None:
    """The rebuild of the index, and what is done to others' things: without the name of who ordered it. The user's
    own jobs go."""
    owner = await new_principal(bench.db)
    colleague = await _colleague(migrated, owner, role="admin")
    stays, goes = await bench.fill(owner, "own"), await bench.fill(colleague, "theirs")
    async with bench.db.tenant(owner, sees_all=True) as conn:
        row = await (await conn.execute("SELECT id FROM artifacts WHERE user_id = %s", [owner.user_id])).fetchone()
    assert row is not None
    named = {"username": colleague.username, "role": "admin"}
    rebuild = str(new_id())
    for task, args in (
        ("rebuild_index", {"rebuild_id": rebuild}),
        ("process_document", {"document_id": str(stays.document_id), "version": 2, **named}),
        ("process_document", {"document_id": str(goes.document_id), "version": 2, **named}),
        ("extract_knowledge_of_document", {"document_id": str(stays.document_id)}),
        ("generate_artifact", {"artifact_id": str(row["id"]), **named}),
        ("extract_knowledge", {}),
        ("remember_messages", {"message_ids": [], **named}),
    ):
        await bench.defer(colleague, task, args)
    order = await bench.privacy.order_user_erasure(owner, colleague.user_id, account=True, request_id="r")
    await _erased(bench, owner, order)
    assert await bench.jobs(owner) == [
        ("rebuild_index", {"rebuild_id": rebuild}, UUID(int=0)),
        (
            "process_document",
            {**named, "document_id": str(stays.document_id), "version": 2, "username": ""},
            owner.user_id,
        ),
        ("extract_knowledge_of_document", {"document_id": str(stays.document_id)}, owner.user_id),
        ("generate_artifact", {**named, "artifact_id": str(row["id"]), "username": ""}, owner.user_id),
    ]


async def test_an_export_holds_all_of_a_user_and_nothing_of_others(bench: Bench, migrated: Migrated) -> None:
    """In the clear, private memories too; sealed where it lies."""
    owner = await new_principal(bench.db)
    colleague = await _colleague(migrated, owner)
    await bench.fill(owner, "ownword")
    await bench.fill(colleague, "theirs")
    files = await _export(bench, colleague, user_id=None, organisation=False)
    assert len(files["memories"]) == 5
    assert {row["content"].rsplit(" ", 1)[1] for row in files["memories"]} == {"theirs"}
    assert files["recordings"][0]["title"] == "call theirs"
    assert files["segments"][0]["text"] == "said theirs"
    assert files["documents"][0]["title"] == "theirs"
    assert json.loads(files["tasks"][0]["payload"]) == {"texts": ["theirs"]}
    assert json.loads(files["tasks"][0]["result"]) == "theirs"
    assert [row["username"] for row in files["accounts"]] == [colleague.username]
    assert len(files["usage"]) == 1
    assert {row["user_id"] for row in files["audit"]} == {str(colleague.user_id)}
    assert "ownword" not in json.dumps({name: rows for name, rows in files.items() if name != "accounts"})
    whole = await _export(bench, owner, user_id=None, organisation=True)
    assert len(whole["memories"]) == 10
    assert len(whole["accounts"]) == 2


async def _export(bench: Bench, caller: Principal, **whose: Any) -> dict[str, list[dict[str, Any]]]:
    order = await bench.privacy.order_export(caller, **whose, request_id="r")
    with pytest.raises(Conflict):
        await bench.privacy.exported(caller, order.id)
    await bench.privacy.run_export(caller.org_id, order.id, folder=bench.folder / "tmp")
    assert (await bench.privacy.export(caller, order.id)).state == "done"
    data = await bench.privacy.exported(caller, order.id)
    stored = bench.folder / "blobs" / str(caller.org_id) / "exports" / str(order.id) / "export.zip"
    assert not stored.read_bytes().startswith(data[:4])
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {
            name.removesuffix(".jsonl"): [json.loads(line) for line in file.read(name).splitlines()]
            for name in file.namelist()
            if name.endswith(".jsonl")
        }


async def test_old_exports_are_swept(bench: Bench, migrated: Migrated) -> None:
    """With their object, after seven days."""
    owner = await new_principal(bench.db)
    order = await bench.privacy.order_export(owner, user_id=None, organisation=False, request_id="r")
    await bench.privacy.run_export(owner.org_id, order.id, folder=bench.folder / "tmp")
    await bench.privacy.sweep()
    assert await bench.blobs(owner).count("exports") == 1
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        await conn.execute("UPDATE exports SET created_at = now() - interval '8 days' WHERE id = %s", [order.id])
    assert await bench.privacy.sweep() == 1
    assert await bench.blobs(owner).count("exports") == 0
    with pytest.raises(NotFound):
        await bench.privacy.export(owner, order.id)
