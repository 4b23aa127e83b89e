"""Decision processes and policies by name: numbers in the order of appearance, what does not sum to one."""

import pytest

from neuroedge.kit.named_states import MAX_ACTIONS, policy_of, process_of
from neuroedge.kit.refusal import Refused

MOVES = [
    ("home", "walk", "school", 0.75, 1.0, True),
    ("home", "walk", "home", 0.25, 0.0, False),
    ("school", "rest", "school", 1.0, 0.0, True),
]


def test_names_become_numbers_in_their_order() -> None:
    """States of both sides of a move; without a start each is as likely."""
    process, states, actions = process_of(MOVES, start=None)
    assert (states, actions) == (["home", "school"], ["walk", "rest"])
    assert process.start.tolist() == [0.5, 0.5]
    assert process.next_state.tolist() == [1, 0, 1]
    assert process.allowed.tolist() == [[True, False], [False, True]]
    assert process_of(MOVES, start="school")[0].start.tolist() == [0.0, 1.0]


def test_a_process_that_is_none_is_refused() -> None:
    """Probabilities that do not sum to one, a start nobody knows, too many actions; the place is named."""
    with pytest.raises(Refused, match=r"'walk' in 'home' sum to 0\.7500"):
        process_of([MOVES[0], MOVES[2]], start=None)
    with pytest.raises(Refused, match="'moon' is no state"):
        process_of(MOVES, start="moon")
    many = [("s", str(a), "s", 1.0, 0.0, True) for a in range(MAX_ACTIONS + 1)]
    with pytest.raises(Refused, match=f"at most {MAX_ACTIONS}"):
        process_of(many, start=None)


def test_a_policy_is_told_by_its_choices() -> None:
    """Shares of a choice named twice add up; a state of which nothing is said has none; nothing at all is no choice."""
    states, actions = {"home": 0, "school": 1}, {"walk": 0, "rest": 1}
    choices = [("home", "walk", 0.5), ("home", "walk", 0.25), ("home", "rest", 0.25), ("moon", "fly", 0.0)]
    assert policy_of(choices, states, actions).tolist() == [[0.75, 0.25], [0.0, 0.0]]
    with pytest.raises(Refused, match="does not know"):
        policy_of([("moon", "walk", 1.0)], states, actions)
    with pytest.raises(Refused, match=r"'home' sum to 0\.5000"):
        policy_of(choices[:1], states, actions)
