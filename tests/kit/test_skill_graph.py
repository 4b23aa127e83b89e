"""Skills as a graph: circles, order, what waits for what."""

import pytest

from neuroedge.kit.skill_graph import cycles, graph, leading_to, order, redundant, unlocks

LADDER = {"count": [], "add": ["count"], "multiply": ["add"], "measure": ["count"], "area": ["multiply", "measure"]}


def test_every_knot_is_told_by_one_shortest_circle() -> None:
    """A long circle with a short cut is told by the short one; a skill that needs itself is one too."""
    needs = {"a": ["c", "b"], "b": ["a"], "c": ["b"], "self": ["self"], "fine": ["a"], "x": ["y"], "y": ["x"]}
    assert cycles(graph(needs)) == [["a", "b"], ["self"], ["x", "y"]]
    assert cycles(graph(LADDER)) == []


def test_a_circle_through_a_thousand_skills_is_found() -> None:
    """Without recursion."""
    needs = {str(i): [str((i + 1) % 1000)] for i in range(1000)}
    (found,) = cycles(graph(needs))
    assert len(found) == 1000


def test_prerequisites_come_first_and_equals_by_name() -> None:
    """And a circle has no order."""
    assert order(graph(LADDER)) == ["count", "add", "measure", "multiply", "area"]
    with pytest.raises(ValueError, match="circle"):
        order(graph({"a": ["b"], "b": ["a"]}))


def test_a_goal_brings_all_it_needs() -> None:
    """And nothing else."""
    assert leading_to(graph(LADDER), ["multiply"]) == {"count", "add", "multiply"}


def test_each_skill_unlocks_what_needs_it_however_far() -> None:
    """Counted once though two ways lead there; only among those asked for."""
    built = graph(LADDER)
    assert unlocks(built, LADDER) == {"count": 4, "add": 2, "measure": 1, "multiply": 1, "area": 0}
    assert unlocks(built, ["count", "area"]) == {"count": 1, "area": 0}


def test_an_edge_that_a_longer_way_says_is_redundant() -> None:
    """a → c beside a → b → c."""
    assert redundant(graph({"a": [], "b": ["a"], "c": ["a", "b"]})) == [("a", "c")]
