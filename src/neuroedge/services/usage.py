"""Writes a row for every engine call, many rows in one commit.

While one commit runs, the calls that end meanwhile gather in the next batch, so a commit costs more calls the more
there are, and each waits about as long as one commit takes. A call is answered after its row is committed: a process
killed with -9 loses no row of an answered call. Only when the database does not answer are calls answered before their
rows are written; rows are then kept in memory, up to a bound, and written when it is back.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context

import structlog

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.telemetry import Metrics
from neuroedge.stores.ledgers import UsageRow, UsageTable

log = structlog.get_logger(__name__)
_COMMIT_TIMEOUT_S = 15.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_ROWS_PER_COMMIT = 1000
_LAST_FLUSH_S = 5.0


class UsageLedger:
    """Takes rows, commits them in batches, keeps at most `kept_rows` that could not be written.

    A call waits at most `wait_s` for its row, and not at all while the database is known not to answer.
    """

    def __init__(self, *, table: UsageTable, metrics: Metrics, kept_rows: int = 10_000, wait_s: float = 2.0) -> None:
        self._table = table
        self._written = metrics.usage_rows.labels("written")
        self._dropped = metrics.usage_rows.labels("dropped")
        metrics.usage_waiting.set_function(lambda: self._unwritten)
        self._kept_rows = kept_rows
        self._wait_s = wait_s
        self._rows: list[UsageRow] = []
        self._settled = asyncio.Event()
        """Of the batch that gathers now: set when it is committed, or need not be waited for any more."""
        self._unwritten = 0
        self._away = False
        self._writer: asyncio.Task[None] | None = None

    async def record(self, row: UsageRow) -> None:
        """Return once the row is committed, or is kept because the database is away. Never raises but on cancellation.

        The row is taken before the first wait, so a cancelled caller's row is written too.
        """
        if self._unwritten >= self._kept_rows:
            self._drop([row], reason="the database has been away too long")
            return
        self._rows.append(row)
        self._unwritten += 1
        if self._writer is None:
            # Without the caller's context: its deadline and request id are not those of other calls' rows.
            self._writer = asyncio.create_task(self._write_all(), context=Context())
        if not self._away:
            await self._settled.wait()

    async def close(self) -> None:
        """Write what is left, for a few seconds at most; before the database is closed."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=_LAST_FLUSH_S)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
            self._dropped.inc(self._unwritten)
            log.error("usage_dropped", rows=self._unwritten, reason="the database is away at shutdown")
        await self._table.close()

    async def _write_all(self) -> None:
        try:
            while self._rows:
                # One turn of the loop: calls that are ready to end now get into this batch, not the next.
                await asyncio.sleep(0)
                rows, settled = self._rows, self._settled
                self._rows, self._settled = [], asyncio.Event()
                late = asyncio.get_running_loop().call_later(self._wait_s, self._give_up_waiting, settled)
                for start in range(0, len(rows), _ROWS_PER_COMMIT):
                    await self._write(rows[start : start + _ROWS_PER_COMMIT], settled)
                late.cancel()
                settled.set()
        finally:
            self._writer = None

    async def _write(self, rows: Sequence[UsageRow], settled: asyncio.Event) -> None:
        """Until the rows are in the database; those it refuses are found by halving, and dropped."""
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                    await self._table.add(rows)
                break
            except (Unavailable, TimeoutError) as error:
                if attempt == 0:
                    log.error("usage_not_written", rows=len(rows), exc_info=error)
                self._give_up_waiting(settled)
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
            except Exception as error:
                if len(rows) == 1:
                    self._unwritten -= 1
                    self._drop(rows, reason="the database refuses it", error=error)
                else:
                    await self._write(rows[: len(rows) // 2], settled)
                    await self._write(rows[len(rows) // 2 :], settled)
                return
        self._unwritten -= len(rows)
        if self._away:
            self._away, self._settled = False, asyncio.Event()  # who comes now waits again
        self._written.inc(len(rows))

    def _give_up_waiting(self, settled: asyncio.Event) -> None:
        """The database is away: answer those who wait, and let nobody wait until a commit succeeds."""
        self._away = True
        settled.set()
        self._settled.set()

    def _drop(self, rows: Sequence[UsageRow], *, reason: str, error: Exception | None = None) -> None:
        self._dropped.inc(len(rows))
        log.error("usage_dropped", engine=rows[0].engine, rows=len(rows), reason=reason, exc_info=error)
