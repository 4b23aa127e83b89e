"""Doubles for services that run engines: one that echoes, its runner, a stream of events, a clock that stands."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.services.engines import Registry
from neuroedge.stores.postgres import Connection, Database
from tests.fakes import FakeBlobs, make_context

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class EchoInput(EngineInput):
    """Anything."""

    text: str = ""


class EchoOutput(EngineOutput):
    """The same."""

    text: str


class Echo(Engine[EchoInput, EchoOutput]):
    """Stands in the registry; what it does, `Runner.act` says."""

    name = "echo"
    title = "Gives back what it got"
    method = "echo"
    example = EchoInput()

    async def run(self, payload: EchoInput, ctx: Any) -> EchoOutput:
        """Not called: the runner is the test's."""
        raise NotImplementedError


class Guarded(Echo):
    """One that only those who manage the organisation may run."""

    name = "guarded"
    permission = MANAGE_ORG


async def echoed(payload: Any, **_: Any) -> str:
    """What the engine answers unless the test says otherwise."""
    return str(payload["text"])


class Runner:
    """An EngineRunner that does what the test says."""

    def __init__(self) -> None:
        probe = make_context()
        self.registry = Registry([Echo(probe=probe), Guarded(probe=probe)])
        self.contexts = self
        self.objects = FakeBlobs()
        self.callers: list[Principal] = []
        self.act: Callable[..., Awaitable[str]] = echoed

    def blobs(self, principal: Principal) -> FakeBlobs:
        """One store for all."""
        return self.objects

    async def run(self, name: str, payload: Any, *, principal: Principal, **more: Any) -> BaseModel:
        """What the test wants to happen."""
        self.callers.append(principal)
        return EchoOutput(method="echo", text=await self.act(payload, **more))


class Stream:
    """Events, in memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.data: list[dict[str, Any]] = []

    async def publish(self, org_id: UUID, topic: str, name: str, data: dict[str, Any]) -> None:
        """Keep it, if it could be sent."""
        json.dumps(data)
        self.names.append(name)
        self.data.append(data)

    async def forget(self, org_id: UUID, topic: str) -> None:
        """Forget all."""
        self.names.clear()
        self.data.clear()


class StoppedClock:
    """Always the same moment."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        """That moment."""
        return self.time


class Away:
    """A database whose next transactions fail."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.failures = 0

    @asynccontextmanager
    async def tenant(self, principal: Principal) -> AsyncIterator[Connection]:
        """A transaction, or none."""
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database does not answer")
        async with self._db.tenant(principal) as conn:
            yield conn
