"""/v1/usage and /v1/budgets: what language models took and cost, and what may be spent."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.http.auth import Reader, RequestId, Requires, ThePlatform
from neuroedge.services.llm.reports import Report
from neuroedge.stores.llm_budgets import Budget, Period, Scope
from neuroedge.stores.llm_calls import GroupBy

router = APIRouter(tags=["usage"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]
_LONGEST = timedelta(days=400)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000_000, max_digits=20, decimal_places=6)]


class UsageSpan(BaseModel):
    """Calls that began in a time: of the calendar month (UTC) that `to` ends, by default this one."""

    model_config = ConfigDict(extra="forbid")

    since: datetime | None = Field(default=None, alias="from", description="A date, or a time with its zone.")
    until: datetime | None = Field(default=None, alias="to", description="Before this; of a date, its first moment.")

    @field_validator("since", "until", mode="before")
    @classmethod
    def _days(cls, value: object) -> object:
        if isinstance(value, str) and len(value) == len("2026-01-01"):
            day = date.fromisoformat(value)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        return value

    @field_validator("since", "until", mode="after")
    @classmethod
    def _zoned(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a time zone, such as Z")
        if value is not None and not 1970 < value.year < 9000:
            raise ValueError("is no time of any call")
        return value

    def times(self) -> tuple[datetime, datetime]:
        """From and to. Raises InvalidInput."""
        now = datetime.now(UTC)
        until = self.until or now + timedelta(seconds=1)
        last = until.astimezone(UTC) - timedelta(microseconds=1)
        since = self.since or last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if since >= until:
            raise InvalidInput("`from` is not before `to`")
        if until - since > _LONGEST:
            raise InvalidInput(f"at most {_LONGEST.days} days at once", hint="ask for shorter times")
        return since, until


class UsageQuery(UsageSpan):
    """What to sum up, and by what."""

    group_by: GroupBy = "day"


class CallsQuery(UsageSpan):
    """Which calls."""

    limit: int = Field(default=100, ge=1, le=1000)
    before: UUID | None = Field(default=None, description="`next` of the page before.")


class UsageSumOut(BaseModel):
    """What some calls came to."""

    model_config = ConfigDict(from_attributes=True)

    key: str | None = Field(description="Day, user's id, provider/model, provider, or query type; null: none, or all.")
    calls: int
    open: int = Field(description="Being made now.")
    cancelled: int
    failures: int = Field(description="The provider failed, or the process died.")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="Of the prompt tokens, those computed before.")
    cost_usd: Decimal
    estimated: int = Field(description="Calls whose tokens the provider did not tell.")
    unpriced: int = Field(description="Calls whose price is not known; they are not in cost_usd.")
    unpriced_tokens: int = Field(description="Read and written by those calls.")


class UsageOut(BaseModel):
    """Sums by group, and of all."""

    model_config = ConfigDict(populate_by_name=True)

    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")
    group_by: GroupBy
    groups: list[UsageSumOut]
    total: UsageSumOut
    warnings: list["StandingOut"] = Field(description="Soft limits of budgets that are reached now.")


class LedgerCallOut(BaseModel):
    """One call to one provider."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID
    request_id: str
    provider: str
    model: str
    query_type: str | None
    private: bool
    state: Literal["open", "closed"]
    outcome: Literal["ok", "cancelled", "failed", "lost"] | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated: bool = Field(description="Whether the tokens were counted here because the provider did not tell.")
    cost_usd: Decimal
    unpriced: bool = Field(description="No price is known, so that a cost of 0 says nothing.")
    price_source: str | None = Field(description="Where the price was read; null: it is not known.")
    price_date: date | None
    seconds: float | None
    first_token_s: float | None
    error: str | None = Field(description="Code of the error.")
    started_at: datetime
    ended_at: datetime | None


class LedgerPage(BaseModel):
    """Calls, the latest first."""

    calls: list[LedgerCallOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class LimitIn(BaseModel):
    """US dollars: beyond the soft limit is warned, at the hard one refused."""

    model_config = ConfigDict(extra="forbid")

    soft_usd: Usd | None = None
    hard_usd: Usd | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.soft_usd is not None and self.hard_usd is not None and self.soft_usd > self.hard_usd:
            raise ValueError("the soft limit is above the hard one")
        return self


class PeriodLimits(BaseModel):
    """Limits of a day and of a calendar month, both in UTC."""

    model_config = ConfigDict(extra="forbid")

    day: LimitIn | None = None
    month: LimitIn | None = None

    def budgets(self, scope: Scope, member_id: UUID | None = None) -> list[Budget]:
        """As they are stored."""
        return [
            Budget(scope=scope, period=period, soft_usd=limit.soft_usd, hard_usd=limit.hard_usd, member_id=member_id)
            for period, limit in self._given()
            if limit.soft_usd is not None or limit.hard_usd is not None
        ]

    def _given(self) -> Sequence[tuple[Period, LimitIn]]:
        both: list[tuple[Period, LimitIn | None]] = [("day", self.day), ("month", self.month)]
        return [(period, limit) for period, limit in both if limit is not None]


class BudgetsIn(BaseModel):
    """Budgets for language models. The operator's own limits hold besides."""

    model_config = ConfigDict(extra="forbid")

    organisation: PeriodLimits = PeriodLimits()
    each_user: PeriodLimits = Field(default=PeriodLimits(), description="For users without limits of their own.")
    users: Annotated[dict[UUID, PeriodLimits], Field(max_length=1000)] = Field(
        default_factory=dict, description="By the member's id."
    )

    def budgets(self) -> list[Budget]:
        """As they are stored."""
        return [
            *self.organisation.budgets("organisation"),
            *self.each_user.budgets("each_user"),
            *(budget for member, limits in self.users.items() for budget in limits.budgets("user", member)),
        ]


class StandingOut(BaseModel):
    """A limit that holds now, and what is spent of it."""

    model_config = ConfigDict(from_attributes=True)

    scope: Scope
    member_id: UUID | None
    period: Period
    key: str = Field(description="The period, as 2026-11-21 or 2026-11.")
    soft_usd: Decimal | None
    hard_usd: Decimal | None
    cost_usd: Decimal
    reserved_usd: Decimal = Field(description="Set aside for calls that are being made.")
    warns: bool = Field(description="Whether the soft limit is reached.")


class BudgetsOut(BudgetsIn):
    """Budgets as they were set, and where they stand: the organisation's, yours, and those of single members."""

    standing: list[StandingOut]


@router.get("/v1/usage", summary="Sum up calls to language models", responses=_CSV, response_model=UsageOut)
async def sums(
    request: Request, principal: Reader, platform: ThePlatform, asked: Annotated[UsageQuery, Query()]
) -> UsageOut | Response:
    """Tokens, cost and failures of your calls, of the whole organisation's for who manages it; calls of models without
    a price are told as `unpriced`. As CSV with `Accept: text/csv`."""
    since, until = asked.times()
    report = await platform.usage_reports.sums(principal, since=since, until=until, group_by=asked.group_by)
    if "text/csv" in request.headers.get("accept", ""):
        return Response(_csv(asked.group_by, report), media_type="text/csv; charset=utf-8")
    standing = [one for one in await platform.budgets.standing(principal) if one.warns]
    return UsageOut(
        since=since,
        until=until,
        group_by=asked.group_by,
        groups=[UsageSumOut.model_validate(one) for one in report.groups],
        total=UsageSumOut.model_validate(report.total),
        warnings=[StandingOut.model_validate(one) for one in standing],
    )


@router.get("/v1/usage/calls", summary="List calls to language models")
async def calls(principal: Reader, platform: ThePlatform, asked: Annotated[CallsQuery, Query()]) -> LedgerPage:
    """Each attempt at a provider is one, failed ones too; yours, or all for who manages the organisation."""
    since, until = asked.times()
    found = await platform.usage_reports.page(
        principal, since=since, until=until, before=asked.before, limit=asked.limit + 1
    )
    shown = [LedgerCallOut.model_validate(one) for one in found[: asked.limit]]
    return LedgerPage(calls=shown, next=shown[-1].id if len(found) > asked.limit else None)


@router.get("/v1/budgets", summary="Read budgets for language models")
async def read_budgets(principal: Manager, platform: ThePlatform) -> BudgetsOut:
    """As they were set, and what is spent of each."""
    return await _budgets(principal, platform)


@router.put("/v1/budgets", summary="Set budgets for language models")
async def set_budgets(body: BudgetsIn, principal: Manager, platform: ThePlatform, request_id: RequestId) -> BudgetsOut:
    """In place of those before; seen by every process within seconds. A hard limit refuses calls that would cost
    anything before a provider is asked; local models go on."""
    await platform.budgets.replace(principal, body.budgets(), request_id=request_id)
    return await _budgets(principal, platform)


async def _budgets(principal: Principal, platform: ThePlatform) -> BudgetsOut:
    kept: dict[str, Any] = {"organisation": {}, "each_user": {}, "users": {}}
    for budget in await platform.budgets.read(principal):
        holder = kept["users"].setdefault(budget.member_id, {}) if budget.member_id else kept[budget.scope]
        holder[budget.period] = {"soft_usd": budget.soft_usd, "hard_usd": budget.hard_usd}
    standing = [StandingOut.model_validate(one) for one in await platform.budgets.standing(principal)]
    return BudgetsOut(**kept, standing=standing)


def _csv(group_by: GroupBy, report: Report) -> str:
    columns = [name for name in UsageSumOut.model_fields if name != "key"]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([group_by, *columns])
    for one in report.groups:
        key = one.key or ""
        # A spreadsheet would compute it.
        writer.writerow(["'" + key if key.startswith(_FORMULA) else key, *(getattr(one, name) for name in columns)])
    return out.getvalue()
