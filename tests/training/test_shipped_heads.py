"""The heads that come with the package: small enough for the wheel, and each told by its card."""

import json
from hashlib import sha256
from importlib import resources
from pathlib import Path

import pytest

WEIGHTS = Path(str(resources.files("neuroedge"))) / "weights"
HEADS = ("goemotions-head", "davidson-head", "routing-head")
MOST_BYTES = 20_000_000


def test_all_that_ships_is_under_the_wheels_limit() -> None:
    """Twenty megabytes, together."""
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < MOST_BYTES


def test_no_head_ships_without_being_looked_at_here() -> None:
    """Every folder that holds a head is in the list above."""
    assert {path.parent.name for path in WEIGHTS.rglob("head.npz")} == set(HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_a_card_tells_data_seed_licence_and_figures(name: str) -> None:
    """Of the very file: chosen on dev, calibrated, scored on test."""
    card = json.loads((WEIGHTS / name / "card.json").read_text())
    data = (WEIGHTS / name / card["file"]).read_bytes()
    assert (len(data), sha256(data).hexdigest()) == (card["bytes"], card["sha256"])
    assert card["licence"]
    assert card["data"]
    assert isinstance(card["seed"], int)
    assert card["chosen_on_dev"]
    assert min(card["rows"].values()) > 100
    assert 0 <= card["figures"]["test"]["ece"] < 0.1
