"""Exact arithmetic, equations and logic in a process of its own, which is killed when it takes too long."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from neuroedge.kit.formal import FormulaError

START_S: Final = 60.0
"""The libraries are slow to import for the first time."""
SOLVE_S: Final = 10.0
_MAX_ANSWER_BYTES: Final = 1 << 20


class Solver:
    """A solver for one call: started on first use, ended with the `async with`."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Solver":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._end()

    async def solve(
        self, statements: Sequence[str], *, integers: bool = False, conclusion: str | None = None
    ) -> dict[str, Any]:
        """Value of an expression, or values under which statements hold (kit/formal_process.py `answer`).

        Raises FormulaError for what does not parse, is too large, or is not done within SOLVE_S.
        """
        request = {"statements": list(statements), "integers": integers, "conclusion": conclusion}
        deadline_s = SOLVE_S if self._process else START_S
        # z3 is asked up to three times.
        line = json.dumps({**request, "timeout_ms": int(SOLVE_S * 1000 / 4)}) + "\n"
        try:
            async with asyncio.timeout(deadline_s):
                process = await self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(line.encode())
                await process.stdin.drain()
                told = await process.stdout.readline()
        except (TimeoutError, ConnectionError, ValueError) as error:
            await self._end()
            raise FormulaError(f"not solved within {SOLVE_S:g} s") from error
        except BaseException:
            await self._end()  # a late answer would be taken for the next question's
            raise
        if not told:
            await self._end()
            raise FormulaError("too large to be computed")
        answer: dict[str, Any] = json.loads(told)
        if "error" in answer:
            raise FormulaError(answer["error"])
        return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "neuroedge.kit.formal_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                limit=_MAX_ANSWER_BYTES,
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # communicate() also closes the pipes; shielded, so that a cancelled call leaves no process behind.
        await asyncio.shield(process.communicate())
