"""The routing requests: how they are split, and how the level of abstention is chosen."""

import numpy as np
from training.routing import NOBODY, REQUESTS, SIDES, abstention_level, requests

from neuroedge.engines.language.routing import GENERATING, registered


def test_no_template_is_on_two_sides() -> None:
    """And every side has every engine, each of which is one of this release."""
    sides = requests()
    templates = [{r.template for r in sides[side]} for side in SIDES]
    assert len(set().union(*templates)) == sum(map(len, templates))
    for side in SIDES:
        assert {r.target for r in sides[side]} - {NOBODY} == {r.target for r in sides["test"]} - {NOBODY}
    assert {r.target for r in sides["test"]} - {NOBODY} <= registered()


def test_requests_of_no_engine_are_never_trained_on() -> None:
    """They set and score abstention only."""
    sides = requests()
    assert NOBODY not in {r.target for r in sides["train"]}
    assert len({r.text for r in sides["dev"] if r.target == NOBODY}) >= 40


def test_only_generating_engines_tell_how_much_is_asked() -> None:
    """Others need no language model; every side knows both kinds."""
    for asked in requests().values():
        assert {r.target for r in asked if r.demanding is not None} == GENERATING
        assert {r.demanding for r in asked} == {True, False, None}


def test_every_template_is_written_once() -> None:
    """A repeated line could be on two sides."""
    lines = [line for line in REQUESTS.read_text().splitlines() if line and line[0] not in "#["]
    assert len(lines) == len(set(lines))


def test_the_level_of_abstention_parts_what_it_can() -> None:
    """Served requests at 0.7 and more, strange ones below: the level lies between."""
    level = abstention_level(np.array([0.7, 0.8, 0.9]), np.array([0.1, 0.3, 0.6]))
    assert 0.6 < level <= 0.7
