"""One budget of cores: no two models fight over the machine, and background work steps aside."""

import threading
import time

import pytest

from neuroedge.contract.models import Priority
from neuroedge.runtimes.cores import PATIENCE_S, CoreBudget


def _start(
    budget: CoreBudget, name: str, seen: list[str], hold: threading.Event, priority: Priority
) -> threading.Thread:
    def work() -> None:
        with budget.using(2, priority=priority):
            seen.append(name)
            hold.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_computations_do_not_take_more_cores_than_there_are() -> None:
    """Eight threads, each with all cores: one at a time, as long as nobody has to wait long."""
    budget = CoreBudget(2)
    most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal most
        with budget.using(2, priority="low"):
            with lock:
                most = max(most, budget.in_use)
            time.sleep(0.005)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    assert budget.in_use == 0
    assert budget.overcommitted == 0


def test_a_model_that_wants_more_than_the_machine_has_gets_all_of_it() -> None:
    """It does not wait for ever."""
    budget = CoreBudget(2)
    with budget.using(64):
        assert budget.in_use == 2


def test_the_foreground_does_not_wait_for_the_background() -> None:
    """A long transcription holds all cores: an embedding runs beside it after its patience, and is counted."""
    budget, seen, hold = CoreBudget(2), list[str](), threading.Event()
    long = _start(budget, "transcription", seen, hold, "low")
    while not seen:
        time.sleep(0.001)
    with budget.using(2, priority="normal"):
        assert budget.in_use == 4
    assert budget.overcommitted == 1
    hold.set()
    long.join()
    assert budget.in_use == 0


def test_nobody_waits_for_what_has_run_for_long_already() -> None:
    """An LLM writes an answer for seconds: each short embedding beside it begins at once, not after its patience."""
    budget, seen, hold = CoreBudget(2), list[str](), threading.Event()
    long = _start(budget, "chat", seen, hold, "normal")
    while not seen:
        time.sleep(0.001)
    time.sleep(PATIENCE_S["normal"])
    waits = list[float]()
    for _ in range(20):
        asked = time.monotonic()
        with budget.using(1, priority="normal"):
            waits.append(time.monotonic() - asked)
    hold.set()
    long.join()
    assert sorted(waits)[10] < PATIENCE_S["normal"] / 2
    assert budget.overcommitted == 20


@pytest.mark.parametrize(("priority", "at_once"), [("normal", 1), ("low", 2)])
def test_short_computations_leave_half_of_the_cores_to_a_long_one(
    priority: Priority, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside an answer that an LLM writes two embeddings go one after the other; background work keeps no core."""
    monkeypatch.setitem(PATIENCE_S, "normal", 60.0)  # type: ignore[misc]
    budget, seen, hold, end = CoreBudget(2), list[str](), threading.Event(), threading.Event()
    long = _start(budget, "long", seen, hold, priority)
    while not seen:
        time.sleep(0.001)
    (begun,) = budget._holds
    begun.since -= 120

    def embed() -> None:
        with budget.using(1, priority="normal"):
            end.wait(60)

    short = [threading.Thread(target=embed) for _ in range(2)]
    for thread in short:
        thread.start()
    beside = waiting = 0
    while beside + waiting < 2:  # each computes or waits for that
        time.sleep(0.001)
        with budget._freed:
            beside, waiting = budget.in_use - 2, budget.foreground_waiting
    end.set()
    for thread in short:
        thread.join()
    hold.set()
    long.join()
    assert beside == at_once


def test_background_work_steps_aside_between_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a person waits, `breathe` gives the cores away and takes them back afterwards."""
    monkeypatch.setitem(PATIENCE_S, "high", 60.0)  # type: ignore[misc]
    budget, order = CoreBudget(2), list[str]()
    background_has_it, asked = threading.Event(), threading.Event()

    def background() -> None:
        with budget.using(2, priority="low") as hold:
            background_has_it.set()
            asked.wait(60)
            while budget.foreground_waiting == 0:
                time.sleep(0.001)
            hold.breathe()
            order.append("background")

    def foreground() -> None:
        background_has_it.wait(60)
        asked.set()
        with budget.using(2, priority="high"):
            order.append("foreground")

    threads = [threading.Thread(target=background), threading.Thread(target=foreground)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["foreground", "background"]
    assert budget.in_use == 0
