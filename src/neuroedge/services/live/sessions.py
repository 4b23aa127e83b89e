"""The live sessions of this process: who may open one, who finds one again, and how all end."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, Forbidden, NeuroEdgeError, NotFound, Overloaded, Unavailable
from neuroedge.contract.models import Models
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import RUN_ENGINES, Principal
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.infra.media_stream import open_stream
from neuroedge.services.live.options import LiveLimits, LiveOptions
from neuroedge.services.live.recogniser import ENGINE, Recogniser
from neuroedge.services.live.session import LiveSession
from neuroedge.services.usage import UsageLedger
from neuroedge.stores.ids import new_id
from neuroedge.stores.ledgers import UsageRow

log = structlog.get_logger(__name__)
MAX_SESSIONS: Final = 64
"""Sessions of one process, of whatever organisation: each holds a little memory and a decoder."""
_LAST_WORDS_S: Final = 1.0
_HAND_OVER_S: Final = 10.0


class LiveSessions:
    """Opens, finds and ends sessions."""

    def __init__(
        self, *, models: Models, usage: UsageLedger, clock: Clock, metrics: LiveMetrics, limits: LiveLimits
    ) -> None:
        self.limits = limits
        self._models, self._usage, self._clock, self._metrics = models, usage, clock, metrics
        self._sessions: dict[UUID, LiveSession] = {}
        self._opening: dict[UUID, int] = {}
        self._expiry: dict[UUID, asyncio.TimerHandle] = {}
        self._holders: dict[UUID, asyncio.Event] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(4, "live-audio")
        self._stopping = False
        self._let_go = asyncio.Event()

    async def start(self, principal: Principal, options: LiveOptions, holder: asyncio.Event) -> LiveSession:
        """Open a session for a connection, whose `holder` is set when another one takes the session over.

        Raises Forbidden, Overloaded beyond the organisation's sessions, Unavailable when the server stops, InvalidInput
        for a language the model does not know, and what loading the models raises.
        """
        if not principal.may(RUN_ENGINES):
            raise Forbidden(f"this needs the permission {RUN_ENGINES}")
        if not principal.may_run(ENGINE):
            raise Forbidden(f"this API key does not allow the engine {ENGINE}")
        self._admit(principal)
        self._opening[principal.org_id] = self._opening.get(principal.org_id, 0) + 1
        try:
            recogniser = Recogniser(models=self._models, options=options)
            stream = open_stream(options.encoding, sample_rate_hz=options.sample_rate_hz)
            await recogniser.open()
            session = LiveSession(
                session_id=new_id(),
                principal=principal,
                options=options,
                limits=self.limits,
                stream=stream,
                recogniser=recogniser,
                threads=self._threads,
                metrics=self._metrics,
                on_end=self._ended,
            )
        finally:
            self._opening[principal.org_id] -= 1
        self._sessions[session.id] = session
        self._holders[session.id] = holder
        self._metrics.sessions.inc()
        if self._stopping:
            session.end("shutdown")
        return session

    async def resume(self, principal: Principal, session_id: UUID, holder: asyncio.Event) -> LiveSession:
        """A session of the same user again, for another connection; the one that had it loses it.

        A session that ended is found for a while, so that its last words can be told. Raises NotFound, also for
        another's session; Conflict while what the lost connection sent is still being taken in.
        """
        session = self._sessions.get(session_id)
        if session is None or (session.principal.org_id, session.principal.user_id) != (
            principal.org_id,
            principal.user_id,
        ):
            raise NotFound("no live session of this id waits for you", hint="it is over: start another one")
        former, self._holders[session_id] = self._holders.get(session_id), holder
        self._keep(session_id)
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await session.settled()
        except TimeoutError as error:
            self.let_go(session, holder)
            raise Conflict("what was sent before is still being heard", hint="resume in a few seconds") from error
        finally:
            if former is not None:
                former.set()
        return session

    def held(self, session: LiveSession, holder: asyncio.Event) -> bool:
        """Whether a connection still has the session."""
        return self._holders.get(session.id) is holder

    def let_go(self, session: LiveSession, holder: asyncio.Event, *, told_all: bool = False) -> None:
        """The connection is gone; unless another comes in time, the session ends. At once when all was told."""
        if not self.held(session, holder):
            return
        del self._holders[session.id]
        self._let_go.set()
        if told_all and session.reason is not None:
            self._sessions.pop(session.id, None)
            return
        loop = asyncio.get_running_loop()
        self._keep(session.id)
        self._expiry[session.id] = loop.call_later(self.limits.resume_s, self._expire, session)

    async def stop(self) -> None:
        """Before the server stops: let every session tell what it has heard, for a few seconds, and end."""
        self._stopping = True
        going_on = [session for session in self._sessions.values() if session.reason is None]
        if going_on:
            await asyncio.wait(
                [asyncio.create_task(session.finish("shutdown")) for session in going_on], timeout=self.limits.stop_s
            )
        for session in going_on:
            session.end("shutdown")
        # Their connections pass it on and let go.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                while self._holders:
                    self._let_go.clear()
                    await self._let_go.wait()

    async def close(self) -> None:
        """End all that is left, and write their usage."""
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end("shutdown")
        for timer in self._expiry.values():
            timer.cancel()
        self._sessions.clear()
        if self._writing:
            await asyncio.wait(self._writing)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _admit(self, principal: Principal) -> None:
        if self._stopping:
            raise Unavailable("the server is stopping", hint="connect again in a moment", retry_after_s=5)
        going_on = [session for session in self._sessions.values() if session.reason is None]
        own = sum(session.principal.org_id == principal.org_id for session in going_on)
        if own + self._opening.get(principal.org_id, 0) >= self.limits.sessions:
            raise Overloaded(
                f"your organisation has {self.limits.sessions} live sessions open",
                hint="end one, or let the operator raise NEUROEDGE_LIVE_SESSIONS",
            )
        if len(going_on) + sum(self._opening.values()) >= MAX_SESSIONS:
            raise Overloaded("too many live sessions are open on this server", hint="try again later")

    def _expire(self, session: LiveSession) -> None:
        self._expiry.pop(session.id, None)
        session.end("connection_lost")
        self._sessions.pop(session.id, None)

    def _keep(self, session_id: UUID) -> None:
        timer = self._expiry.pop(session_id, None)
        if timer is not None:
            timer.cancel()

    def _ended(self, session: LiveSession, reason: str) -> None:
        self._metrics.sessions.dec()
        self._metrics.ended.labels(reason).inc()
        task = asyncio.create_task(self._account(session, reason))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _account(self, session: LiveSession, reason: str) -> None:
        """A session is a run of the engine: one row, with the time the recognition took."""
        log.info(
            "live_session_ended",
            session_id=str(session.id),
            tenant_id=str(session.principal.org_id),
            reason=reason,
            audio_s=round(session.audio_s, 1),
            seconds=round(session.recogniser.seconds, 2),
        )
        failed = reason == "error"
        await self._usage.record(
            UsageRow(
                id=new_id(),
                org_id=session.principal.org_id,
                user_id=session.principal.user_id,
                request_id=str(session.id),
                engine=ENGINE,
                outcome=session.failure or NeuroEdgeError.code if failed else "ok",
                seconds=session.recogniser.seconds,
                created_at=self._clock.now(),
            )
        )
