"""Loads an engine's new version beside the old one and lets it prove itself, whatever the new code may do.

Stages: import (the module's present source), contract, build, health, post_swap_test. Code under proof may raise
anything, SystemExit too, or never end: that rejects it and harms nobody else. What blocks the event loop is interrupted
by its guard (infra/loop_guard.py).
"""

import asyncio
import ctypes
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from neuroedge.contract.engine import Engine, EngineContext, Health
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.scope import call_scope
from neuroedge.infra.loop_guard import engine_code
from neuroedge.services import fresh_module
from neuroedge.services.engines import EngineDefect, engine_in

T = TypeVar("T")
Stage = Literal["import", "contract", "build", "health", "post_swap_test"]
_DETAIL_CHARACTERS = 500


class Rejected(Exception):
    """The new version failed at a stage; `detail` says why in one line."""

    def __init__(self, stage: Stage, detail: str) -> None:
        super().__init__(detail)
        self.stage = stage
        self.detail = detail[:_DETAIL_CHARACTERS]


async def proven(
    name: str, module: ModuleType, *, alias: str, probe: EngineContext, limit_s: float
) -> tuple[ModuleType, Engine[Any, Any]]:
    """A copy of the engine's module from its present source, executed as `alias`, and its engine, ready to answer.

    Raises Rejected, also when it takes more than `limit_s` seconds altogether.
    """
    ends = time.monotonic() + limit_s

    async def stage(stage: Stage, work: Callable[[], Awaitable[T]]) -> T:
        return await _attempt(stage, work, limit_s=max(0.0, ends - time.monotonic()), module=module)

    copy = await stage("import", lambda: _in_thread(lambda: fresh_module.load(module, alias=alias)))
    cls = await stage("contract", lambda: _in_thread(lambda: _contracted(copy, name, module.__name__)))
    new = await stage("build", lambda: _in_thread(lambda: cls(probe=probe)))
    with engine_code(new), call_scope(timeout_s=max(0.0, ends - time.monotonic())):
        health = await stage("health", new.health)
        if not isinstance(health, Health):
            raise Rejected("health", f"answered {type(health).__name__}, not Health")
        if health.status == "unavailable":
            raise Rejected("health", health.detail or "unavailable")
        await stage("post_swap_test", new.post_swap_test)
    return copy, new


async def _attempt(stage: Stage, work: Callable[[], Awaitable[T]], *, limit_s: float, module: ModuleType) -> T:
    """What a stage of the new version gives. Raises Rejected."""

    async def caught() -> tuple[T | None, BaseException | None]:
        # In here, because a SystemExit that leaves a task ends the event loop.
        try:
            return await work(), None
        except BaseException as error:
            return None, error

    task = asyncio.create_task(caught())
    try:
        done, _ = await asyncio.wait([task], timeout=limit_s)
    finally:
        # Not waited for: what swallows its cancellation must not hold the reload up.
        task.cancel()
    if not done:
        raise Rejected(stage, "did not end within the time limit of a reload")
    value, error = task.result()
    if error is not None:
        raise Rejected(stage, _told(error, module))
    return value  # type: ignore[return-value]


async def _in_thread(work: Callable[[], T]) -> T:
    """Run in a daemon thread of its own: code that never ends must hold up neither the loop nor the process's end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

    def settle(value: T | None, failure: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, failure))

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, value, failure)

    thread = threading.Thread(target=run, name="engine-proof", daemon=True)
    thread.start()
    try:
        value, failure = await ended
    except asyncio.CancelledError:
        _interrupt(thread)
        raise
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def _interrupt(thread: threading.Thread) -> None:
    """End a thread at its next instruction, lest an endless loop take a core for ever; a sleeping one when it wakes."""
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def _contracted(copy: ModuleType, name: str, where: str) -> type[Engine[Any, Any]]:
    cls = engine_in(copy, name=name, where=where)
    # The API pages and GET /v1/engines/{name} must be able to show it.
    cls.Input.model_json_schema()
    cls.Output.model_json_schema(mode="serialization")
    return cls


def _told(error: BaseException, module: ModuleType) -> str:
    """An error in one line, with the line of the module it came from."""
    if isinstance(error, EngineDefect):
        return error.detail
    text = f"{type(error).__name__}: {error.detail if isinstance(error, NeuroEdgeError) else error}"
    lines, at = [], error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == module.__file__:
            lines.append(at.tb_lineno)
        at = at.tb_next
    return f"{text} ({Path(module.__file__ or '').name}, line {lines[-1]})" if lines else text
