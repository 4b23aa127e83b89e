"""The list of sealed columns is complete, and what it says of each is true."""

import base64
from pathlib import Path

import psycopg
import pytest

from neuroedge.stores import resealing
from neuroedge.stores.postgres import Database
from tests.everything_stored import store_everything
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio
OTHER_BYTES = {
    ("tenant_keys", "wrapped"),
    ("refresh_tokens", "token_hash"),
    ("api_keys", "secret_hash"),
    ("tasks", "fingerprint"),
    ("batches", "fingerprint"),
    ("turns", "fingerprint"),
}
"""Columns of bytes that hold no sealed content: wrapped keys and hashes."""


def test_every_column_of_bytes_is_sealed_or_known_not_to_be(migrated: Migrated) -> None:
    """A new table with sealed content that rotation and export do not know fails here."""
    with psycopg.connect(migrated.owner_url) as conn:
        found = conn.execute(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " AND a.attnum > 0 AND NOT a.attisdropped AND (a.atttypid = 'bytea'::regtype OR a.attname = 'sealed')"
        ).fetchall()
        keys: dict[str, list[str]] = dict(
            conn.execute(
                "SELECT c.relname, array(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = c.oid"
                " AND a.attnum = ANY(i.indkey::int2[])) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
                " WHERE i.indisprimary AND c.relnamespace = 'public'::regnamespace"
            ).fetchall()
        )
    assert set(found) - OTHER_BYTES == {(sealed.table, sealed.column) for sealed in resealing.SEALED}
    for sealed in resealing.SEALED:
        assert {"org_id", *sealed.key} == set(keys[sealed.table]), sealed.table


def _said(value: object) -> str:
    """What was sealed; what holds any bytes is sealed as base64."""
    text = str(value)
    return text if "word" in text else base64.b64decode(text).decode(errors="replace")


async def test_every_column_opens_in_its_place_and_is_resealed_in_batches(db: Database) -> None:
    """Nothing is outdated at first; under a prefix of no key all of it is, and batches go through all rows once."""
    caller = await new_principal(db)
    await store_everything(db, caller, "word")
    async with db.tenant(caller, sees_all=True) as conn:
        prefix = resealing.key_prefix(conn.vault)
        assert await resealing.count_outdated(conn, org_id=caller.org_id, prefix=prefix) == 0
        expected = await resealing.count_outdated(conn, org_id=caller.org_id, prefix=b"\x01none")
        assert expected >= 15
        total = 0
        for sealed in resealing.SEALED:
            after = None
            while True:
                count, after = await resealing.reseal(
                    conn, sealed, org_id=caller.org_id, prefix=b"\x01none", after=after, limit=1
                )
                total += count
                if after is None:
                    break
            cursor = await conn.execute(
                f"SELECT {', '.join(sealed.key)}, {sealed.column} AS value FROM {sealed.table} WHERE org_id = %s",
                [caller.org_id],
            )
            for row in await cursor.fetchall():
                assert "word" in _said(conn.vault.open(row["value"], sealed.place(row))), sealed.table
        assert total == expected


def test_every_column_that_could_hold_content_in_plain_is_in_the_documentation(migrated: Migrated) -> None:
    """docs/security.md names each column of text or JSON, with what stands in it."""
    documented = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    with psycopg.connect(migrated.owner_url) as conn:
        found = conn.execute(
            "SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " AND c.relname <> 'schema_version' AND a.attnum > 0 AND NOT a.attisdropped"
            " AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'jsonb'::regtype, 'json'::regtype,"
            " 'text[]'::regtype, 'tsvector'::regtype) ORDER BY 1"
        ).fetchall()
    assert len(found) > 20
    assert [column for (column,) in found if f"`{column}`" not in documented] == []
