"""Messages of chat sessions: a tree by `parent_id`, so that an edited question or another answer is a branch.

A message being generated is a row in the state running. Whoever changes messages holds their session's row
(`chat_sessions.lock`), so that a session deleted meanwhile is gone for good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.chat import Role
from neuroedge.stores.postgres import Connection

State = Literal["running", "done", "failed", "cancelled"]
Rating = Literal["up", "down"]
_NAMES: Final = (
    "id",
    "session_id",
    "user_id",
    "parent_id",
    "role",
    "state",
    "rating",
    "sealed",
    "feedback",
    "created_at",
    "updated_at",
)
_COLUMNS: Final = ", ".join(_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer took, all its calls to language models together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, those that were not computed anew."""
    cost: str = "0"
    """In US dollars, as a decimal number."""
    unpriced: bool = False
    """A model without a known price took part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer, or not all of it; as the errors of `contract.errors` say it."""

    code: str
    detail: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a message holds; sealed. Mappings hold JSON values."""

    content: str = ""
    attachments: Sequence[UUID] = ()
    citations: Sequence[Mapping[str, Any]] = ()
    artifacts: Sequence[UUID] = ()
    tool_calls: Sequence[Mapping[str, Any]] = ()
    usage: Usage | None = None
    trace: Sequence[Mapping[str, Any]] = ()
    """The steps that led to the answer, in order."""
    model: str | None = None
    """Who answered, as `provider/model`."""
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What the user thinks of an answer."""

    rating: Rating
    reason: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Body):
    """A message and its place in the session's tree."""

    id: UUID
    session_id: UUID
    user_id: UUID
    parent_id: UUID | None
    role: Role
    state: State
    feedback: Feedback | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message to store."""

    id: UUID
    session_id: UUID
    parent_id: UUID | None
    role: Role
    state: State
    body: Body
    created_at: datetime | None = None
    """Now when not given."""


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, items: Sequence[NewMessage]) -> None:
    """Store messages, parents first. The parent must be of the same session."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO chat_messages (org_id, id, session_id, user_id, parent_id, role, state, sealed, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()))",
            [
                (
                    *(org_id, item.id, item.session_id, user_id, item.parent_id, item.role, item.state),
                    conn.vault.seal(_plain(item.body), _context(item.id)),
                    item.created_at,
                )
                for item in items
            ],
        )


async def find(conn: Connection, message_id: UUID) -> Message | None:
    """One message the caller may see."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM chat_messages WHERE id = %s", [message_id])
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def find_all(conn: Connection, message_ids: Sequence[UUID]) -> dict[UUID, Message]:
    """Those of these messages the caller may see."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM chat_messages WHERE id = ANY(%s)", [list(message_ids)])
    return {row["id"]: _opened(conn, row) for row in await cursor.fetchall()}


async def path(conn: Connection, *, session_id: UUID, leaf_id: UUID, limit: int | None = None) -> list[Message]:
    """From the root, or with `limit` from so many messages up, down to a message; none when it is not the session's."""
    cursor = await conn.execute(
        "WITH RECURSIVE up AS ("
        " SELECT m.*, 1 AS depth FROM chat_messages m WHERE m.session_id = %(session)s AND m.id = %(leaf)s"
        " UNION ALL SELECT m.*, up.depth + 1 FROM up JOIN chat_messages m ON m.org_id = up.org_id"
        " AND m.session_id = up.session_id AND m.id = up.parent_id"
        " WHERE %(limit)s::integer IS NULL OR up.depth < %(limit)s"
        f") SELECT {_COLUMNS} FROM up ORDER BY depth DESC",
        {"session": session_id, "leaf": leaf_id, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def siblings(
    conn: Connection, *, session_id: UUID, parent_ids: Sequence[UUID | None]
) -> dict[UUID | None, list[UUID]]:
    """The children of each of these messages, the oldest first; of None, the session's first messages."""
    cursor = await conn.execute(
        "SELECT id, parent_id FROM chat_messages WHERE session_id = %s"
        " AND (parent_id = ANY(%s) OR (%s AND parent_id IS NULL)) ORDER BY id",
        [session_id, [i for i in parent_ids if i is not None], None in parent_ids],
    )
    found: dict[UUID | None, list[UUID]] = {}
    for row in await cursor.fetchall():
        found.setdefault(row["parent_id"], []).append(row["id"])
    return found


async def newest_below(conn: Connection, *, session_id: UUID, message_id: UUID) -> UUID:
    """The end of the branch one comes to from a message by always taking its newest child."""
    cursor = await conn.execute(
        "WITH RECURSIVE down AS (SELECT %(message)s::uuid AS id, 0 AS depth"
        " UNION ALL SELECT c.id, down.depth + 1 FROM down CROSS JOIN LATERAL ("
        " SELECT m.id FROM chat_messages m WHERE m.session_id = %(session)s AND m.parent_id = down.id"
        " ORDER BY m.id DESC LIMIT 1) c) SELECT id FROM down ORDER BY depth DESC LIMIT 1",
        {"message": message_id, "session": session_id},
    )
    row = await cursor.fetchone()
    assert row is not None
    newest: UUID = row["id"]
    return newest


async def newest_root(conn: Connection, session_id: UUID) -> UUID | None:
    """The latest of a session's first messages."""
    cursor = await conn.execute(
        "SELECT id FROM chat_messages WHERE session_id = %s AND parent_id IS NULL ORDER BY id DESC LIMIT 1",
        [session_id],
    )
    row = await cursor.fetchone()
    return row["id"] if row else None


async def count(conn: Connection, session_id: UUID) -> int:
    """Messages of all branches."""
    cursor = await conn.execute("SELECT count(*) AS n FROM chat_messages WHERE session_id = %s", [session_id])
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def all_of(conn: Connection, session_id: UUID, *, limit: int) -> list[Message]:
    """Every branch, the oldest first, so that parents come before their children."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM chat_messages WHERE session_id = %s ORDER BY id LIMIT %s", [session_id, limit]
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def finish(conn: Connection, message_id: UUID, *, body: Body, state: State) -> bool:
    """Store how a running message ended; whether it was still running."""
    cursor = await conn.execute(
        "UPDATE chat_messages SET sealed = %s, state = %s, updated_at = now() WHERE id = %s AND state = 'running'",
        [conn.vault.seal(_plain(body), _context(message_id)), state, message_id],
    )
    return cursor.rowcount == 1


async def reopen(conn: Connection, message_id: UUID) -> bool:
    """Let a message that failed run again; whether it had failed."""
    cursor = await conn.execute(
        "UPDATE chat_messages SET state = 'running', updated_at = now() WHERE id = %s AND state = 'failed'",
        [message_id],
    )
    return cursor.rowcount == 1


async def set_feedback(conn: Connection, message_id: UUID, feedback: Feedback | None) -> None:
    """Store or remove what the user thinks of it."""
    sealed = None
    if feedback is not None:
        told = {"reason": feedback.reason, "comment": feedback.comment}
        sealed = conn.vault.seal(told, _feedback_context(message_id))
    await conn.execute(
        "UPDATE chat_messages SET rating = %s, feedback = %s, updated_at = now() WHERE id = %s",
        [feedback and feedback.rating, sealed, message_id],
    )


async def delete(conn: Connection, *, session_id: UUID, message_id: UUID) -> list[UUID]:
    """Delete a message with all that follows it, and what these are found by; their ids."""
    cursor = await conn.execute(
        "WITH RECURSIVE below AS (SELECT id FROM chat_messages WHERE session_id = %(session)s AND id = %(message)s"
        " UNION ALL SELECT m.id FROM below JOIN chat_messages m ON m.session_id = %(session)s"
        " AND m.parent_id = below.id) SELECT id FROM below",
        {"session": session_id, "message": message_id},
    )
    ids = [row["id"] for row in await cursor.fetchall()]
    await conn.execute(
        "DELETE FROM memories m USING chat_messages c WHERE c.id = ANY(%s) AND m.org_id = c.org_id AND m.id = c.id",
        [ids],
    )
    await conn.execute("DELETE FROM chat_messages WHERE id = ANY(%s)", [ids])
    return ids


async def abandoned(conn: Connection, before: datetime, *, limit: int) -> list[Message]:
    """Messages that were begun, or taken up again, before that time and have not ended; the transaction must see all of
    them."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM chat_messages WHERE state = 'running' AND updated_at < %s ORDER BY id LIMIT %s",
        [before, limit],
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


def _plain(body: Body) -> dict[str, Any]:
    return {
        "content": body.content,
        "attachments": [str(i) for i in body.attachments],
        "citations": [dict(one) for one in body.citations],
        "artifacts": [str(i) for i in body.artifacts],
        "tool_calls": [dict(one) for one in body.tool_calls],
        "usage": body.usage and asdict(body.usage),
        "trace": [dict(one) for one in body.trace],
        "model": body.model,
        "error": body.error and asdict(body.error),
    }


def _opened(conn: Connection, row: dict[str, Any]) -> Message:
    row = {name: row[name] for name in _NAMES}
    body = conn.vault.open(row.pop("sealed"), _context(row["id"]))
    told, rating = row.pop("feedback"), row.pop("rating")
    if told is not None:
        told = Feedback(rating=rating, **conn.vault.open(told, _feedback_context(row["id"])))
    return Message(
        **row,
        feedback=told,
        content=body["content"],
        attachments=[UUID(i) for i in body["attachments"]],
        citations=body["citations"],
        artifacts=[UUID(i) for i in body["artifacts"]],
        tool_calls=body["tool_calls"],
        usage=Usage(**body["usage"]) if body["usage"] else None,
        trace=body["trace"],
        model=body["model"],
        error=Failure(**body["error"]) if body["error"] else None,
    )


def _context(message_id: UUID) -> str:
    return f"chat_messages/{message_id}"


def _feedback_context(message_id: UUID) -> str:
    return f"chat_messages/{message_id}/feedback"
