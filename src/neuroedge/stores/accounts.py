"""Organisations, users, memberships and refresh tokens."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from neuroedge.contract.errors import Conflict
from neuroedge.contract.principal import Role
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, bind


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What is known of a user at login."""

    user_id: UUID
    username: str
    password_hash: str
    admin: bool
    org_id: UUID
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A stored refresh token."""

    id: UUID
    user_id: UUID
    family_id: UUID
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


async def create_user_with_organisation(
    conn: Connection, *, username: str, email: str, password_hash: str, organisation: str, admin: bool
) -> Login:
    """A user who owns a new organisation; binds the transaction to it. Raises Conflict when the name is taken."""
    user_id, org_id = new_id(), new_id()
    await bind(conn, org_id)
    await conn.execute("INSERT INTO organisations (id, name) VALUES (%s, %s)", [org_id, organisation])
    try:
        await conn.execute(
            "INSERT INTO users (id, username, email, password_hash, admin) VALUES (%s, %s, %s, %s, %s)",
            [user_id, username, email, password_hash, admin],
        )
    except psycopg.errors.UniqueViolation as error:
        raise Conflict("this username or email is already registered", hint="log in, or choose another") from error
    await conn.execute("INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, 'owner')", [org_id, user_id])
    return Login(
        user_id=user_id, username=username, password_hash=password_hash, admin=admin, org_id=org_id, role="owner"
    )


async def find_login(conn: Connection, login: str) -> Login | None:
    """The user of an exact username or email, whatever organisation; None when there is none."""
    cursor = await conn.execute("SELECT * FROM find_login(%s)", [login])
    row = await cursor.fetchone()
    return Login(**row) if row else None


async def member(conn: Connection, user_id: UUID) -> Login | None:
    """A user as member of the transaction's organisation; None when no longer one."""
    cursor = await conn.execute(
        "SELECT u.id AS user_id, u.username, u.password_hash, u.admin, m.org_id, m.role"
        " FROM users u JOIN memberships m ON m.user_id = u.id WHERE u.id = %s",
        [user_id],
    )
    row = await cursor.fetchone()
    return Login(**row) if row else None


async def set_password_hash(conn: Connection, user_id: UUID, password_hash: str) -> None:
    """Replace a hash, for example by one with stronger parameters."""
    await conn.execute("UPDATE users SET password_hash = %s WHERE id = %s", [password_hash, user_id])


async def add_refresh_token(
    conn: Connection, *, org_id: UUID, user_id: UUID, family_id: UUID, token_hash: bytes, expires_at: datetime
) -> None:
    """Store a token's hash; the token itself is never stored."""
    await conn.execute(
        "INSERT INTO refresh_tokens (org_id, id, user_id, family_id, token_hash, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [org_id, new_id(), user_id, family_id, token_hash, expires_at],
    )


async def lock_refresh_token(conn: Connection, token_hash: bytes) -> RefreshToken | None:
    """Find a token and hold its row until the transaction ends, so that two refreshes at once can't both win."""
    cursor = await conn.execute(
        "SELECT id, user_id, family_id, expires_at, used_at, revoked_at FROM refresh_tokens"
        " WHERE token_hash = %s FOR UPDATE",
        [token_hash],
    )
    row = await cursor.fetchone()
    return RefreshToken(**row) if row else None


async def mark_used(conn: Connection, token_id: UUID) -> None:
    """A token was exchanged."""
    await conn.execute("UPDATE refresh_tokens SET used_at = now() WHERE id = %s", [token_id])


async def revoke_family(conn: Connection, family_id: UUID) -> None:
    """End every token that descends from one login."""
    await conn.execute(
        "UPDATE refresh_tokens SET revoked_at = now() WHERE family_id = %s AND revoked_at IS NULL", [family_id]
    )


async def delete_expired_tokens(conn: Connection) -> None:
    """Forget tokens a day after they expired."""
    await conn.execute("DELETE FROM refresh_tokens WHERE expires_at < now() - interval '1 day'")
