"""Reads files in a process of its own, so that a hostile or broken file can cost its own request and nothing else."""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from neuroedge.contract import scope
from neuroedge.contract.errors import DeadlineExceeded, NeuroEdgeError, TooLarge, UnreadableMedia, of_code
from neuroedge.infra.decode_slots import DecodeSlots
from neuroedge.infra.documents.outcome import Parsed, ParseLimits

log = structlog.get_logger(__name__)

_MODULE = "neuroedge.infra.documents.child"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""What Python and its libraries need to start; nothing that could be secret."""
_MAX_ANSWER_BYTES = 1 << 20
_OCR_DPI = 200


class DocumentParser:
    """Starts reading processes, `at_once` at the same time; more wait, too many are refused with Overloaded."""

    def __init__(self, *, limits: ParseLimits | None = None, at_once: int = 2) -> None:
        self.limits = limits or ParseLimits()
        self._slots = DecodeSlots(at_once=at_once, max_waiting=64)

    async def parse(self, path: Path, filename: str, out: Path) -> Parsed:
        """Write the blocks of the file to `out`; `filename` is the sender's, for formats that bytes do not tell.

        Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge, Overloaded, DeadlineExceeded.
        """
        answer = await self._run({"path": str(path), "filename": filename, "out": str(out)})
        return Parsed(**{**answer, "unread_pages": tuple(answer["unread_pages"])})

    async def picture(self, path: Path, out: Path, *, page: int) -> None:
        """Draw a page, from 1, of a PDF as PNG.

        Raises UnreadableMedia naming the page, TooLarge, Overloaded, DeadlineExceeded.
        """
        await self._run({"path": str(path), "out": str(out), "page": page, "dpi": _OCR_DPI})

    async def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        # The caller's own deadline holds for the wait for a slot too; the limit of a file only while it is read.
        left_s = None if scope.deadline() is None else scope.remaining_s(math.inf)
        try:
            async with asyncio.timeout(left_s), self._slots:
                answer = await self._answer({**job, "limits": asdict(self.limits)})
        except TimeoutError as error:
            raise DeadlineExceeded("the document was not read in time", hint="allow more time") from error
        if "code" in answer:
            raise of_code(answer["code"], answer["detail"], hint=answer["hint"])
        return answer

    async def _answer(self, job: Mapping[str, Any]) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            json.dumps(job),
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            cwd=Path(job["out"]).parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            limit=_MAX_ANSWER_BYTES,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self.limits.time_s):
                told = await process.stdout.read(_MAX_ANSWER_BYTES)
                code = await process.wait()
        except TimeoutError as error:
            raise self._too_long() from error
        finally:
            await _end(process)
        if code != 0:
            raise self._ended(code)
        answer: dict[str, Any] = json.loads(told)
        return answer

    def _ended(self, code: int) -> NeuroEdgeError:
        """What a process that ended without an answer says of its file."""
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return self._too_long()
        if code == -signal.SIGXFSZ:
            return TooLarge("the document holds more text than is allowed", hint="split the document")
        log.warning("parser_crashed", code=code)
        return UnreadableMedia(
            f"the document cannot be read: it is damaged, or needs more than {self.limits.memory_bytes} bytes",
            hint="save it anew, or send it as PDF",
        )

    def _too_long(self) -> NeuroEdgeError:
        return TooLarge(f"reading the document takes longer than {self.limits.time_s:g} s", hint="split the document")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what still runs, with what it started, and wait for it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
