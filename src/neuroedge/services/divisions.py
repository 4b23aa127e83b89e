"""Divisions: made, named, deleted, and given members by who manages the organisation. A user is in one at most."""

from dataclasses import dataclass
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.services.audit import audited
from neuroedge.stores import divisions
from neuroedge.stores.divisions import Division, Member
from neuroedge.stores.postgres import Connection, Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """The divisions by name, and every user of the organisation by name."""

    divisions: list[Division]
    members: list[Member]


class Divisions:
    """Divisions of the caller's organisation; every change writes an audit row."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def list(self, principal: Principal) -> Staff:
        """All of them."""
        async with self._db.tenant(principal) as conn:
            return Staff(
                divisions=await divisions.every(conn, principal.org_id),
                members=await divisions.members(conn, principal.org_id),
            )

    async def create(self, principal: Principal, *, name: str, request_id: str) -> Division:
        """Make one. Raises Conflict when the name is taken."""
        async with self._db.tenant(principal) as conn:
            made = await divisions.insert(conn, org_id=principal.org_id, name=name)
            await _audit(conn, principal, request_id, "division.created", made.id)
        return made

    async def rename(self, principal: Principal, division_id: UUID, *, name: str, request_id: str) -> Division:
        """Give one another name. Raises NotFound, Conflict when the name is taken."""
        async with self._db.tenant(principal) as conn:
            renamed = await divisions.rename(conn, org_id=principal.org_id, division_id=division_id, name=name)
            if renamed is None:
                raise _not_found(division_id)
            await _audit(conn, principal, request_id, "division.renamed", division_id)
        return renamed

    async def delete(self, principal: Principal, division_id: UUID, *, request_id: str) -> None:
        """Delete one. Raises NotFound, Conflict while anybody or anything belongs to it."""
        async with self._db.tenant(principal) as conn:
            if not await divisions.delete(conn, org_id=principal.org_id, division_id=division_id):
                raise _not_found(division_id)
            await _audit(conn, principal, request_id, "division.deleted", division_id)

    async def assign(self, principal: Principal, division_id: UUID, user_id: UUID, *, request_id: str) -> None:
        """Put a user into a division, out of any other. Raises NotFound for either."""
        async with self._db.tenant(principal) as conn:
            if not await divisions.exists(conn, org_id=principal.org_id, division_id=division_id):
                raise _not_found(division_id)
            if not await divisions.assign(conn, org_id=principal.org_id, user_id=user_id, division_id=division_id):
                raise _no_member(user_id)
            await _audit(conn, principal, request_id, "division.joined", division_id, user_id)

    async def remove(self, principal: Principal, division_id: UUID, user_id: UUID, *, request_id: str) -> None:
        """Take a user out of a division. Raises NotFound when the user is not in it."""
        async with self._db.tenant(principal) as conn:
            if not await divisions.leave(conn, org_id=principal.org_id, user_id=user_id, division_id=division_id):
                raise _no_member(user_id)
            await _audit(conn, principal, request_id, "division.left", division_id, user_id)


async def _audit(
    conn: Connection, principal: Principal, request_id: str, action: str, division_id: UUID, user_id: UUID | None = None
) -> None:
    await audited(
        conn,
        principal,
        request_id=request_id,
        action=action,
        target=f"division:{division_id}",
        detail={"user": str(user_id)} if user_id else None,
    )


def _not_found(division_id: UUID) -> NotFound:
    return NotFound(f"no division {division_id}", hint="GET /v1/divisions lists yours")


def _no_member(user_id: UUID) -> NotFound:
    return NotFound(f"no member {user_id} here", hint="GET /v1/divisions lists your organisation's members")
