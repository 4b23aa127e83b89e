"""Waiting jobs that outlive who ordered them, because somebody else waits for what they do."""

from typing import Final
from uuid import UUID

from neuroedge.contract.principal import NOBODY
from neuroedge.stores.postgres import Connection

_THINGS: Final = {"document_id": "documents", "artifact_id": "artifacts", "recording_id": "recordings"}
"""What a job may be about, by the argument that names it; whoever owns it waits for the job."""
_THEIRS: Final = "j.status = 'todo' AND j.args ->> 'org_id' = %(org)s::text AND j.args ->> 'user_id' = %(user)s::text"
_UNNAMED: Final = """CASE WHEN j.args ? 'username' THEN '{"username": ""}'::jsonb ELSE '{}'::jsonb END"""


async def hand_over(conn: Connection, *, org_id: UUID, user_id: UUID) -> None:
    """Let a user's waiting jobs name somebody else, where they serve the organisation or another one's thing.

    A job about a thing becomes its owner's; the rebuild of the index, which the organisation orders once, nobody's.
    Jobs hold ids, a role and the user's name, no content. The transaction must see all of the organisation's rows.
    """
    given = {"org": org_id, "user": user_id, "nobody": NOBODY}
    for argument, table in _THINGS.items():
        await conn.execute(
            "UPDATE procrastinate_jobs j SET args = j.args || jsonb_build_object('user_id', t.user_id)"
            f" || {_UNNAMED} FROM {table} t WHERE {_THEIRS} AND t.org_id = %(org)s AND t.user_id <> %(user)s"
            f" AND t.id = (j.args ->> '{argument}')::uuid",
            given,
        )
    await conn.execute(
        "UPDATE procrastinate_jobs j SET args = j.args || jsonb_build_object('user_id', %(nobody)s::uuid)"
        f" WHERE {_THEIRS} AND j.args ? 'rebuild_id'",
        given,
    )
