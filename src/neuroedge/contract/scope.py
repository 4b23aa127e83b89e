"""What belongs to a call and travels with it through engines, models and threads: its deadline and its priority."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from neuroedge.contract.models import Priority

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_priority: ContextVar[Priority] = ContextVar("priority", default="normal")


@contextmanager
def call_scope(*, timeout_s: float | None = None, priority: Priority | None = None) -> Iterator[None]:
    """Within the block, work ends `timeout_s` seconds from now (or sooner, if an outer block says so)."""
    outer, undo_priority = _deadline.get(), None
    own = None if timeout_s is None else time.monotonic() + timeout_s
    undo = _deadline.set(min((at for at in (outer, own) if at is not None), default=None))
    if priority is not None:
        undo_priority = _priority.set(priority)
    try:
        yield
    finally:
        _deadline.reset(undo)
        if undo_priority is not None:
            _priority.reset(undo_priority)


def deadline() -> float | None:
    """When the current call must be done, on the clock of `time.monotonic`; None: never."""
    return _deadline.get()


def remaining_s(default: float) -> float:
    """Seconds the current call has left, at least 0 and at most `default`."""
    at = _deadline.get()
    return default if at is None else max(0.0, min(default, at - time.monotonic()))


def priority() -> Priority:
    """The priority of the current call."""
    return _priority.get()
