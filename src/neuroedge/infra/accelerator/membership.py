"""This process's part in sharing a device: it shows that it lives, leaves the device for others and comes back.

The state in Valkey decides, never a message: messages only say that looking is worth it now. So a lost, doubled or
forged message changes nothing for longer than one heartbeat.
"""

import asyncio
import time
from typing import Protocol

import structlog

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.accelerator.messages import Message
from neuroedge.infra.accelerator.metrics import AcceleratorMetrics
from neuroedge.infra.accelerator.state import DeviceState, Mark
from neuroedge.infra.accelerator.wake import first, wait

log = structlog.get_logger(__name__)


class Participant(Protocol):
    """Whoever has models on the device, as the model pool."""

    async def pause(self) -> None:
        """Unload what is idle on the device, wait for what is in use, begin nothing new until `resume`.

        May be cancelled, when the device was given back meanwhile; `resume` follows then, and after a failure.
        """
        ...

    async def resume(self) -> None:
        """Reload what `pause` unloaded, and allow loads again even if that fails."""
        ...


class Membership:
    """Registers a participant, and pauses and resumes it as the device's lease says."""

    def __init__(
        self,
        state: DeviceState,
        participant: Participant,
        *,
        process: str,
        device: str,
        heartbeat_s: float,
        silence_s: float,
        metrics: AcceleratorMetrics,
    ) -> None:
        self._state = state
        self._participant = participant
        self._process = process
        self._device = device
        self._heartbeat_s = heartbeat_s
        self._silence_s = silence_s
        self._metrics = metrics
        self._mark = Mark()
        self._wanted = 0
        self._look, self._act = asyncio.Event(), asyncio.Event()
        self._in_step = asyncio.Event()

    def wake(self) -> None:
        """Look at the lease now."""
        self._look.set()

    async def in_step(self, timeout_s: float) -> bool:
        """Wait until the lease was read and this process has done as it says; whether it has."""
        return await wait(self._in_step, timeout_s)

    async def beat(self) -> None:
        """Keep the registration and watch the lease, until cancelled."""
        told, heard_at, away = Mark(), time.monotonic(), False
        while True:
            self._look.clear()
            mark = self._mark
            try:
                wanted = await self._state.beat(self._process, mark)
                heard_at, away = time.monotonic(), False
                self._want(wanted)
                if mark != told:
                    await self._answer(mark, told)
                    told = mark
            except Unavailable as error:
                if not away:
                    log.warning("accelerator_unreachable", device=self._device, error=str(error.__cause__))
                away = True
                # By now a holder that lives has noticed too, and stopped (tenure.py).
                if self._wanted and time.monotonic() - heard_at > self._silence_s:
                    self._want(0)
            await wait(self._look, self._heartbeat_s)

    def _want(self, token: int) -> None:
        if token != self._wanted:
            self._wanted = token
            self._in_step.clear()
            self._act.set()
        elif token == self._mark.token:
            self._in_step.set()

    async def _answer(self, mark: Mark, told: Mark) -> None:
        status = "failed" if mark.failed else "paused" if mark.token else "resumed"
        answer = Message(status=status, token=mark.token or told.token, device=self._device, process=self._process)
        await self._state.publish(self._state.answers, answer.encode())

    async def follow(self) -> None:
        """Pause and resume as the lease says, until cancelled."""
        while True:
            await self._act.wait()
            self._act.clear()
            if self._wanted and (self._mark.token == 0 or self._mark.failed):
                await self._pause()
            elif self._wanted:
                self._tell(Mark(self._wanted))  # the next holder followed at once: still paused
            elif self._mark.token:
                await self._resume()

    async def _pause(self) -> None:
        pausing = asyncio.ensure_future(self._participant.pause())
        token = self._wanted
        try:
            while not pausing.done():
                await first(pausing, self._act)
                self._act.clear()
                if not self._wanted:
                    break
                token = self._wanted
        finally:
            if not pausing.done():
                pausing.cancel()
                await asyncio.wait([pausing])
        if not self._wanted:
            await self._resume()
            return
        error = None if pausing.cancelled() else pausing.exception()
        if error is not None or pausing.cancelled():
            log.error("accelerator_pause_failed", device=self._device, token=token, exc_info=error)
            self._tell(Mark(token, failed=True))
            return
        log.info("accelerator_paused", device=self._device, token=token)
        self._metrics.paused.labels(self._device).set(1)
        self._tell(Mark(token))

    async def _resume(self) -> None:
        started = time.monotonic()
        resuming = asyncio.ensure_future(self._participant.resume())
        try:
            while not (resuming.done() or self._wanted):
                await first(resuming, self._act)
                self._act.clear()
        finally:
            if not resuming.done():
                resuming.cancel()
                await asyncio.wait([resuming])
        if self._wanted:
            self._act.set()  # the next holder does not wait until all is back only to be let go
        if not resuming.cancelled() and (error := resuming.exception()) is not None:
            # What could not be reloaded now is loaded when it is next used.
            log.error("accelerator_resume_failed", device=self._device, exc_info=error)
        self._metrics.resume_seconds.labels(self._device).observe(time.monotonic() - started)
        self._metrics.paused.labels(self._device).set(0)
        log.info("accelerator_resumed", device=self._device)
        self._tell(Mark())

    def _tell(self, mark: Mark) -> None:
        self._mark = mark
        self._look.set()
