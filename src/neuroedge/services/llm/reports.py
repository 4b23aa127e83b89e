"""What calls to language models came to: everyone sees their own, who manages the organisation all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.stores import llm_calls
from neuroedge.stores.llm_calls import GroupBy, LedgerRow, Sums
from neuroedge.stores.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Sums by group, and of all."""

    groups: Sequence[Sums]
    total: Sums


class UsageReports:
    """Reads the ledger."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def sums(self, principal: Principal, *, since: datetime, until: datetime, group_by: GroupBy) -> Report:
        """Of calls that began in [since, until)."""
        async with self._db.tenant(principal) as conn:
            facts = {"org_id": principal.org_id, "since": since, "until": until, "user_id": _whose(principal)}
            return Report(
                groups=await llm_calls.sums(conn, **facts, group_by=group_by),  # type: ignore[arg-type]
                total=await llm_calls.total(conn, **facts),  # type: ignore[arg-type]
            )

    async def page(
        self, principal: Principal, *, since: datetime, until: datetime, before: UUID | None, limit: int
    ) -> list[LedgerRow]:
        """Calls, the latest first; older than the call `before`."""
        async with self._db.tenant(principal) as conn:
            return await llm_calls.page(
                conn,
                org_id=principal.org_id,
                since=since,
                until=until,
                user_id=_whose(principal),
                before=before,
                limit=limit,
            )


def _whose(principal: Principal) -> UUID | None:
    return None if principal.may(MANAGE_ORG) else principal.user_id
