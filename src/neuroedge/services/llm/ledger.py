"""The ledger of calls to language models: each is in the database before the provider is asked, and ends once.

Calls that begin or end while a commit runs share the next one, as rows of engine calls do (services/usage.py). What
cannot be written when a call ends is kept and tried again. A call whose process died is closed as lost by the others,
once its lease has run out, with the tokens of its prompt as an estimate; should its process live after all, the truth
replaces the estimate.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, Unavailable
from neuroedge.contract.ports import Clock
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.batches import Batches
from neuroedge.services.llm.budgets import NO_LIMITS, Budgets, Limits
from neuroedge.services.llm.calls import Call, Spent
from neuroedge.services.llm.offers import Offer, Price
from neuroedge.stores.llm_calls import Admission, Begun, CallTable, Ended

log = structlog.get_logger(__name__)
R = TypeVar("R")
_BEGIN_S: Final = 5.0
_END_S: Final = 15.0
_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_LAST_FLUSH_S: Final = 5.0
_REMEMBERED: Final = 10_000
_MOST_TOKENS: Final = 10**9
"""What a provider may claim; no call takes more."""
NOT_ASKED: Final = Spent(
    outcome="cancelled", prompt_tokens=0, completion_tokens=0, estimated=True, seconds=0.0, error="not_asked"
)
"""The end of a call that was begun and then not made."""


class CallLedger:
    """Begins and ends calls.

    `lease_s`: a call nobody keeps alive for so long is lost; `keep` renews the leases of this process's calls.
    `kept`: how many ends are held in memory while the database is away. An end waits at most `wait_s` to be written.
    """

    def __init__(
        self,
        *,
        table: CallTable,
        budgets: Budgets,
        clock: Clock,
        lease_s: float = 90.0,
        kept: int = 10_000,
        wait_s: float = 2.0,
    ) -> None:
        self._table = table
        self._budgets = budgets
        self._clock = clock
        self._lease_s = lease_s
        self._kept = kept
        self._wait_s = wait_s
        self._open: dict[UUID, Call] = {}
        self._ended: OrderedDict[UUID, Decimal] = OrderedDict()
        self._away = False
        self._begins: Batches[tuple[UUID, Begun], Admission] = Batches(self._write_begins)
        self._ends: Batches[Ended, None] = Batches(self._write_ends)

    async def begin(self, call: Call) -> None:
        """Return once the call is in the database: its provider may be asked now, and `end` must be called.

        Raises BudgetExceeded, Unavailable while the database is away; then nothing was begun and `end` need not be
        called. A call of a model that costs nothing waits for neither budget nor database: its row comes meanwhile,
        or with its end.
        """
        if call.org_id == PROBE.org_id:
            return  # the platform proving itself: nobody's usage
        if _free(call.offer.price):
            self._open[call.id] = call
            self._begins.put((call.org_id, _begun(call, NO_LIMITS))).add_done_callback(_noted)
            return
        limits = await self._budgets.limits(call.org_id, call.user_id)
        self._open[call.id] = call
        try:
            admission = await self._begins.put((call.org_id, _begun(call, limits)))
        except BaseException:  # cancelled among them: the row may be there
            self._forget(call)
            raise
        try:
            self._budgets.check(limits, admission)
        except NeuroEdgeError:
            del self._open[call.id]
            raise
        self._budgets.note(limits, admission, org_id=call.org_id, user_id=call.user_id, at=call.started_at)

    async def end(self, call_id: UUID, spent: Spent) -> Decimal:
        """Close a call; what it cost, in US dollars. The first end counts, another one gives the same.

        While the database is away the end is kept in memory and written later; nothing is raised for that.
        """
        call = self._open.pop(call_id, None)
        if call is None:
            return self._ended.get(call_id, Decimal(0))
        written, cost = self._close(call, spent)
        if written is not None and not self._away:
            await asyncio.wait([written], timeout=self._wait_s)
        return cost

    async def keep(self) -> None:
        """Renew the leases of this process's calls and close those of dead processes, for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self._renew()
                if lost := await self.sweep():
                    log.warning("llm_calls_lost", count=lost)
            except Exception as error:  # the database may be away for a while; the loop must outlive that
                log.warning("llm_sweep_failed", error=str(error))

    async def sweep(self) -> int:
        """Close calls whose lease has run out; how many. Raises Unavailable."""
        return await self._table.lose()

    async def close(self) -> None:
        """Write what is left, for a few seconds at most; before the database is closed."""
        for call in list(self._open.values()):
            log.warning("llm_call_open_at_shutdown", call=str(call.id))
        await self._begins.close(within_s=_LAST_FLUSH_S)
        if left := await self._ends.close(within_s=_LAST_FLUSH_S):
            log.error("llm_calls_not_ended", rows=left, reason="the database is away at shutdown")
        await self._budgets.settled()
        await self._table.close()

    def _forget(self, call: Call) -> None:
        """A call that will not be made though its row may be, or come to be, in the database."""
        if self._open.pop(call.id, None) is not None:
            self._close(call, NOT_ASKED)

    def _close(self, call: Call, spent: Spent) -> tuple["asyncio.Future[None] | None", Decimal]:
        row = _ended(call, spent, at=self._clock.now())
        self._ended[call.id] = row.cost_usd
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if self._ends.unwritten >= self._kept:
            log.error("llm_end_dropped", call=str(call.id), reason="the database has been away too long")
            return None, row.cost_usd  # the row is closed as lost
        return self._ends.put(row), row.cost_usd

    async def _renew(self) -> None:
        calls = sorted(self._open.values(), key=lambda call: call.org_id)
        for org_id, own in groupby(calls, key=lambda call: call.org_id):
            async with asyncio.timeout(_END_S):
                await self._table.extend(org_id, [call.id for call in own], lease_s=self._lease_s)

    async def _write_begins(self, batch: Sequence[tuple[UUID, Begun]]) -> Sequence[Admission | Exception]:
        async def write(org_id: UUID, rows: Sequence[Begun]) -> Sequence[Admission]:
            async with asyncio.timeout(_BEGIN_S):
                return await self._table.begin(org_id, rows, lease_s=self._lease_s)

        return await _by_organisation(batch, write)

    async def _write_ends(self, batch: Sequence[Ended]) -> Sequence[None]:
        """Until the rows are in the database, or it refuses them."""
        left, attempt = list(batch), 0

        async def write(org_id: UUID, rows: Sequence[Ended]) -> Sequence[None]:
            async with asyncio.timeout(_END_S):
                await self._table.end(org_id, rows)
            return [None] * len(rows)

        while left:
            results = await _by_organisation([(row.org_id, row) for row in left], write)
            for row, result in zip(left, results, strict=True):
                if isinstance(result, Exception) and not isinstance(result, Unavailable):
                    log.error("llm_end_dropped", call=str(row.id), reason="the database refuses it", error=str(result))
            left = [row for row, result in zip(left, results, strict=True) if isinstance(result, Unavailable)]
            self._away = bool(left)
            if left:
                if attempt == 0:
                    log.error("llm_ends_not_written", rows=len(left))
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
        return [None] * len(batch)


async def _by_organisation(
    batch: Sequence[tuple[UUID, Any]], write: Callable[[UUID, Sequence[Any]], Awaitable[Sequence[R]]]
) -> list[R | Exception]:
    """Write each organisation's rows together; results in the order of the batch."""
    results: list[R | Exception] = [Unavailable("not written")] * len(batch)
    order = sorted(range(len(batch)), key=lambda place: batch[place][0])
    for org_id, group in groupby(order, key=lambda place: batch[place][0]):
        places = list(group)
        for place, result in zip(places, await _written(org_id, [batch[p][1] for p in places], write), strict=True):
            results[place] = result
    return results


async def _written(
    org_id: UUID, rows: Sequence[Any], write: Callable[[UUID, Sequence[Any]], Awaitable[Sequence[R]]]
) -> Sequence[R | Exception]:
    """Write rows of one organisation; those the database refuses are found by halving."""
    try:
        return await write(org_id, rows)
    except TimeoutError:
        return [Unavailable("the database does not answer", retry_after_s=2)] * len(rows)
    except Unavailable as error:
        return [error] * len(rows)
    except NeuroEdgeError as error:
        if len(rows) == 1:
            return [InvalidInput("the ledger does not take this call", hint=error.detail)]
        half = len(rows) // 2
        return [*await _written(org_id, rows[:half], write), *await _written(org_id, rows[half:], write)]


def _noted(begun: "asyncio.Future[Admission]") -> None:
    """Nobody waits for it."""
    if not begun.cancelled() and (error := begun.exception()) is not None:
        log.warning("llm_call_not_begun", error=str(error))


def _free(price: Price | None) -> bool:
    """Whether a call is known to cost nothing."""
    return price is not None and not (price.prompt_usd_per_million or price.completion_usd_per_million)


def _begun(call: Call, limits: Limits) -> Begun:
    price = call.offer.price
    reserved = Decimal(0)
    if price is not None:
        most = call.max_tokens or call.offer.max_output_tokens or 0
        reserved = price.of(prompt_tokens=_tokens(call.prompt_tokens), completion_tokens=_tokens(most))
    return Begun(
        **_what(call),
        prompt_tokens=_tokens(call.prompt_tokens),
        reserved_usd=reserved,
        limited=limits.any(),
        most_org_day=limits.org_day.hard_usd,
        most_org_month=limits.org_month.hard_usd,
        most_user_day=limits.user_day.hard_usd,
        most_user_month=limits.user_month.hard_usd,
    )


def _ended(call: Call, spent: Spent, *, at: datetime) -> Ended:
    prompt, completion = _tokens(spent.prompt_tokens), _tokens(spent.completion_tokens)
    cached = min(prompt, _tokens(spent.cached_tokens))
    price = call.offer.price
    cost = Decimal(0)
    if price is not None:
        cost = price.of(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
    return Ended(
        **_what(call),
        org_id=call.org_id,
        outcome=spent.outcome,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        estimated=spent.estimated,
        cost_usd=cost,
        seconds=spent.seconds,
        first_token_s=spent.first_token_s,
        error=spent.error,
        ended_at=at,
    )


def _what(call: Call) -> dict[str, Any]:
    """What both rows of a call say."""
    offer: Offer = call.offer
    price = offer.price
    return {
        "id": call.id,
        "user_id": call.user_id,
        "request_id": call.request_id,
        "provider": offer.provider,
        "model": offer.model,
        "query_type": call.query_type,
        "private": offer.private,
        "prompt_usd_per_million": price and price.prompt_usd_per_million,
        "completion_usd_per_million": price and price.completion_usd_per_million,
        "price_source": price and price.source,
        "price_date": price and date.fromisoformat(price.as_of),
        "started_at": call.started_at.astimezone(UTC),
    }


def _tokens(count: int) -> int:
    return min(max(0, count), _MOST_TOKENS)
