"""One job's way through the device: queue, lease, pause of the others, the job itself, release.

It runs in a task of its own that nobody cancels: whatever happens to the job, the queue is left and the lease ended in
order.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from neuroedge.contract.errors import DeviceLost, NeuroEdgeError, Unavailable
from neuroedge.contract.models import Priority
from neuroedge.infra.accelerator.messages import PAUSE, RESUME, Message
from neuroedge.infra.accelerator.metrics import AcceleratorMetrics
from neuroedge.infra.accelerator.state import DeviceState, Mark
from neuroedge.infra.accelerator.wake import wait

log = structlog.get_logger(__name__)

_QUEUE_POLL_S = 0.5
"""How late a waiter sees at worst that the holder before it died; a release wakes it at once."""

LossReason = Literal["busy", "unacknowledged", "taken", "unreachable", "closed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one tenure is asked for and held by."""

    ticket: str
    owner: str
    priority: Priority
    process: str
    spared: str
    """The participant that need not pause: the job's own process; empty: all pause."""
    device: str
    wait_s: float
    ack_timeout_s: float
    heartbeat_s: float
    silence_s: float
    """Without a renewal for so long the holder stops: others may have seen the lease run out."""


class Lease:
    """The device is this job's alone, until told otherwise."""

    def __init__(self, state: DeviceState, *, token: int, device: str) -> None:
        self._state = state
        self.token = token
        """Fencing token: greater than that of every lease before. What the job writes can carry it."""
        self.device = device
        self.lost: DeviceLost | None = None
        """Why the lease ended before the job did."""

    async def check(self) -> None:
        """Raise DeviceLost when the device is not this job's any more; Unavailable when that can't be known.

        The job's task is cancelled as soon as the loss is noticed; a thread of it is not, so it asks here between its
        steps.
        """
        if self.lost is not None:
            raise self.lost
        holder = await self._state.holder()
        if holder != self.token:
            raise DeviceLost(f"the lease {self.token} of {self.device} is over; now held: {holder or 'none'}")


class Tenure:
    """Runs one tenure; `granted` is its lease or the reason there is none."""

    def __init__(self, state: DeviceState, terms: Terms, *, metrics: AcceleratorMetrics) -> None:
        self._state = state
        self._terms = terms
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._ending = False
        self._body: asyncio.Task[Any] | None = None
        self._struck = False
        self.granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Look at the state now."""
        self._wake.set()

    def end(self) -> None:
        """The job is over, or nobody wants it any more."""
        self._ending = True
        self._wake.set()

    def abort(self) -> None:
        """This process is closing: take the device from the job."""
        self._lose(DeviceLost(f"this process gives {self._terms.device} up"), "closed")
        self.end()

    @contextmanager
    def until_lost(self, lease: Lease) -> Iterator[None]:
        """Cancel the calling task when the lease is lost, and raise DeviceLost then (as asyncio.timeout does)."""
        body = asyncio.current_task()
        if body is None:
            raise RuntimeError("a lease is held by a task")
        if lease.lost is not None:  # between the grant and here
            raise lease.lost
        cancelled_before = body.cancelling()
        self._body = body
        try:
            yield
        except asyncio.CancelledError:
            if self._strike_undone(body) <= cancelled_before and lease.lost is not None:
                raise lease.lost from lease.lost.__cause__
            raise
        except BaseException:
            self._strike_undone(body)
            raise
        self._strike_undone(body)
        if lease.lost is not None:
            raise lease.lost

    def _strike_undone(self, body: "asyncio.Task[Any]") -> int:
        self._body = None
        return body.uncancel() if self._struck else body.cancelling()

    async def run(self) -> None:
        """Until the end of the tenure."""
        try:
            lease = await self._take()
            if lease is not None:
                await self._hold(lease)
        except DeviceLost as error:
            self._lose(error, "taken")
        except Unavailable as error:
            self._lose(error, "unreachable")
        except Exception as error:
            # A job must not go on believing in a lease that nobody renews.
            log.exception("accelerator_tenure_failed", device=self._terms.device)
            self._lose(DeviceLost(f"holding {self._terms.device} failed: {type(error).__name__}"), "failed")
        finally:
            await self._leave()
            self.granted.cancel()

    async def _take(self) -> Lease | None:
        terms = self._terms
        deadline = time.monotonic() + terms.wait_s
        while not self._ending:
            self._wake.clear()
            token, by = await self._state.take(
                terms.ticket, priority=terms.priority, owner=terms.owner, spared=terms.spared
            )
            if token:
                return Lease(self._state, token=token, device=terms.device)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                detail = f"{terms.device} was not free within {terms.wait_s:g} s" + (f": {by} has it" if by else "")
                self._lose(DeviceLost(detail), "busy")
                return None
            await wait(self._wake, min(_QUEUE_POLL_S, terms.heartbeat_s, left_s))
        return None

    async def _hold(self, lease: Lease) -> None:
        """Send the others away, grant, and keep the lease until the end."""
        started = renewed_at = time.monotonic()
        await self._publish(PAUSE, lease.token)
        while not self._ending:
            self._wake.clear()
            asked_at = time.monotonic()
            marks = await self._renewed(lease, self._terms.silence_s - (asked_at - renewed_at))
            if marks is not None:
                renewed_at = asked_at
                if not self.granted.done() and not self._settle(lease, marks, started):
                    return
            left_s = self._terms.silence_s - (time.monotonic() - renewed_at)
            await wait(self._wake, max(0, min(self._terms.heartbeat_s, left_s)))

    async def _renewed(self, lease: Lease, left_s: float) -> Mapping[str, Mark] | None:
        """What the participants say; None without an answer while the lease holds for `left_s` more all the same."""
        try:
            async with asyncio.timeout(max(left_s, 0)):
                marks = await self._state.renew(lease.token)
        except Unavailable:
            if not self.granted.done():
                raise
            return None
        except TimeoutError as error:
            raise Unavailable(f"no word from Valkey for {self._terms.silence_s:g} s") from error
        if marks is None:
            raise DeviceLost(f"the lease {lease.token} ran out or was taken away")
        return marks

    def _settle(self, lease: Lease, marks: Mapping[str, Mark], started: float) -> bool:
        """Grant when all others have left the device and the job's process is back on it; False when they won't be."""
        terms, waited_s = self._terms, time.monotonic() - started
        failed = [name for name, mark in marks.items() if mark == Mark(lease.token, failed=True)]
        # The job's own process may still be coming back from the lease before, and must: the job needs its models.
        silent = [name for name, mark in marks.items() if mark.token != (lease.token, 0)[name == terms.spared]]
        if not failed and not silent:
            self._metrics.pause_seconds.labels(terms.device).observe(waited_s)
            self.granted.set_result(lease)
        elif failed or waited_s > terms.ack_timeout_s:
            why = f"could not leave it: {', '.join(failed)}" if failed else f"did not answer: {', '.join(silent)}"
            self._lose(DeviceLost(f"{terms.device} was not given up after {waited_s:.1f} s; {why}"), "unacknowledged")
            return False
        return True

    def _lose(self, error: NeuroEdgeError, reason: LossReason) -> None:
        """Refuse the lease, or take it from the job that has it."""
        if self._ending:
            return
        self._metrics.lost.labels(self._terms.device, reason).inc()
        log.warning("accelerator_lost", device=self._terms.device, owner=self._terms.owner, error=error.detail)
        if not self.granted.done():
            self.granted.set_exception(error)
            self.granted.exception()  # the caller may have left
            return
        lost = DeviceLost(f"{self._terms.device} was lost: {error.detail}")
        lost.__cause__ = error
        self.granted.result().lost = lost
        if self._body is not None:
            self._struck = self._body.cancel()

    async def _leave(self) -> None:
        try:
            token = await self._state.leave(self._terms.ticket)
            if token:
                await self._publish(RESUME, token)
        except Unavailable as error:
            # The lease ends with this process's signs of life; the others look for that.
            log.warning("accelerator_not_released", device=self._terms.device, error=str(error.__cause__))

    async def _publish(self, channel: str, token: int) -> None:
        terms = self._terms
        message = Message(
            task_id=terms.ticket, reason=terms.owner, device=terms.device, token=token, process=terms.process
        )
        await self._state.publish(channel, message.encode())
