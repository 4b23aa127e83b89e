"""ROUGE of the benchmarks against values that the package rouge-score 0.1.2 gave, without stemming."""

import pytest
from benchmarks.rouge import rouge_l, rouge_n


@pytest.mark.parametrize(
    ("summary", "reference", "expected"),
    [
        ("The cat sat on the mat.", "A cat was on the mat, it sat.", (0.714286, 0.333333, 0.571429)),
        (
            "Floods hit the 3 towns in spring",
            "In spring the 3 towns are flooded; floods hit hard",
            (0.823529, 0.533333, 0.352941),
        ),
        ("same words", "same words", (1, 1, 1)),
        ("none here", "other text", (0, 0, 0)),
        ("the the the", "the wall", (0.4, 0, 0.4)),
        ("", "the wall", (0, 0, 0)),
    ],
)
def test_rouge_is_that_of_the_package(summary: str, reference: str, expected: tuple[float, float, float]) -> None:
    """F1 of single words, pairs, longest common subsequence."""
    found = (rouge_n(summary, reference, n=1), rouge_n(summary, reference, n=2), rouge_l(summary, reference))
    assert found == pytest.approx(expected, abs=1e-6)
