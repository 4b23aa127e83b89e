"""Finds the fastest backend and layout by measuring, once a machine, and remembers it in the data directory.

Measured on two cores: two workers of one thread each beat one worker of two threads by a fifth, and batches beyond
some hundreds of tokens are slower than small ones, because the layers' intermediate values leave the cache. Neither
is true of every machine, so the first load of a model tries for a few seconds; later loads read the answer.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.runtimes.embedding.layout import Backend, Layout, batches

log = structlog.get_logger(__name__)

TIME_LIMIT_S: Final = 4.0
"""For all measuring of one model, loading apart."""
BUDGETS: Final = (128, 256, 512, 1024, 2048)
_MARGIN: Final = 0.97
"""A challenger must need less than this part of the default's time: noise alone changes nothing."""
_LEAST_SHARE: Final = 0.8
"""Part of the time a computing thread must have the processor for its times to be believed."""
_ROUNDS: Final = 3
_LENGTHS: Final = (8, 9, 10, 12, 13, 14, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256)
"""Tokens of the texts measured: questions and sentences, some paragraphs."""
_TEXT: Final = "The quick brown fox jumps over the lazy dog, while three old friends discuss what to cook for supper. "
_LAYOUT: Final = TypeAdapter(Layout)
Open = Callable[[Layout], Backend]
Ids = Sequence[int]
Measure = Callable[[Backend, Layout, Sequence[Ids]], float]
"""Seconds a backend takes for a sample in a layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A layout's best speed."""

    layout: Layout
    tokens_per_s: int


class Busy(Exception):
    """Other work takes so much of the processor now that times mean nothing."""


class Store:
    """Calibrations of this machine: one JSON file a model, valid for one key."""

    def __init__(self, folder: Path, model_id: str, key: Mapping[str, Any]) -> None:
        self._path = folder / f"{model_id}.json"
        self._key = json.loads(json.dumps(key))

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Held while measuring: two that measure at once measure each other. Gives up waiting after a while."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._path.with_suffix(".lock"))
            lock.acquire(timeout=3 * TIME_LIMIT_S)
        except (OSError, Timeout) as error:
            log.warning("calibration_not_locked", file=str(self._path), error=str(error))
            return contextlib.nullcontext()
        return contextlib.closing(_Held(lock))

    def read(self, allowed: Iterable[Layout]) -> Layout | None:
        """What was found before under the same key, if it is still among `allowed` (token budget apart)."""
        try:
            body = json.loads(self._path.read_bytes())
            if body["key"] != self._key:
                return None
            layout = _LAYOUT.validate_python(body["layout"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            log.warning("calibration_unreadable", file=str(self._path), error=str(error))
            return None
        return layout if any(replace(a, token_budget=layout.token_budget) == layout for a in allowed) else None

    def write(self, layout: Layout, measured: Sequence[Measured]) -> None:
        """Keep it; a folder that cannot be written costs a warning and a new calibration next time."""
        body = {"key": self._key, "layout": asdict(layout), "measured": [asdict(m) for m in measured]}
        try:
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, suffix=".tmp", delete=False) as file:
                file.write(json.dumps(body, indent=1) + "\n")
            Path(file.name).replace(self._path)
        except OSError as error:
            log.warning("calibration_not_kept", file=str(self._path), error=str(error))


class _Held:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def close(self) -> None:
        self._lock.release()


def fastest(
    candidates: Sequence[Layout],
    open_: Open,
    *,
    budgets: Sequence[int] = BUDGETS,
    limit_s: float = TIME_LIMIT_S,
    measure: Measure | None = None,
) -> tuple[Backend, list[Measured]]:
    """The backend that is fastest on mixed texts, open and set to its best token budget, and all that was measured.

    `candidates` begins with the default, which wins when nothing is clearly faster. First the candidates compete at
    their own budgets, then the budgets of the winner. On a busy machine the default is given and nothing measured.
    A candidate that does not load is left out; raises what the default raises.
    """
    race = _Race(measure or seconds_for, limit_s=limit_s / 2)
    default = candidates[0]
    opened = {default: open_(default)}
    try:
        race.warm_up(opened[default], default)
        opened |= _open(candidates[1:], open_)
        winner = race.winner(opened)
        backend = opened.pop(winner)
    except Busy:
        return opened.pop(default), []
    finally:
        for loser in opened.values():
            loser.close()
    layouts = [winner, *(replace(winner, token_budget=b) for b in budgets if b != winner.token_budget)]
    with contextlib.suppress(Busy):
        backend.token_budget = race.winner(dict.fromkeys(layouts, backend)).token_budget
    return backend, race.ranking()


def _open(layouts: Sequence[Layout], open_: Open) -> dict[Layout, Backend]:
    opened: dict[Layout, Backend] = {}
    for layout in layouts:
        try:
            opened[layout] = open_(layout)
        except NeuroEdgeError as error:
            log.warning("backend_left_out", layout=asdict(layout), error=error.detail)
    return opened


class _Race:
    """Measures layouts in turn, so that a busy moment hits all alike, and keeps the best time of each."""

    def __init__(self, measure: Measure, *, limit_s: float) -> None:
        self._measure = measure
        self._limit_s = limit_s
        self._times: dict[Layout, float] = {}
        self._sample: list[list[int]] = []

    def warm_up(self, backend: Backend, layout: Layout) -> None:
        """Make the sample, enough that every worker gets several batches, and compute it once. Raises Busy."""
        (ids,) = backend.tokenise([_TEXT * (1 + max(_LENGTHS) // 16)])
        self._sample = [ids[:length] for length in _LENGTHS] * max(1, backend.workers // 2)
        self._run(backend, layout)

    def winner(self, runners: Mapping[Layout, Backend]) -> Layout:
        """The fastest, or the first when none is clearly faster. Raises Busy."""
        until = time.monotonic() + self._limit_s
        for _ in range(_ROUNDS):
            for layout, backend in runners.items():
                if layout not in self._times or time.monotonic() < until:
                    self._run(backend, layout)
        first = next(iter(runners))
        best = min((layout for layout in runners if layout in self._times), key=self._times.__getitem__)
        return best if self._times[best] < _MARGIN * self._times[first] else first

    def ranking(self) -> list[Measured]:
        """Fastest first."""
        tokens = sum(map(len, self._sample))
        ranked = sorted(self._times.items(), key=lambda item: item[1])
        return [Measured(layout=layout, tokens_per_s=round(tokens / seconds)) for layout, seconds in ranked]

    def _run(self, backend: Backend, layout: Layout) -> None:
        seconds = self._measure(backend, layout, self._sample)
        self._times[layout] = min(seconds, self._times.get(layout, seconds))


def seconds_for(backend: Backend, layout: Layout, sample: Sequence[Ids]) -> float:
    """Time for all of `sample`. Raises Busy when single-threaded workers did not get the processor they asked for."""
    lengths = [len(ids) for ids in sample]
    groups = [[sample[i] for i in batch] for batch in batches(lengths, token_budget=layout.token_budget)]

    def compute(group: Sequence[Ids]) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.thread_time()
        backend.forward(group)
        return time.perf_counter() - wall, time.thread_time() - cpu

    with ThreadPoolExecutor(layout.workers) as workers:
        began = time.perf_counter()
        # Longest first, so that the workers end at about the same time.
        spent = list(workers.map(compute, reversed(groups)))
        seconds = time.perf_counter() - began
    if layout.threads == 1 and sum(cpu for _, cpu in spent) < _LEAST_SHARE * sum(wall for wall, _ in spent):
        raise Busy
    return seconds
