"""Answers whose process died: gone on with by a worker where that is safe, else ended with a reason and a way on.

A worker sees within seconds that nobody is at a turn any more (stores/turns.py) and goes on from its last saved step,
as its user could with POST …/resume: who reads the session later finds the answer. Not so, but ended as interrupted,
which its user may still resume:
- a turn with tools: what a step did before its process died, a tool of somebody else's among it, would be done twice;
- one asked with a limited API key: what it may not use is known when its caller comes again, not here;
- one that was cut off again and again: it may be what kills the processes;
- one that is old: nobody waits for it.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, NeuroEdgeError, NotFound, Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.services.accounts import PROBE
from neuroedge.services.chat.asking import INTERRUPTED
from neuroedge.services.chat.assistant import Assistant
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.state import options_of
from neuroedge.services.housekeeping import in_each, service_principal
from neuroedge.services.task_run import principal_today
from neuroedge.stores import accounts, chat_sessions, turns
from neuroedge.stores.chat_messages import State as MessageState
from neuroedge.stores.postgres import Database
from neuroedge.stores.turns import Left

log = structlog.get_logger(__name__)

EVERY_S: Final = 5.0
OLD: Final = timedelta(minutes=15)
ATTEMPTS: Final = "2/hour"
_AT_ONCE: Final = 50


class Counter(Protocol):
    """Counts over all processes (infra/limits.py)."""

    async def hit(self, rule: str, *key: str) -> None:
        """Count one use of `key`. Raises Overloaded when the rule, such as "2/hour", allows no more."""
        ...


class Takeovers:
    """Goes on with the turns that processes left, one after another."""

    def __init__(self, *, db: Database, assistant: Assistant, chats: Chats, counter: Counter) -> None:
        self._db = db
        self._assistant = assistant
        self._chats = chats
        self._counter = counter

    async def keep(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            try:
                await self.run()
            except Exception as error:  # the database may be away for a while; the loop must outlive that
                log.warning("turn_takeover_failed", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def run(self) -> int:
        """How many turns were gone on with, or ended. Raises Unavailable."""
        async with self._db.unbound() as conn:
            silent_since = datetime.now(UTC) - turns.SILENT_AFTER
            organisations = await chat_sessions.organisations_with_unfinished(conn, silent_since)
        return await in_each(organisations, self._of)

    async def _of(self, org_id: UUID) -> int:
        async with self._db.tenant(service_principal(org_id), sees_all=True) as conn:
            found = await turns.left(conn, limit=_AT_ONCE)
        done = 0
        for turn in found:
            try:
                await self._settle(org_id, turn)
            except (Conflict, NotFound):
                continue  # its user was quicker, or has deleted it
            except NeuroEdgeError as error:
                log.warning("turn_not_resumed", message_id=str(turn.message_id), code=error.code)
                continue
            done += 1
        return done

    async def _settle(self, org_id: UUID, turn: Left) -> None:
        async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
            member = await accounts.member(conn, turn.user_id)
        if member is None or turn.cancelled:
            owner = replace(PROBE, org_id=org_id, user_id=turn.user_id)
            await self._end(owner, turn, "cancelled" if turn.cancelled else "failed")
            return
        principal = principal_today(member)
        if not await self._safe(principal, turn):
            await self._end(principal, turn, "failed")
            return
        request_id = f"resumed-{turn.id}"
        asked = await self._assistant.resume(principal, turn.session_id, turn.message_id, request_id=request_id)
        log.info("turn_resumed", message_id=str(turn.message_id), tenant_id=str(org_id))
        async with aclosing(self._assistant.events(asked)) as events:
            async for _ in events:
                pass

    async def _safe(self, principal: Principal, turn: Left) -> bool:
        state = await self._assistant.saved(principal, turn.id)
        if turn.age > OLD or state.get("limited", False) or ("options" in state and options_of(state).tools):
            return False
        try:
            await self._counter.hit(ATTEMPTS, "turn-takeover", turn.id.hex)
        except Overloaded:
            return False
        return True

    async def _end(self, owner: Principal, turn: Left, how: MessageState) -> None:
        error = INTERRUPTED if how == "failed" else None
        await self._chats.finish(owner, turn.message_id, content="", state=how, error=error)
