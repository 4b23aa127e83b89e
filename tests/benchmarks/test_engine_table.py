"""The table of engines: which figure stands for an engine, and what its row says."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engine_table import MEASURES, Measure, card_lines, measured, missed, rows
from benchmarks.report import RESULTS

from benchmarks import engine_table
from neuroedge.services.engines import discover


def figure(name: str, **more: Any) -> dict[str, Any]:
    """A saved figure."""
    plain = {"unit": "", "median": 0.9, "low": 0.8, "high": 0.95, "runs": 3, "target": "", "met": None, "note": ""}
    return {"name": name, **plain, **more}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of one engine whose second series misses its target, one with a target, one latency."""
    table = {"a": Measure(group="one", figure="error of", beat="the peer", data="made"), "b": Measure(group="two")}
    monkeypatch.setattr(engine_table, "MEASURES", table)
    saved = {
        "one": [
            figure("size", met=True, target="≤ 1"),
            figure("error of x", met=True, target="≤ 1"),
            figure("error of y", met=False, target="≤ 0.5", note="95 % interval 0.700 to 0.990, n=24"),
        ],
        "two": [figure("plain"), figure("judged", met=True, target="≥ 0.7", low=0.9, high=0.9)],
        "engines": [figure("a: a call", unit="ms", median=12.4)],
    }
    for name, figures in saved.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"figures": figures}))
    return tmp_path


def test_a_missed_target_is_shown_first(results: Path) -> None:
    """With the number to beat, the count and interval of its note, and the latency of the example."""
    row = rows(results, ["a"])[-1]
    assert row == "| a | error of y | 0.9  ✗ | the peer · ≤ 0.5 | made | 24 | 0.700 to 0.990 | 12 ms |"


def test_of_any_figure_the_first_with_a_target_is_shown(results: Path) -> None:
    """A range of one value is no interval."""
    assert rows(results, ["b"])[-1] == "| b | judged | 0.9  ✓ | ≥ 0.7 |  | 3 |  | |"


def test_a_share_has_the_interval_of_its_count(results: Path) -> None:
    """Nine of ten, by Wilson's formula."""
    saved = {"figures": [figure("right", low=0.9, high=0.9, note="9 of 10 found")]}
    (results / "two.json").write_text(json.dumps(saved))
    assert rows(results, ["b"])[-1] == "| b | right | 0.9  |  |  | 10 | 0.5958 to 0.9821 | |"


@pytest.mark.parametrize(
    ("note", "count"),
    [
        ("95 % 0.835 to 0.933, 708 pieces, 118 texts; answered 0.906", 118),
        ("95 % 0.881 to 0.903, 472 copies of 59 pictures", 59),
        ("95 % interval by people; 24 people, 96 same and 1200 different pairs", 24),
        ("words: 2345 of 2346 found in 20 files; plainest reader 1.0000", 2346),
        ("1000 of 1000 histories, each value to 1e-06", 1000),
        ("19955 ratings of 943 users and 1682 films held out; 95 % by user", 943),
        ("simulated truth; 3000 new learners, 28.9% disengaged; range: 95 % bootstrap interval", 3000),
        ("95 % interval 0.91 to 0.97 (bootstrap over n = 156 words); 467 consonants", 156),
    ],
)
def test_n_is_the_count_of_what_was_drawn(results: Path, note: str, count: int) -> None:
    """However the note of a benchmark puts it."""
    (results / "two.json").write_text(json.dumps({"figures": [figure("right", runs=1, note=note)]}))
    assert rows(results, ["b"])[-1].split(" | ")[5] == str(count)


def test_an_engine_without_result_says_so(results: Path) -> None:
    """And does not count as measured."""
    assert "not measured" in rows(results, ["c"])[-1]
    assert measured(results, ["a", "b", "c"]) == 2


def test_a_card_tells_why_a_target_is_missed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the figures; once it is met, nothing is explained away."""
    table = {name: Measure(group=group, why="the line is long") for name, group in (("a", "one"), ("b", "two"))}
    monkeypatch.setattr(engine_table, "MEASURES", table)
    assert "**Not reached:** the line is long" in card_lines(results, "a")
    assert missed(results, "a") == ["error of y"]
    assert not [line for line in card_lines(results, "b") if "Not reached" in line]


@pytest.mark.parametrize("engine", sorted(engine.name for engine in discover()))
def test_each_missed_target_of_an_engine_has_its_reason(engine: str) -> None:
    """Of the results kept in the repository."""
    if names := missed(RESULTS, engine):
        assert MEASURES[engine].why, names


def test_most_engines_have_a_figure() -> None:
    """Of 42 at least thirty are measured on public data or a truth in closed form; these are, and more."""
    assert measured(RESULTS, [engine.name for engine in discover()]) >= 39


def test_every_row_is_of_an_engine_there_is() -> None:
    """A renamed engine does not keep its old row."""
    assert set(MEASURES) <= {engine.name for engine in discover()}
