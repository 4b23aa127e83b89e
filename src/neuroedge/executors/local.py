"""Runs an engine in this process."""

from typing import Any

from pydantic import BaseModel

from neuroedge.contract.engine import Engine, EngineContext


class LocalExecutor:
    """The default executor; models keep their own threads, so the loop stays free."""

    async def run(self, engine: Engine[Any, Any], payload: BaseModel, ctx: EngineContext) -> BaseModel:
        """The engine's answer."""
        answer: BaseModel = await engine.run(payload, ctx)
        return answer
