"""The accelerator: this process's side of sharing one device with others."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
import valkey.asyncio
from prometheus_client import CollectorRegistry

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import Priority
from neuroedge.infra.accelerator.commands import Commands
from neuroedge.infra.accelerator.foreign import ForeignRequests
from neuroedge.infra.accelerator.listener import Listener
from neuroedge.infra.accelerator.membership import Membership, Participant
from neuroedge.infra.accelerator.messages import PAUSE, RESUME, decode
from neuroedge.infra.accelerator.metrics import AcceleratorMetrics
from neuroedge.infra.accelerator.state import DeviceState
from neuroedge.infra.accelerator.tenure import Lease, Tenure, Terms

log = structlog.get_logger(__name__)


class Accelerator:
    """Takes part in sharing a device, and gives jobs of this process the device to themselves.

    `device` names one device of one machine for all processes that share it, as "box1/cuda:0" or "box1/ram".
    `ttl_s` is the lease's time to live, renewed by its holder; `alive_s` is after how long without a sign of life a
    process counts as dead, so that its lease is free. `ack_timeout_s` is how long the others have to leave.
    `answer_unnamed`: serve foreign messages that name no device.
    """

    def __init__(
        self,
        client: "valkey.asyncio.Valkey",
        *,
        device: str,
        participant: Participant,
        ttl_s: float = 300,
        ack_timeout_s: float = 10,
        alive_s: float = 5,
        answer_unnamed: bool = True,
        metrics: AcceleratorMetrics | None = None,
    ) -> None:
        self._device = device
        self._ack_timeout_s = ack_timeout_s
        self._alive_s = alive_s
        self._heartbeat_s = alive_s / 5
        self._answer_unnamed = answer_unnamed
        self._metrics = metrics or AcceleratorMetrics(CollectorRegistry())
        self._process = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._commands = Commands(client, timeout_s=alive_s / 2)
        self._state = DeviceState(self._commands, device=device, ttl_s=ttl_s, alive_s=alive_s)
        self._listener = Listener(client, [PAUSE, RESUME, self._state.answers], heard=self._heard, connected=self._look)
        self._membership = Membership(
            self._state,
            participant,
            process=self._process,
            device=device,
            heartbeat_s=self._heartbeat_s,
            silence_s=2 * alive_s,
            metrics=self._metrics,
        )
        self._foreign = ForeignRequests(
            self._state,
            self._lease_for_foreign,
            process=self._process,
            device=device,
            ack_timeout_s=ack_timeout_s,
            ttl_s=ttl_s,
        )
        self._tenures: dict[Tenure, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Take part from now on; leaves the device at once if another process has it to itself.

        Without Valkey it opens all the same, and takes part as soon as Valkey answers.
        """
        try:
            # First the ears, then the registration: no holder waits for a process that does not hear it.
            self._tasks.append(asyncio.create_task(self._listener.run()))
            heard = await self._listener.listening(self._alive_s)
            self._tasks.append(asyncio.create_task(self._membership.beat()))
            self._tasks.append(asyncio.create_task(self._membership.follow()))
            if not heard or not await self._membership.in_step(self._ack_timeout_s):
                log.warning("accelerator_not_in_step", device=self._device)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give back what this process holds and withdraw. A paused participant stays paused: others have the device."""
        await self._foreign.close()
        for tenure in list(self._tenures):
            tenure.abort()
        if self._tenures:
            await asyncio.wait(list(self._tenures.values()))
        self._listener.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        try:
            await self._state.withdraw(self._process)
        except Unavailable:
            log.warning("accelerator_not_withdrawn", device=self._device)
        await self._commands.settled()

    def exclusive(
        self, *, owner: str, priority: Priority = "normal", wait_s: float
    ) -> AbstractAsyncContextManager[Lease]:
        """Have the device alone within the block: every other process has unloaded its models.

        Waits its turn at most `wait_s`: high before normal before low, in order of arrival within one. Raises
        DeviceLost if the turn does not come, if another process does not leave the device within the ack timeout, or
        (cancelling the block) if the lease is lost; Unavailable when Valkey does not answer.
        """
        return self._tenure(owner=owner, priority=priority, wait_s=wait_s, spared=self._process)

    def _lease_for_foreign(self, owner: str) -> AbstractAsyncContextManager[Lease]:
        return self._tenure(owner=owner, priority="high", wait_s=self._ack_timeout_s, spared="")

    @asynccontextmanager
    async def _tenure(self, *, owner: str, priority: Priority, wait_s: float, spared: str) -> AsyncIterator[Lease]:
        terms = Terms(
            ticket=secrets.token_hex(8),
            owner=owner,
            priority=priority,
            process=self._process,
            spared=spared,
            device=self._device,
            wait_s=wait_s,
            ack_timeout_s=self._ack_timeout_s,
            heartbeat_s=self._heartbeat_s,
            silence_s=self._alive_s - self._heartbeat_s,
        )
        tenure = Tenure(self._state, terms, metrics=self._metrics)
        running = self._tenures[tenure] = asyncio.create_task(tenure.run())
        running.add_done_callback(lambda _: self._tenures.pop(tenure, None))
        started, outcome = time.monotonic(), "refused"
        waited = self._metrics.wait_seconds
        try:
            try:
                await asyncio.wait([tenure.granted])
                lease = tenure.granted.result()
                outcome = "granted"
            finally:
                waited.labels(self._device, priority, outcome).observe(time.monotonic() - started)
            with tenure.until_lost(lease):
                yield lease
        finally:
            tenure.end()
            await asyncio.wait([running])

    def _look(self) -> None:
        """What is known may be old: look again."""
        self._membership.wake()
        for tenure in self._tenures:
            tenure.wake()

    def _heard(self, channel: str, body: bytes) -> None:
        message = decode(channel, body)
        if message is None or not (message.device == self._device or self._answers_unnamed(message.device)):
            return
        if message.token is not None or channel == self._state.answers:
            self._look()
        elif channel == PAUSE:
            self._foreign.pause(message)
        elif channel == RESUME:
            self._foreign.resume(message)

    def _answers_unnamed(self, device: str | None) -> bool:
        return device is None and self._answer_unnamed
