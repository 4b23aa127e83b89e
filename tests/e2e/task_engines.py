"""An engine that does what its payload says, for tests of the task queue: brought in as a third party brings one.

The platform finds it by the entry point that `installed` writes beside the tests' own packages.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import NotFound, Unavailable
from tests.plugins import install

ROOT = Path(__file__).parents[2]


class TrialInput(EngineInput):
    """What shall happen."""

    log: str = Field(description="File that gets a line at each beginning, end and cancellation of a run.")
    name: str = Field(default="trial", description="Begins each of those lines.")
    seconds: float = Field(default=0.0, description="How long a run takes.")
    hold: str = Field(default="", description="File that a run waits for first; none by default.")
    fail: int = Field(default=0, description="How many of the first runs fail.")
    how: Literal["away", "crash", "mistake"] = Field(default="away", description="How they fail.")
    letters: int = Field(default=1, ge=0, description="Length of the answer.")


class TrialOutput(EngineOutput):
    """The answer."""

    text: str = Field(description="Letters, with a zero character in front.")


class Trial(Engine[TrialInput, TrialOutput]):
    """Sleeps, fails or answers."""

    name = "trial"
    title = "Does what the payload says"
    method = "sleep"
    example = TrialInput(log="/dev/null")

    async def run(self, payload: TrialInput, ctx: EngineContext) -> TrialOutput:
        """Write down that it runs; then do as told."""
        log = Path(payload.log)
        before = started(log, payload.name)
        _write(log, f"{payload.name} begins")
        try:
            while _held(payload):
                await self._sleep(0.05, ctx)
            await self._sleep(payload.seconds, ctx)
        except asyncio.CancelledError:
            _write(log, f"{payload.name} is cancelled")
            raise
        if before < payload.fail:
            raise {
                "away": Unavailable("the other side is away", hint="wait"),
                "crash": RuntimeError("a defect with a secret"),
                "mistake": NotFound("no such thing", hint="look again"),
            }[payload.how]
        _write(log, f"{payload.name} ends")
        return TrialOutput(method=self.method, text="\x00" + "a" * payload.letters)

    async def _sleep(self, seconds: float, ctx: EngineContext) -> None:
        steps = max(1, int(seconds / 0.1))
        for step in range(steps):
            await ctx.progress("sleeping", step / steps)
            await asyncio.sleep(seconds / steps)


def _held(payload: TrialInput) -> bool:
    return bool(payload.hold) and not Path(payload.hold).exists()


def started(log: Path, name: str = "trial") -> int:
    """How many runs of a name began."""
    return lines(log).count(f"{name} begins")


def lines(log: Path) -> list[str]:
    """What happened, in order."""
    with contextlib.suppress(FileNotFoundError):
        return log.read_text().splitlines()
    return []


def _write(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line + "\n")


def installed(folder: Path) -> dict[str, str]:
    """Environment of a process that finds the engine, as after `pip install` of a package that brings it."""
    source = f"from {Trial.__module__} import Trial\n"
    env = install(folder, module="trial_engine", source=source, engines={"trial": "Trial"})
    return {"PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], str(ROOT)])}
