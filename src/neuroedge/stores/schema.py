"""The schema's version: bring a database up to date, and tell where it stands.

Migrations run as the owner; the application's role (no superuser, no BYPASSRLS, owner of nothing) is made here, so
that it exists before a migration grants to it.
"""

import re
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from neuroedge.contract.errors import Unavailable, VaultLocked
from neuroedge.contract.vault import Keys

HEAD = "0024"
"""Newest revision; a test compares it with the migration scripts, so that start-up need not import Alembic."""
_SEALED_SINCE = "0003"
"""Before this revision content was stored in plain text."""
_PROVEN_KEYS = 8
_MIGRATION_LOCK = 0x4E45_5552_4F45


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """Where a database stands."""

    current: str | None
    head: str

    @property
    def up_to_date(self) -> bool:
        """Whether nothing is left to do."""
        return self.current == self.head


def connect(url: str) -> psycopg.Connection[Any]:
    """A plain connection. Raises Unavailable without the connection string or password in its text."""
    try:
        return psycopg.connect(url, connect_timeout=10)
    except psycopg.Error as error:
        # `from None`: the driver's own text may hold the password, and a log would show the cause.
        raise Unavailable(
            f"PostgreSQL does not answer: {_reason(url, error)}", hint="check POSTGRES_URL and the server"
        ) from None


def _reason(url: str, error: psycopg.Error) -> str:
    """The driver's words where they hold nothing secret.

    A password with an unescaped @, / or : is taken for a part of host, port or database, which the driver names.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "its connection string cannot be read"
    host, port, database = (str(parts.get(name) or "") for name in ("host", "port", "dbname"))
    plain = re.fullmatch(r"[\w./:,%~ -]*", host) and re.fullmatch(r"[\d,]*", port) and "@" not in database
    if not plain:
        return "its connection string is misread; percent-encode the special characters of the password"
    text, password = str(error), str(parts.get("password") or "")
    if password and password in text:
        return f"{type(error).__name__} at {host or 'its socket'}{port and ':' + port}"
    return text


def status(owner_url: str) -> SchemaStatus:
    """Read the schema version; `current` is None for an empty database."""
    with closing(connect(owner_url)) as conn:
        if conn.execute("SELECT to_regclass('public.schema_version')").fetchone() == (None,):
            return SchemaStatus(current=None, head=HEAD)
        row = conn.execute("SELECT version_num FROM public.schema_version").fetchone()
    return SchemaStatus(current=row[0] if row else None, head=HEAD)


def upgrade(owner_url: str, *, app_password: str | None, keys: Keys | None = None) -> SchemaStatus:
    """Bring the schema to HEAD; does nothing when it is there. Safe when several processes start at once.

    `app_password` None: the role neuroedge_app is the operator's own and is left as it is. `keys` seal content that
    an older schema kept in plain text, and must open what is stored: VaultLocked tells of a wrong master key at the
    start rather than with the first request.
    """
    with closing(connect(owner_url)) as conn:
        conn.autocommit = True
        conn.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])  # ends with the connection
        _ensure_app_role(conn, app_password)
        before = status(owner_url)
        if not before.up_to_date:
            _run_alembic(owner_url, keys)
        if before.current is not None and before.current < _SEALED_SINCE:
            # Former versions of rows, dropped columns and samples of values stay in the files until written anew.
            conn.execute("VACUUM (FULL, ANALYZE) recordings, segments, recording_steps, tasks")
            conn.execute("VACUUM FULL pg_catalog.pg_statistic")
        if keys is not None:
            _prove(conn, keys)
    return status(owner_url)


def _prove(conn: psycopg.Connection[Any], keys: Keys) -> None:
    """Unwrap the keys of an organisation, if there is one. Raises VaultLocked when the first few all stay locked."""
    locked: VaultLocked | None = None
    for org_id, wrapped in conn.execute("SELECT org_id, wrapped FROM tenant_keys LIMIT %s", [_PROVEN_KEYS]):
        try:
            keys.cipher(bytes(wrapped), f"tenant_keys/{org_id}")
            return
        except VaultLocked as error:  # one organisation's keys may be lost; not everybody's
            locked = error
    if locked is not None:
        raise locked


def _ensure_app_role(conn: psycopg.Connection[Any], password: str | None) -> None:
    exists = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = 'neuroedge_app'").fetchone()
    if not exists:
        conn.execute("CREATE ROLE neuroedge_app NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE LOGIN")
    if password is not None:
        conn.execute(sql.SQL("ALTER ROLE neuroedge_app PASSWORD {}").format(sql.Literal(password)))


def _run_alembic(owner_url: str, keys: Keys | None) -> None:
    # Imported here: SQLAlchemy and Alembic cost 0.4 s that a start with an up-to-date schema need not pay.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("neuroedge.stores") / "migrations"))
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(owner_url))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            config.attributes["keys"] = keys
            command.upgrade(config, "head")
    finally:
        engine.dispose()
