"""Budgets for language models: what an organisation and its users may spend in a day and in a calendar month (UTC).

A soft limit warns, a hard one refuses a call before the provider is asked. What calls that are being made may cost at
most is set aside, so that a limit is passed by one call's cost at most, however many run at the same time. A call that
costs nothing is never refused.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import structlog
from cachetools import TTLCache

from neuroedge.contract.errors import BudgetExceeded, NeuroEdgeError
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.infra.events import Events
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.kept import Kept
from neuroedge.stores import ledgers, llm_budgets
from neuroedge.stores.llm_budgets import Budget, Period, Scope, Spending
from neuroedge.stores.llm_calls import Admission
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)

TOPIC: Final = "llm-budgets"
_KEPT_S: Final = 5.0
_WARNED_KEPT: Final = 10_000
_STANDINGS_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """US dollars in a period; None: no limit."""

    soft_usd: Decimal | None = None
    hard_usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for one user's calls."""

    org_day: Limit = Limit()
    org_month: Limit = Limit()
    user_day: Limit = Limit()
    user_month: Limit = Limit()

    def any(self) -> bool:
        """Whether anything is limited."""
        return self != NO_LIMITS

    def warn(self) -> bool:
        """Whether there is a soft one."""
        each = (self.org_day, self.org_month, self.user_day, self.user_month)
        return any(limit.soft_usd is not None for limit in each)


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One limit and what is spent of it."""

    scope: Scope
    """organisation; user: the caller's own, or the member's."""
    period: Period
    key: str
    """The period that runs now: 2026-11-21 or 2026-11."""
    soft_usd: Decimal | None
    hard_usd: Decimal | None
    cost_usd: Decimal
    reserved_usd: Decimal
    member_id: UUID | None = None

    @property
    def warns(self) -> bool:
        """Whether the soft limit is reached."""
        return self.soft_usd is not None and self.cost_usd + self.reserved_usd >= self.soft_usd


@dataclass(slots=True)
class _Warnings:
    """What this process knows to be warned of already, and which of it a user's calls should be told."""

    done: dict[tuple[UUID, str], None] = field(default_factory=dict)

    def first(self, subject: UUID, key: str) -> bool:
        if (subject, key) in self.done:
            return False
        self.done[subject, key] = None
        if len(self.done) > _WARNED_KEPT:
            self.done.pop(next(iter(self.done)))
        return True


class Budgets:
    """Budgets of organisations. `day_usd`, `month_usd`: the operator's hard limits for every organisation, 0 for none;
    an organisation's own can only be lower."""

    def __init__(
        self,
        *,
        db: Database,
        events: Events,
        clock: Clock,
        day_usd: Decimal = Decimal(0),
        month_usd: Decimal = Decimal(0),
    ) -> None:
        self._db = db
        self._events = events
        self._clock = clock
        self._most: Mapping[Period, Decimal | None] = {"day": day_usd or None, "month": month_usd or None}
        self._kept = Kept(self._load, kept_s=_KEPT_S)
        self._warned = _Warnings()
        self._standings: TTLCache[tuple[UUID, UUID], list[Standing]] = TTLCache(_STANDINGS_KEPT, ttl=_KEPT_S)
        self._warning: set[asyncio.Task[None]] = set()

    async def limits(self, org_id: UUID, user_id: UUID) -> Limits:
        """What holds for a user's calls; as they were some seconds ago at most. Raises Unavailable."""
        budgets = await self._kept.get(org_id)
        return Limits(
            org_day=self._of_organisation(budgets, "day"),
            org_month=self._of_organisation(budgets, "month"),
            user_day=_of_user(budgets, user_id, "day"),
            user_month=_of_user(budgets, user_id, "month"),
        )

    async def read(self, principal: Principal) -> list[Budget]:
        """The organisation's budgets as they were set."""
        async with self._db.tenant(principal) as conn:
            return await llm_budgets.every(conn, principal.org_id)

    async def replace(self, principal: Principal, budgets: Sequence[Budget], *, request_id: str) -> None:
        """These instead of the present ones. Raises NotFound for a user who is no member."""
        now = self._clock.now()
        async with self._db.tenant(principal) as conn:
            await llm_budgets.replace(conn, principal.org_id, budgets, periods=_keys(now))
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="llm.budgets_changed",
                target=f"organisation:{principal.org_id}",
                detail={"budgets": len(budgets)},
            )
        self._kept.forget(principal.org_id)
        self._warned = _Warnings()
        self._standings.clear()

    async def standing(self, principal: Principal) -> list[Standing]:
        """Each limit that holds for the caller, with what is spent of it; for who manages the organisation, those of
        single members too."""
        limits = await self.limits(principal.org_id, principal.user_id)
        day, month = _keys(self._clock.now())
        wanted: list[tuple[Scope, Period, UUID, Limit]] = [
            ("organisation", "day", principal.org_id, limits.org_day),
            ("organisation", "month", principal.org_id, limits.org_month),
            ("user", "day", principal.user_id, limits.user_day),
            ("user", "month", principal.user_id, limits.user_month),
        ]
        if principal.may(MANAGE_ORG):
            wanted += [
                ("user", budget.period, budget.member_id, Limit(soft_usd=budget.soft_usd, hard_usd=budget.hard_usd))
                for budget in await self.read(principal)
                if budget.member_id not in (None, principal.user_id) and budget.member_id is not None
            ]
        async with self._db.tenant(principal) as conn:
            spent = await llm_budgets.spending(
                conn, org_id=principal.org_id, subjects=[subject for _, _, subject, _ in wanted], periods=(day, month)
            )
        by_key = {(one.subject, one.period): one for one in spent}
        return [
            _standing(scope, period, day if period == "day" else month, subject, limit, by_key)
            for scope, period, subject, limit in wanted
        ]

    async def reached(self, principal: Principal) -> list[Standing]:
        """The soft limits that are reached, the organisation's and the caller's own, as they were some seconds ago at
        most. Where none is set, nothing is read. Raises Unavailable."""
        if not (await self.limits(principal.org_id, principal.user_id)).warn():
            return []
        key = (principal.org_id, principal.user_id)
        own = self._standings.get(key)
        if own is None:
            every = await self.standing(principal)
            own = self._standings[key] = [one for one in every if one.member_id in (None, principal.user_id)]
        return [one for one in own if one.warns]

    def check(self, limits: Limits, admission: Admission) -> None:
        """Raise BudgetExceeded for a call that was not admitted, with the limit that was reached."""
        if admission.admitted:
            return
        for whose, period, limit, spent in _compared(limits, admission):
            if limit.hard_usd is not None and spent is not None and spent >= limit.hard_usd:
                raise BudgetExceeded(
                    f"{'your organisation has' if whose == 'organisation' else 'you have'} spent the"
                    f" {_usd(limit.hard_usd)} US dollars for language models of this {period}",
                    hint="local models cost nothing; who manages the organisation may raise it with PUT /v1/budgets",
                )
        raise BudgetExceeded("the budget for language models is spent")

    def note(self, limits: Limits, admission: Admission, *, org_id: UUID, user_id: UUID, at: datetime) -> None:
        """Have it told, once for each period, that a soft limit is reached; nobody waits for that."""
        if not limits.warn():
            return
        day, month = _keys(at)
        self._standings[org_id, user_id] = _admitted(limits, admission, user_id=user_id, periods=(day, month))
        for whose, period, limit, spent in _compared(limits, admission):
            if limit.soft_usd is None or spent is None or spent < limit.soft_usd:
                continue
            subject, key = (org_id if whose == "organisation" else user_id), (day if period == "day" else month)
            if self._warned.first(subject, key):
                task = asyncio.create_task(self._warn(org_id, subject, key, whose, limit, spent))
                self._warning.add(task)
                task.add_done_callback(self._warning.discard)

    async def settled(self) -> None:
        """Wait for warnings that are being written."""
        if self._warning:
            await asyncio.wait(self._warning)

    async def _load(self, org_id: UUID) -> Sequence[Budget]:
        async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
            return await llm_budgets.every(conn, org_id)

    async def _warn(self, org_id: UUID, subject: UUID, key: str, whose: Scope, limit: Limit, spent: Decimal) -> None:
        told = {"scope": whose, "period": key, "soft_usd": str(limit.soft_usd), "spent_usd": str(spent)}
        target = f"{'organisation' if whose == 'organisation' else 'user'}:{subject}"
        try:
            async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
                if not await llm_budgets.mark_warned(conn, org_id=org_id, subject=subject, period=key):
                    return
                await ledgers.add_audit(
                    conn,
                    org_id=org_id,
                    user_id=None if subject == org_id else subject,
                    request_id="",
                    action="llm.budget_warning",
                    target=target,
                    detail=told,
                )
        except NeuroEdgeError as error:
            self._warned.done.pop((subject, key), None)  # the next call tries again
            log.warning("budget_warning_not_written", error=error.code)
            return
        await self._events.publish(org_id, TOPIC, "budget_warning", {**told, "target": target})

    def _of_organisation(self, budgets: Sequence[Budget], period: Period) -> Limit:
        own = _find(budgets, "organisation", period, None) or Limit()
        most = self._most[period]
        hard = min((usd for usd in (own.hard_usd, most) if usd is not None), default=None)
        return Limit(soft_usd=own.soft_usd, hard_usd=hard)


def _of_user(budgets: Sequence[Budget], user_id: UUID, period: Period) -> Limit:
    return _find(budgets, "user", period, user_id) or _find(budgets, "each_user", period, None) or Limit()


def _find(budgets: Sequence[Budget], scope: Scope, period: Period, member_id: UUID | None) -> Limit | None:
    for budget in budgets:
        if (budget.scope, budget.period, budget.member_id) == (scope, period, member_id):
            return Limit(soft_usd=budget.soft_usd, hard_usd=budget.hard_usd)
    return None


def _compared(limits: Limits, admission: Admission) -> list[tuple[Scope, Period, Limit, Decimal | None]]:
    return [
        ("organisation", "day", limits.org_day, admission.org_day),
        ("organisation", "month", limits.org_month, admission.org_month),
        ("user", "day", limits.user_day, admission.user_day),
        ("user", "month", limits.user_month, admission.user_month),
    ]


def _admitted(limits: Limits, admission: Admission, *, user_id: UUID, periods: tuple[str, str]) -> list[Standing]:
    """Where a call that was let through stood; what was set aside is among what was spent."""
    return [
        Standing(
            scope=scope,
            period=period,
            key=periods[0] if period == "day" else periods[1],
            soft_usd=limit.soft_usd,
            hard_usd=limit.hard_usd,
            cost_usd=spent or Decimal(0),
            reserved_usd=Decimal(0),
            member_id=None if scope == "organisation" else user_id,
        )
        for scope, period, limit, spent in _compared(limits, admission)
    ]


def _standing(
    scope: Scope,
    period: Period,
    key: str,
    subject: UUID,
    limit: Limit,
    spent: Mapping[tuple[UUID, str], Spending],
) -> Standing:
    found = spent.get((subject, key))
    return Standing(
        scope=scope,
        period=period,
        key=key,
        soft_usd=limit.soft_usd,
        hard_usd=limit.hard_usd,
        cost_usd=found.cost_usd if found else Decimal(0),
        reserved_usd=found.reserved_usd if found else Decimal(0),
        member_id=None if scope == "organisation" else subject,
    )


def _usd(amount: Decimal | None) -> str:
    return f"{(amount or Decimal(0)).normalize():f}"


def _keys(at: datetime) -> tuple[str, str]:
    """The day and the month."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%d}", f"{utc:%Y-%m}"
