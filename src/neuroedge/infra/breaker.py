"""Circuit breakers: what fails several times in a row is left alone for a while, then tried once.

    closed ── `threshold` failures in a row ──> open ── after `open_s` ──> half_open (one probe at a time)
       ^                                         ^                            │
       └────────── the probe succeeds ───────────┼────────────────────────────┤
                                                 └────── the probe fails ─────┘

An own state machine and no library: docs/adr/0006-cache-and-breaker.md says why. It belongs to one event loop.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from neuroedge.contract.errors import CircuitOpen, NeuroEdgeError, Unavailable

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus:
    """A breaker as operators see it; `retry_after_s` is 0 unless calls are refused now."""

    state: State
    failures: int
    retry_after_s: float


def is_failure(error: BaseException) -> bool:
    """Whether an error is the guarded thing's own fault: Unavailable or unexpected, not the caller's mistake.

    A refusal of another breaker and everything that is no `Exception` (cancellation, a closed generator) is not.
    """
    if isinstance(error, NeuroEdgeError):
        return isinstance(error, Unavailable) and not isinstance(error, CircuitOpen)
    return isinstance(error, Exception)


class Breakers:
    """One breaker a name, made on its first use. `on_change(name, state)` is called after each change of state."""

    def __init__(
        self,
        *,
        threshold: int = 5,
        open_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[str, State], None] | None = None,
    ) -> None:
        if threshold < 1 or not open_s > 0:
            raise ValueError("threshold must be at least 1 and open_s more than 0")
        self._threshold = threshold
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._breakers: dict[str, _Breaker] = {}

    def guard(self, name: str, *, counts: Callable[[BaseException], bool] = is_failure) -> "_Guard":
        """A block to enter with `async with`, once; entering raises CircuitOpen while the breaker is open.

        An error for which `counts` is false changes nothing, like a cancellation: it tells nothing of `name`.
        """
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = _Breaker(name)
        return _Guard(self, breaker, counts)

    def states(self) -> Mapping[str, BreakerStatus]:
        """Every breaker used so far, by name."""
        return {
            name: BreakerStatus(state=b.state, failures=b.failures, retry_after_s=self._time_left_s(b))
            for name, b in self._breakers.items()
        }

    def _time_left_s(self, breaker: "_Breaker") -> float:
        return max(0.0, breaker.opened_at + self._open_s - self._clock()) if breaker.state == "open" else 0.0

    def _admit(self, breaker: "_Breaker") -> bool:
        """Let a call begin, or raise; whether it is the probe."""
        if breaker.state == "closed":
            return False
        left_s = self._time_left_s(breaker)
        if left_s > 0 or breaker.probing:
            raise CircuitOpen(
                f"{breaker.name} failed {breaker.failures} times in a row and is left alone for now",
                hint="its last errors are in the log",
                retry_after_s=max(1, math.ceil(left_s)),
            )
        breaker.probing = True
        self._change(breaker, "half_open")
        return True

    def _succeeded(self, breaker: "_Breaker", *, probe: bool) -> None:
        if probe or breaker.state == "closed":  # a call from before the breaker opened must not close it
            breaker.failures = 0
            self._change(breaker, "closed")

    def _failed(self, breaker: "_Breaker", *, probe: bool) -> None:
        if not probe and breaker.state != "closed":
            return
        breaker.failures += 1
        if probe or breaker.failures >= self._threshold:
            breaker.opened_at = self._clock()
            self._change(breaker, "open")

    def _change(self, breaker: "_Breaker", state: State) -> None:
        if breaker.state != state:
            breaker.state = state
            if self._on_change is not None:
                self._on_change(breaker.name, state)


class _Breaker:
    """What is known of one name. `failures` in a row; `opened_at` on the owner's clock."""

    __slots__ = ("failures", "name", "opened_at", "probing", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: State = "closed"
        self.failures = 0
        self.opened_at = 0.0
        self.probing = False


class _Guard:
    """One guarded call. A class and no generator: it stands in the way of every lease of a model."""

    __slots__ = ("_breaker", "_breakers", "_counts", "_probe")

    def __init__(self, breakers: Breakers, breaker: _Breaker, counts: Callable[[BaseException], bool]) -> None:
        self._breakers = breakers
        self._breaker = breaker
        self._counts = counts
        self._probe = False

    async def __aenter__(self) -> None:
        self._probe = self._breakers._admit(self._breaker)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._probe:
            self._breaker.probing = False
        if error is None:
            self._breakers._succeeded(self._breaker, probe=self._probe)
        elif self._counts(error):
            self._breakers._failed(self._breaker, probe=self._probe)
