"""Reciprocal rank fusion against the paper's formula."""

import pytest

from neuroedge.kit.fusion import combined_scores, reciprocal_rank_fusion


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


def test_scores_of_unlike_scales_weigh_as_they_should() -> None:
    """Each part runs from 0 to 1 over the candidates, and the weights make shares."""
    scores = combined_scores({"keyword": [10.0, 5.0, 0.0], "dense": [0.2, 0.3, 0.4]}, {"keyword": 1.0, "dense": 3.0})
    assert scores == pytest.approx([0.25, 0.5, 0.75])


def test_what_a_search_does_not_know_counts_as_its_worst() -> None:
    """None is no better than the least score, and does not widen the scale."""
    assert combined_scores({"keyword": [7.0, None, 3.0]}, {"keyword": 2.0}) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("same", [[0.5, 0.5], [None, None]])
def test_a_part_that_tells_nothing_apart_adds_nothing(same: list[float | None]) -> None:
    """Equal scores, or none at all."""
    scores = combined_scores({"dense": same, "keyword": [1.0, 2.0]}, {"dense": 1.0, "keyword": 1.0})
    assert scores == [0.0, 0.5]


def test_parts_of_other_candidates_are_refused() -> None:
    """Scores must belong to the same items; nothing to combine is nothing."""
    with pytest.raises(ValueError, match="same candidates"):
        combined_scores({"a": [1.0], "b": [1.0, 2.0]}, {"a": 1.0, "b": 1.0})
    assert combined_scores({}, {}) == []
    assert combined_scores({"a": []}, {"a": 1.0}) == []
