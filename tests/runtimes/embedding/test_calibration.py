"""The race between layouts with times that are given, and the file its result is kept in."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.embedding.calibration import Busy, Measured, Store, fastest, seconds_for
from neuroedge.runtimes.embedding.layout import Backend, BackendName, Layout

MANY = Layout(backend="onnxruntime", workers=2, threads=1)
ONE = Layout(backend="onnxruntime", workers=1, threads=2)
OTHER = Layout(backend="openvino", workers=2, threads=1)


@dataclass
class FakeBackend:
    """Counts what it computes."""

    layout: Layout
    dim: int = 1
    max_tokens: int = 256
    closed: bool = False
    batches: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name: BackendName = self.layout.backend
        self.token_budget = self.layout.token_budget
        self.workers = self.layout.workers
        self.threads = self.layout.threads

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """As many tokens as words, at most `max_tokens`."""
        return [[1] * min(self.max_tokens, len(text.split())) for text in texts]

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """Remembers the lengths."""
        self.batches.append([len(i) for i in ids])
        return np.ones((len(ids), 1), np.float32)

    def close(self) -> None:
        """Remembered."""
        assert not self.closed
        self.closed = True


class Machine:
    """Opens fake backends, and tells how long each layout takes."""

    def __init__(self, seconds: Callable[[Layout], float]) -> None:
        self.seconds = seconds
        self.opened: list[FakeBackend] = []
        self.broken: set[Layout] = set()

    def open(self, layout: Layout) -> Backend:
        """Raises ModelUnavailable for a layout that is `broken`."""
        if layout in self.broken:
            raise ModelUnavailable("no such instruction")
        self.opened.append(FakeBackend(layout))
        return self.opened[-1]

    def measure(self, backend: Backend, layout: Layout, sample: Sequence[Sequence[int]]) -> float:
        """Instead of computing."""
        return self.seconds(layout)

    def fastest(self, *candidates: Layout, limit_s: float = 60.0) -> tuple[Backend, list[Measured]]:
        """The race on this machine."""
        return fastest(candidates, self.open, measure=self.measure, limit_s=limit_s)


def test_the_fastest_layout_and_budget_win_and_the_losers_are_closed() -> None:
    """First who computes, then how much at once."""
    machine = Machine(lambda layout: {MANY.workers: 3.0, ONE.workers: 1.0}[layout.workers] - layout.token_budget / 1e4)
    backend, measured = machine.fastest(MANY, ONE)
    assert (backend.workers, backend.token_budget) == (1, 2048)
    assert [b.closed for b in machine.opened] == [True, False]
    assert measured[0].layout == replace(ONE, token_budget=2048)
    assert measured[0].tokens_per_s > measured[-1].tokens_per_s


def test_what_is_hardly_faster_changes_nothing() -> None:
    """Two per cent may be noise; the default stays, budget too."""
    machine = Machine(lambda layout: 1.0 if layout == MANY else 0.98)
    backend, _ = machine.fastest(MANY, ONE)
    assert (backend.workers, backend.token_budget) == (2, MANY.token_budget)


def test_a_busy_moment_does_not_decide() -> None:
    """Each layout's best round counts."""
    rounds = iter([1.0, 9.0, 2.0, 1.0, 2.0])
    machine = Machine(lambda layout: next(rounds, 5.0) if layout == MANY else 2.0)
    backend, _ = machine.fastest(MANY, ONE)
    assert backend.workers == 2


def test_on_a_busy_machine_the_default_is_given_and_nothing_is_measured() -> None:
    """Before other candidates are even loaded."""

    def busy(layout: Layout) -> float:
        raise Busy

    machine = Machine(busy)
    backend, measured = machine.fastest(MANY, ONE)
    assert (backend.workers, measured) == (2, [])
    assert len(machine.opened) == 1
    assert not machine.opened[0].closed


def test_when_the_time_is_up_what_was_measured_decides() -> None:
    """Each candidate is measured once at least."""
    calls: list[Layout] = []

    def seconds(layout: Layout) -> float:
        calls.append(layout)
        return 1.0 if layout.backend == "openvino" else 2.0

    backend, _ = Machine(seconds).fastest(MANY, ONE, OTHER, limit_s=0.0)
    assert backend.name == "openvino"
    assert calls[:4] == [MANY, ONE, OTHER, replace(OTHER, token_budget=128)]
    assert len(calls) == len(set(calls)) == 7


def test_a_candidate_that_does_not_load_is_left_out() -> None:
    """The default's own failure is the caller's."""
    machine = Machine(lambda layout: 1.0)
    machine.broken = {OTHER}
    assert machine.fastest(MANY, OTHER)[0].name == "onnxruntime"
    with pytest.raises(ModelUnavailable):
        machine.fastest(OTHER, MANY)


SAMPLE = [[1] * length for length in (100, 20, 30, 200, 10)]


def test_the_sample_is_computed_once_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of similar length."""
    cpu_s = itertools.count(0, 1000)  # never less than the clock on the wall shows, whenever a thread is held up
    monkeypatch.setattr(time, "thread_time", lambda: float(next(cpu_s)))
    backend = FakeBackend(MANY)
    assert seconds_for(backend, MANY, SAMPLE) > 0
    assert sorted(length for batch in backend.batches for length in batch) == [10, 20, 30, 100, 200]
    assert all(len(batch) * max(batch) <= MANY.token_budget for batch in backend.batches)


def test_a_thread_that_waits_for_the_processor_shows_that_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told for workers of one thread; others hand their work to threads that cannot be seen."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    with pytest.raises(Busy):
        seconds_for(FakeBackend(MANY), MANY, SAMPLE)
    assert seconds_for(FakeBackend(ONE), ONE, SAMPLE) > 0


KEY = {"weights": "abc", "cpu": "x", "libraries": {"onnxruntime": "1"}}
FOUND = replace(ONE, token_budget=1024)


def test_a_calibration_is_read_back_under_the_same_key(tmp_path: Path) -> None:
    """In a folder that is made for it."""
    store = Store(tmp_path / "calibration", "m", KEY)
    assert store.read([MANY, ONE]) is None
    with store.lock():
        store.write(FOUND, [Measured(layout=FOUND, tokens_per_s=5)])
    assert Store(tmp_path / "calibration", "m", KEY).read([MANY, ONE]) == FOUND
    assert Store(tmp_path / "calibration", "other", KEY).read([MANY, ONE]) is None


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"cpu": "y"}, {"libraries": {"onnxruntime": "2"}}], ids=str)
def test_it_is_forgotten_when_anything_it_depends_on_changes(tmp_path: Path, change: dict[str, object]) -> None:
    """Other weights, another processor, a new library."""
    Store(tmp_path, "m", KEY).write(FOUND, [])
    assert Store(tmp_path, "m", KEY | change).read([MANY, ONE]) is None


def test_a_layout_that_is_not_to_be_had_any_more_is_not_used(tmp_path: Path) -> None:
    """OpenVINO was uninstalled."""
    store = Store(tmp_path, "m", KEY)
    store.write(OTHER, [])
    assert store.read([MANY, ONE]) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"key": 1}', json.dumps({"key": KEY, "layout": {"workers": "two"}}), "\xff"],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, content: str) -> None:
    """Whatever happened to it."""
    (tmp_path / "m.json").write_bytes(content.encode("latin-1"))
    store = Store(tmp_path, "m", KEY)
    assert store.read([MANY, ONE]) is None
    store.write(FOUND, [])
    assert store.read([MANY, ONE]) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    """A file lies where the folder should be."""
    (tmp_path / "calibration").write_text("")
    store = Store(tmp_path / "calibration", "m", KEY)
    with store.lock():
        store.write(FOUND, [Measured(layout=FOUND, tokens_per_s=1)])
    assert store.read([MANY, ONE]) is None


def test_the_file_says_what_was_measured(tmp_path: Path) -> None:
    """For the operator who wonders."""
    Store(tmp_path, "m", KEY).write(FOUND, [Measured(layout=FOUND, tokens_per_s=5)])
    body = json.loads((tmp_path / "m.json").read_text())
    assert body["measured"] == [{"layout": asdict(FOUND), "tokens_per_s": 5}]
