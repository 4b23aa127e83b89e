"""One live session: takes sound, tells what is heard. It outlives the connection it was opened on for a while."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, NeuroEdgeError, TooLarge
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, VoiceState
from neuroedge.contract.principal import Principal
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.infra.media_stream import AudioStream
from neuroedge.services.live import reports
from neuroedge.services.live.events import EventLog
from neuroedge.services.live.hearing import Hearing
from neuroedge.services.live.options import BYTES_PER_S, MAX_AHEAD_S, LiveLimits, LiveOptions
from neuroedge.services.live.recogniser import Recogniser
from neuroedge.services.live.turns import Turns

log = structlog.get_logger(__name__)
_PIECES_AT_ONCE: Final = 64


class LiveSession:
    """Two activities meet here: `feed` finds utterances in the sound, and a task of its own recognises them."""

    def __init__(
        self,
        *,
        session_id: UUID,
        principal: Principal,
        options: LiveOptions,
        limits: LiveLimits,
        stream: AudioStream,
        recogniser: Recogniser,
        threads: Executor,
        metrics: LiveMetrics,
        on_end: Callable[["LiveSession", str], Any],
    ) -> None:
        self.id, self.principal, self.options = session_id, principal, options
        self.events = EventLog()
        self.recogniser = recogniser
        self.received_bytes = 0
        self.reason: str | None = None
        """Why it ended; None while it goes on."""
        self.ending: str | None = None
        """Why it is about to end, when its last text is told."""
        self.failure: str | None = None
        """Code of the error it ended with."""
        self.status: int | None = None
        """Its HTTP status."""
        self._limits, self._stream, self._threads, self._metrics = limits, stream, threads, metrics
        self._on_end = on_end
        self._turns = Turns(options=options, events=self.events)
        self._hearing = Hearing(
            turns=self._turns, recogniser=recogniser, options=options, events=self.events, metrics=metrics
        )
        self._voice: VoiceState | None = None
        self._wake, self._heard = asyncio.Event(), asyncio.Event()
        self._feeding = asyncio.Lock()
        self._taking: set[asyncio.Task[None]] = set()
        self._no_more = False
        self._task = asyncio.create_task(self._hear())

    @property
    def audio_s(self) -> float:
        """Sound taken in so far, seconds."""
        return self._turns.audio_s

    async def feed(self, data: bytes) -> None:
        """Take the next bytes; returns when there is room for more.

        A caller that is cancelled leaves all of them to be taken in: who resumes must not send a part of them again.
        Raises Conflict when the session has ended, InvalidInput where the bytes are no sound, TooLarge beyond the
        session's length. After an error the session has ended.
        """
        await self._to_its_end(self._feed(data))

    async def _feed(self, data: bytes) -> None:
        async with self._feeding:
            if self.reason is not None or self._no_more:
                raise Conflict("the session has ended", hint="start another one")
            try:
                self._check_size(len(data))
                await self._take(self._stream.push(data))
                self.received_bytes += len(data)
            except NeuroEdgeError as error:
                self.fail(error)
                raise

    async def settled(self) -> None:
        """Return when nothing is being fed: then `received_bytes` is true."""
        while self._taking:
            await asyncio.wait(self._taking)

    async def flush(self) -> None:
        """End the utterance that goes on, as if a pause followed, and wait for the text of all so far."""
        async with self._feeding:
            self._end_turn()
        await self._all_heard()
        self.events.add("flushed", **self._received())

    async def clear(self, *, untold: bool = False) -> None:
        """Forget the utterance that goes on; no text of it follows. With `untold`, nor of those that ended before."""
        async with self._feeding:
            number = self._turns.drop()
            if untold:
                self._turns.drop_finished()
            self.events.add("cleared", utterance=number, **self._received())

    async def finish(self, reason: str = "stopped") -> None:
        """Take no more sound, tell the text of what there is, and end."""
        self.ending = self.ending or reason
        await self._to_its_end(self._take_last())
        await self._all_heard()
        self.end(reason)

    async def _take_last(self) -> None:
        async with self._feeding:
            if self.reason is None and not self._no_more:
                try:
                    await self._take(self._stream.finish())
                except NeuroEdgeError as error:
                    self.fail(error)
                self._no_more = True
                self._end_turn()

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that goes on when its caller is cancelled, as by a connection that is lost."""
        task = asyncio.create_task(work)
        self._taking.add(task)
        task.add_done_callback(self._taken)
        await asyncio.shield(task)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    def fail(self, error: NeuroEdgeError) -> None:
        """End because of an error."""
        if self.reason is None:
            self.failure, self.status = error.code, error.status
            self.events.add("error", fatal=True, **reports.problem(error))
            self.end("error")

    def end(self, reason: str) -> None:
        """End at once; what was not recognised yet is lost."""
        if self.reason is not None:
            return
        self.reason = reason
        self.events.add("closed", reason=reason, **self._received())
        self._stream.close()
        self._task.cancel()
        self._turns.tape.forget(self._turns.tape.end)
        self._heard.set()
        self._on_end(self, reason)

    def _received(self) -> dict[str, Any]:
        return {"received_bytes": self.received_bytes, "audio_s": round(self.audio_s, 3)}

    def _check_size(self, more: int) -> None:
        limit_s = self._limits.max_audio_s
        if self.received_bytes + more > limit_s * BYTES_PER_S:
            raise TooLarge(f"more bytes than {limit_s:g} s of sound take", hint="start another session")

    async def _take(self, pieces: Iterator[Floats]) -> None:
        """Judge what a stream gives, piece by piece, waiting while too much speech waits to be recognised."""
        loop = asyncio.get_running_loop()
        while True:
            some = await loop.run_in_executor(self._threads, lambda: list(islice(pieces, _PIECES_AT_ONCE)))
            for samples in some:
                if self.reason is not None:
                    return
                await self._judge(samples)
                await self._room()
            if len(some) < _PIECES_AT_ONCE:
                return

    async def _judge(self, samples: Floats) -> None:
        frames = self._turns.add(samples)
        self._metrics.audio_seconds.inc(len(samples) / SAMPLE_RATE_HZ)
        if self.audio_s > self._limits.max_audio_s:
            raise TooLarge(f"the session is longer than {self._limits.max_audio_s:g} s", hint="start another session")
        if len(frames):
            probabilities, self._voice = await self.recogniser.voice(frames, self._voice)
            self._turns.judge(probabilities.tolist())
            self._wake.set()

    def _end_turn(self) -> None:
        self._turns.flush()
        self._wake.set()

    async def _room(self) -> None:
        while self.reason is None and self._turns.waiting_s > MAX_AHEAD_S:
            self._heard.clear()
            await self._heard.wait()

    async def _all_heard(self) -> None:
        while self.reason is None and self._turns.finished:
            self._heard.clear()
            await self._heard.wait()

    # The other activity.

    async def _hear(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._hearing.next():
                    self._heard.set()
            except NeuroEdgeError as error:
                self.fail(error)
                return
            except Exception as error:
                log.error("live_session_crashed", exc_info=error)
                self.fail(NeuroEdgeError("an unexpected error; the session id finds it in the log"))
                return
