"""Runs engines in this process, and knows which of them are at work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from neuroedge.contract.engine import Engine, EngineContext
from neuroedge.infra.loop_guard import engine_code


class LocalExecutor:
    """The default executor; models keep their own threads, so the loop stays free."""

    def __init__(self) -> None:
        # By identity: a third party's engine need not be hashable, and is alive as long as it is counted.
        self._running: dict[int, int] = {}
        self._idle: dict[int, asyncio.Event] = {}

    async def run(self, engine: Engine[Any, Any], payload: BaseModel, ctx: EngineContext) -> BaseModel:
        """The engine's answer. Raises TypeError when it is not the engine's Output."""
        with self._counted(engine), engine_code(engine):
            answer: BaseModel = await engine.run(payload, ctx)
        if not isinstance(answer, engine.Output):
            raise TypeError(f"{engine.name} answered {type(answer).__name__}, not its Output")
        return answer

    async def drain(self, engine: Engine[Any, Any], *, timeout_s: float) -> bool:
        """Whether no call runs on this very instance any more, after at most `timeout_s`; nothing is cancelled."""
        if id(engine) not in self._running:
            return True
        idle = self._idle.setdefault(id(engine), asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await idle.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def _counted(self, engine: Engine[Any, Any]) -> Iterator[None]:
        key = id(engine)
        self._running[key] = self._running.get(key, 0) + 1
        try:
            yield
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
                if (idle := self._idle.pop(key, None)) is not None:
                    idle.set()
