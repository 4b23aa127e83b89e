"""A database of the time before content was sealed, brought up to date: all readable and searchable, nothing plain."""

import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.stores import memories, recordings, schema, tasks
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.everything_stored import unit_vector
from tests.stores.conftest import KEYS, Migrated

pytestmark = pytest.mark.anyio
ROWS = 40
WORD = "quibblewort"
"""In every text of before; long texts are kept apart from their rows (TOAST)."""


@pytest.fixture
def old(migrated: Migrated) -> Iterator[Migrated]:
    """A database of its own at revision 0002."""
    name = f"old_{new_id().hex}"
    owner_url = make_conninfo(migrated.owner_url, dbname=name)
    with psycopg.connect(migrated.owner_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        _upgrade(owner_url, "0002")
        yield Migrated(owner_url=owner_url, app_url=make_conninfo(migrated.app_url, dbname=name))
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _upgrade(owner_url: str, revision: str) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("neuroedge.stores") / "migrations"))
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(owner_url))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()


def _fill(owner_url: str) -> tuple[Principal, UUID, UUID]:
    """Rows as the older NeuroEdge wrote them: the caller, a recording, a task."""
    org_id, user_id, recording_id, speaker_id, task_id = (new_id() for _ in range(5))
    with psycopg.connect(owner_url) as conn:
        conn.execute("INSERT INTO organisations (id, name) VALUES (%s, 'org')", [org_id])
        conn.execute(
            "INSERT INTO users (id, username, email, password_hash) VALUES (%s, 'u', 'u@example.org', '-')", [user_id]
        )
        conn.execute("INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, 'owner')", [org_id, user_id])
        conn.execute(
            "INSERT INTO recordings (org_id, id, user_id, title, context, filename, bytes, status)"
            " VALUES (%s, %s, %s, %s, %s, %s, 1, 'done')",
            [org_id, recording_id, user_id, f"title {WORD}", f"context {WORD}", f"{WORD}.wav"],
        )
        conn.execute(
            "INSERT INTO recording_steps (org_id, recording_id, step, output, seconds) VALUES (%s, %s, %s, %s, 1)",
            [org_id, recording_id, "transcribe", json.dumps({"text": f"step {WORD} " + _long(0)})],
        )
        conn.execute(
            "INSERT INTO speakers (org_id, id, recording_id, label, speech_s) VALUES (%s, %s, %s, 'A', 1)",
            [org_id, speaker_id, recording_id],
        )
        for n in range(ROWS):
            conn.execute(
                "INSERT INTO segments (org_id, id, recording_id, speaker_id, position, start_s, end_s, text,"
                " confidence, words, emotion) VALUES (%s, %s, %s, %s, %s, 0, 1, %s, 1, %s, NULL)",
                [org_id, new_id(), recording_id, speaker_id, n, f"said {WORD} {n}", json.dumps([{"word": WORD}])],
            )
            conn.execute(
                "INSERT INTO memories (org_id, id, user_id, recording_id, memory_type, title, content, tags, keywords,"
                " metadata, embedding_model, embedding) VALUES (%s, %s, %s, %s, 'note', %s, %s, %s, %s, %s, 'm',"
                " %s::halfvec)",
                [
                    *(org_id, new_id(), user_id, recording_id if n % 2 else None, f"t{n} {WORD}"),
                    f"{WORD} number{n} " + (_long(n) if n == 7 else ""),
                    *([WORD], [WORD], json.dumps({"n": n, "about": WORD}), str(unit_vector(seed=n).tolist())),
                ],
            )
        conn.execute(
            "INSERT INTO tasks (org_id, id, user_id, request_id, engine, payload, priority, max_attempts, fingerprint,"
            " state, result, finished_at) VALUES (%s, %s, %s, 'r', 'embedding', %s, 'normal', 1, 'f', 'succeeded', %s,"
            " now())",
            [org_id, task_id, user_id, json.dumps({"texts": [WORD]}).encode(), json.dumps([WORD]).encode()],
        )
    caller = Principal(
        user_id=user_id, org_id=org_id, username="u", role="owner", permissions=ROLE_PERMISSIONS["owner"]
    )
    return caller, recording_id, task_id


def _long(n: int) -> str:
    """A text that does not compress well."""
    return WORD.join(hashlib.sha256(f"{n}/{i}".encode()).hexdigest() for i in range(200))


def _raw(owner_url: str) -> bytes:
    """The files of every table and index of the database, TOAST tables and statistics too, as they are on disk."""
    with psycopg.connect(owner_url, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
        rows = conn.execute(
            "SELECT pg_read_binary_file(pg_relation_filepath(oid)) FROM pg_class"
            " WHERE relkind IN ('r', 't', 'i') AND NOT relisshared"
        ).fetchall()
    return b"".join(row[0] for row in rows)


async def test_what_was_plain_is_sealed_readable_and_searchable(old: Migrated) -> None:
    """Every kind of row, with its vector; words and vectors find what they found; no file of a table has the word."""
    caller, recording_id, task_id = _fill(old.owner_url)
    with psycopg.connect(old.owner_url, autocommit=True) as conn:
        conn.execute("ANALYZE")
        sampled = conn.execute("SELECT count(*) FROM pg_stats WHERE most_common_vals::text ~ %s", [WORD]).fetchone()
        assert sampled is not None
        assert sampled[0] > 0
    assert WORD.encode() in _raw(old.owner_url)
    assert schema.upgrade(old.owner_url, app_password=None, keys=KEYS).up_to_date
    assert WORD.encode() not in _raw(old.owner_url)
    db = Database(old.app_url, max_size=4, keys=KEYS)
    await db.open()
    try:
        await _check(db, caller, recording_id, task_id)
    finally:
        await db.close()


async def _check(db: Database, caller: Principal, recording_id: UUID, task_id: UUID) -> None:
    async with db.tenant(caller) as conn:
        rows = await memories.recent(conn, org_id=caller.org_id, limit=99, before=None, where=MemoryFilter())
        (recording,) = await recordings.recent(conn, limit=9)
        segments = await recordings.segments(conn, recording_id)
        steps = await recordings.steps(conn, recording_id)
        result = await tasks.result(conn, task_id)
        payload = await (await conn.execute("SELECT payload FROM tasks")).fetchone() or {}
        assert json.loads(conn.vault.open(payload["payload"], f"tasks/{task_id}/payload")) == {"texts": [WORD]}
    assert len(rows) == ROWS
    assert {row.title for row in rows} == {f"t{n} {WORD}" for n in range(ROWS)}
    long = next(row for row in rows if row.metadata["n"] == 7)
    assert (long.content, long.tags, long.keywords) == (f"{WORD} number7 {_long(7)}", [WORD], [WORD])
    assert sum(row.recording_id == recording_id for row in rows) == ROWS // 2
    assert (recording.title, recording.context, recording.filename) == (
        f"title {WORD}",
        f"context {WORD}",
        f"{WORD}.wav",
    )
    assert [segment.text for segment in segments] == [f"said {WORD} {n}" for n in range(ROWS)]
    assert segments[0].words == [{"word": WORD}]
    assert steps["transcribe"]["text"].startswith(f"step {WORD}")
    assert json.loads(result.data or b"") == [WORD]
    found = await TenantMemories(db, caller).search(
        query="number21", vector=unit_vector(seed=5), model="m", limit=3, where=MemoryFilter(tags=[WORD])
    )
    assert found.rows[found.keyword[0].id].content == f"{WORD} number21 "
    assert found.rows[found.dense[0].id].metadata["n"] == 5
    assert np.isclose(found.dense[0].score, 1, atol=1e-3)


async def test_without_the_master_key_nothing_is_changed(old: Migrated) -> None:
    """The migration stops before it touches anything, and says what to run."""
    _fill(old.owner_url)
    with pytest.raises(RuntimeError, match="neuroedge db upgrade"):
        schema.upgrade(old.owner_url, app_password=None, keys=None)
    assert schema.status(old.owner_url).current == "0002"
