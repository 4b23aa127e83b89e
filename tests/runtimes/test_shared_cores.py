"""Several streams of one server hold its cores once."""

import threading

from neuroedge.runtimes.cores import CoreBudget
from neuroedge.runtimes.shared_cores import SharedCores


def test_cores_are_held_once_from_the_first_to_the_last() -> None:
    """However their ends are ordered."""
    budget, shared = CoreBudget(4), SharedCores()
    first, second = (shared.using(budget, 3, priority="normal") for _ in range(2))
    with first:
        assert budget.in_use == 3
        second.__enter__()
        assert budget.in_use == 3
    assert budget.in_use == 3
    second.__exit__(None, None, None)
    assert budget.in_use == 0


def test_many_that_begin_at_once_leave_nothing_held() -> None:
    """Those that asked for cores at the same time keep one hold between them."""
    budget, shared = CoreBudget(2), SharedCores()
    most: list[int] = []
    all_in = threading.Barrier(8)

    def stream() -> None:
        with shared.using(budget, 2, priority="normal"):
            all_in.wait(60)
            most.append(budget.in_use)
            all_in.wait(60)

    threads = [threading.Thread(target=stream) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [2] * 8
    assert budget.in_use == 0
