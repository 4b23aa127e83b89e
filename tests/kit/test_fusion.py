"""Reciprocal rank fusion against the paper's formula."""

import pytest

from neuroedge.kit.fusion import reciprocal_rank_fusion


def test_an_item_found_by_both_rankings_beats_the_first_of_either() -> None:
    """Second place twice is worth more than first place once."""
    fused = reciprocal_rank_fusion({"dense": ["a", "b"], "keyword": ["c", "b"]})
    assert fused[0].id == "b"
    assert fused[0].score == pytest.approx(2 / 62)
    assert fused[0].parts == {"dense": pytest.approx(1 / 62), "keyword": pytest.approx(1 / 62)}


def test_equal_scores_keep_the_order_in_which_items_were_seen() -> None:
    """The result does not depend on hashing."""
    fused = reciprocal_rank_fusion({"dense": ["x", "y"], "keyword": ["z", "w"]})
    assert [f.id for f in fused] == ["x", "z", "y", "w"]


def test_a_repeated_id_counts_once_at_its_best_rank() -> None:
    """A ranking cannot push an item by listing it twice."""
    fused = reciprocal_rank_fusion({"dense": ["a", "b", "a"]})
    assert [(f.id, f.score) for f in fused] == [("a", pytest.approx(1 / 61)), ("b", pytest.approx(1 / 62))]


def test_rankings_without_items_fuse_to_nothing() -> None:
    """No ranking, or only empty ones."""
    assert reciprocal_rank_fusion({}) == []
    assert reciprocal_rank_fusion({"dense": []}) == []
