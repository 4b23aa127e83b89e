"""Usage and audit: append-only (the application's role may not change or delete a row)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic_core import to_json

from neuroedge.stores.ids import new_id
from neuroedge.stores.kept_connection import KeptConnection
from neuroedge.stores.postgres import Connection, Database

_COLUMNS = "org_id, id, user_id, request_id, engine, outcome, seconds, prompt_tokens, completion_tokens, created_at"
# One statement, so one round trip and one transaction of its own: the organisation is bound for it alone, before a
# row is there that the policy could be asked about. A row that is there already came with an attempt whose answer
# was lost.
_ADD_USAGE = (
    "WITH bound AS MATERIALIZED (SELECT set_config('app.current_org_id', %s, true),"
    " set_config('synchronous_commit', %s, true))"
    f" INSERT INTO usage ({_COLUMNS}) SELECT {_COLUMNS}"
    " FROM bound, json_populate_recordset(NULL::usage, %s::json) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One engine call; `outcome` is "ok" or an error code. Its id is made with it: writing it twice is once."""

    id: UUID
    org_id: UUID
    user_id: UUID
    request_id: str
    engine: str
    outcome: str
    seconds: float
    created_at: datetime
    prompt_tokens: int = 0
    completion_tokens: int = 0


class UsageTable:
    """Appends usage rows over one connection that it keeps: a row must not cost a visit to the pool.

    `to_disk`: the rows of an `add` that returned survive a crash of PostgreSQL and of the machine. Without it they
    survive the end of this process, however it ends; a crash of PostgreSQL or the machine can lose the last second.
    """

    def __init__(self, db: Database, *, to_disk: bool) -> None:
        self._kept = KeptConnection(db)
        self._commit = "on" if to_disk else "off"

    async def add(self, rows: Iterable[UsageRow]) -> None:
        """Write rows of any organisations, each organisation's in a transaction of its own.

        Raises Unavailable when it should be tried again (rows written by then are not doubled), InvalidInput when the
        database refuses a row.
        """
        async with self._kept.use() as conn:
            for org_id, own in groupby(sorted(rows, key=_org), key=_org):
                await conn.execute(_ADD_USAGE, [str(org_id), self._commit, to_json(list(own)).decode()])

    async def close(self) -> None:
        """Give the connection back as it was; the next `add` takes another."""
        await self._kept.close()


def _org(row: UsageRow) -> UUID:
    return row.org_id


async def add_audit(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID | None,
    request_id: str,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Who did what to which thing; never content."""
    await conn.execute(
        "INSERT INTO audit (org_id, id, user_id, request_id, action, target, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [org_id, new_id(), user_id, request_id, action, target, Jsonb(dict(detail or {}))],
    )
