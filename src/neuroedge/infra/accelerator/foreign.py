"""Requests of foreign components, as NeMo's GPU coordinator: `pause_transcription` without a fencing token.

One process takes the lease on the component's behalf, under the same rules as any job, and answers
`transcription_paused` once every process has left the device. It gives the lease back on `resume_transcription`, and
answers `transcription_resumed` once all have reloaded.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

import structlog

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.accelerator.messages import PAUSED, RESUMED, Message
from neuroedge.infra.accelerator.state import DeviceState
from neuroedge.infra.accelerator.tenure import Lease
from neuroedge.infra.accelerator.wake import wait

log = structlog.get_logger(__name__)

_UNNAMED = "unnamed"
_RELOAD_POLL_S = 0.02

LeaseFor = Callable[[str], AbstractAsyncContextManager[Lease]]


@dataclass(slots=True)
class _Request:
    message: Message
    task: "asyncio.Task[None] | None" = None
    lease: Lease | None = None
    renewed: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class ForeignRequests:
    """The foreign requests this process heard of; it serves those it claims before the others do."""

    def __init__(
        self,
        state: DeviceState,
        lease_for: LeaseFor,
        *,
        process: str,
        device: str,
        ack_timeout_s: float,
        ttl_s: float,
    ) -> None:
        self._state = state
        self._lease_for = lease_for
        self._process = process
        self._device = device
        self._ack_timeout_s = ack_timeout_s
        self._ttl_s = ttl_s
        self._requests: dict[str, _Request] = {}

    def pause(self, message: Message) -> None:
        """Serve the request, or answer again and count its time anew when it is served already."""
        task_id = message.task_id or _UNNAMED
        request = self._requests.get(task_id)
        if request is not None and not request.over:
            request.renewed.set()
            return
        before = request.task if request is not None else None
        request = self._requests[task_id] = _Request(message)
        request.task = asyncio.create_task(self._serve(task_id, request, before))

    def resume(self, message: Message) -> None:
        """End the request of this task, or every foreign one when the message names none."""
        for task_id, request in self._requests.items():
            if request.over or message.task_id not in (None, task_id):
                continue
            request.over = True
            request.renewed.set()
            if request.lease is None and request.task is not None:
                request.task.cancel()

    async def close(self) -> None:
        """Give up what is served; the lease goes back."""
        tasks = [request.task for request in self._requests.values() if request.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, task_id: str, request: _Request, before: "asyncio.Task[None] | None") -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            if await self._state.claim(task_id, self._process):
                try:
                    await self._lend(request)
                finally:
                    await self._state.disclaim(task_id, self._process)
        except (Unavailable, TimeoutError) as error:
            # No answer is the protocol's refusal: the component's own timeout tells it.
            log.warning("accelerator_foreign_refused", device=self._device, task_id=task_id, error=str(error))
        finally:
            request.over = True
            if self._requests.get(task_id) is request:
                del self._requests[task_id]

    async def _lend(self, request: _Request) -> None:
        owner = f"foreign: {request.message.reason or request.message.task_id or _UNNAMED}"
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._ack_timeout_s):
                request.lease = await stack.enter_async_context(self._lease_for(owner))
            while not request.over:
                request.renewed.clear()
                await self._answer(PAUSED, "paused", request)
                if not await wait(request.renewed, self._ttl_s):
                    log.warning("accelerator_foreign_expired", device=self._device, owner=owner)
                    break
        await self._all_reloaded(request.lease.token)
        await self._answer(RESUMED, "resumed", request)

    async def _all_reloaded(self, token: int) -> None:
        deadline = time.monotonic() + self._ack_timeout_s
        while any(mark.token == token for mark in (await self._state.participants()).values()):
            if time.monotonic() > deadline:
                raise TimeoutError("not every process came back to the device")
            await asyncio.sleep(_RELOAD_POLL_S)

    async def _answer(self, channel: str, status: str, request: _Request) -> None:
        answer = Message(
            status=status,
            task_id=request.message.task_id,
            device=self._device,
            token=request.lease.token if request.lease else None,
            process=self._process,
        )
        await self._state.publish(channel, answer.encode())
