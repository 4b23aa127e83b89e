"""The schema's version and its migrations."""

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import neuroedge.stores.migrations
from neuroedge.contract.errors import Unavailable
from neuroedge.stores import schema
from tests.stores.conftest import Migrated


def test_head_is_the_newest_migration() -> None:
    """The constant that spares start-up an import of Alembic is right."""
    config = Config()
    config.set_main_option("script_location", neuroedge.stores.migrations.__path__[0])
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_upgrading_twice_changes_nothing(migrated: Migrated) -> None:
    """An up-to-date database stays as it is."""
    assert schema.status(migrated.owner_url).up_to_date
    assert schema.upgrade(migrated.owner_url, app_password=None).current == schema.HEAD


def test_vector_tables_are_hash_partitioned_and_indexed_by_hnsw(migrated: Migrated) -> None:
    """Sixteen partitions by organisation for each size of vector, each with an HNSW index over halfvec."""
    with psycopg.connect(migrated.owner_url) as conn:
        for dim in (384, 768, 1024):
            partitions = conn.execute(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass", [f"memory_vectors_{dim}"]
            ).fetchone()
            indexes = conn.execute(
                "SELECT count(*) FROM pg_indexes WHERE tablename ~ %s AND indexdef LIKE %s",
                [f"^memory_vectors_{dim}_p[0-9]+$", "%hnsw%halfvec_cosine_ops%"],
            ).fetchone()
            assert partitions == (16,)
            assert indexes == (16,)


def test_every_key_holds_the_tenant(migrated: Migrated) -> None:
    """Tables of a tenant have org_id first in their primary key, so that they can be sharded by it."""
    with psycopg.connect(migrated.owner_url) as conn:
        rows = conn.execute(
            "SELECT c.relname, (SELECT attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0])"
            " FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
            " JOIN pg_attribute o ON o.attrelid = c.oid AND o.attname = 'org_id'"
            " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert len(rows) >= 10
    assert {first for _, first in rows} == {"org_id"}


def test_an_unreachable_server_is_a_clear_error() -> None:
    """The message names what to check and never shows a password."""
    with pytest.raises(Unavailable) as caught:
        schema.status("postgresql://u:hidden-word@127.0.0.1:1/db")
    assert "hidden-word" not in caught.value.detail
    assert "POSTGRES_URL" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://u:hidden-word@127.0.0.1:1/db",
        "postgresql://u:hidden-word@127.0.0.1:1/db?ssl=require",
        "postgresql://u:x@hidden-word@127.0.0.1:1/db",
        "postgresql://u:hidden-word/x@127.0.0.1:1/db",
        "postgresql://u:1/hidden-word@127.0.0.1:1/db",
        "postgresql://u@hidden-word:hidden-word/db",
    ],
)
def test_no_misread_connection_string_shows_its_password(url: str) -> None:
    """Neither in the message nor in a cause that a log would print."""
    with pytest.raises(Unavailable) as caught:
        schema.connect(url)
    assert "hidden-word" not in caught.value.detail
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "POSTGRES_URL" in (caught.value.hint or "")


def test_a_refused_connection_names_host_and_port() -> None:
    """What an operator needs to see."""
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1.*port 1"):
        schema.connect("postgresql://u:hidden-word@127.0.0.1:1/db")
