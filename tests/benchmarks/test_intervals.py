"""What benchmarks say of their intervals, against values known beforehand."""

import numpy as np
import pytest
from benchmarks.articulation import auc
from benchmarks.document import told as words_told
from benchmarks.ocr import mean_rate
from benchmarks.retrieval_quality import told as questions_told
from benchmarks.translation import chrf, chrf_interval


def test_auc_over_the_consonants_of_words() -> None:
    """Three of four pairs are in order; a word without a consonant changes nothing."""
    words = [np.array([[0.9, 1.0], [0.4, 0.0]]), np.empty((0, 2)), np.array([[0.3, 1.0], [0.1, 0.0]])]
    assert auc(words) == 0.75


def test_words_of_all_files_are_told_together() -> None:
    """Half of ten and all of twenty; a reader that nothing was compared with is not named."""
    assert words_told([0.5, 1.0], [10, 20], [0.25, 0.75]) == "words: 25 of 30 found in 2 files; plainest reader 0.5000"
    assert words_told([1.0], [7], []) == "words: 7 of 7 found in 1 files"


def test_a_mean_over_pages_is_judged_beside_its_peer() -> None:
    """Equal pages leave no doubt; without a peer nothing is judged."""
    alone = mean_rate([0.25] * 4, [])
    assert (alone.median, alone.met) == (0.25, None)
    assert alone.note == "95 % 0.2500 to 0.2500, bootstrap over n = 4 pages"
    assert mean_rate([0.0, 0.5], [0.2, 0.2]).met is False


def test_a_mean_over_questions_has_its_interval() -> None:
    """Of zeros and ones in equal number: about 1.96 / (2 √n) to either side."""
    note = questions_told([0.0, 1.0] * 200)
    count, low, high = note.replace(" questions, 95 %", "").replace("to ", "").split()
    assert count == "400"
    assert float(high) - float(low) == pytest.approx(2 * 1.96 / (2 * 20), rel=0.1)


def test_the_interval_of_chrf_holds_it() -> None:
    """One text well translated, one not; of a perfect translation it is none."""
    references = ["the cat sat on the mat", "all people are born free", "nobody may be a slave"]
    told = ["the cat sat on a mat", "every one has a birth", "nobody may be a slave"]
    low, high = chrf_interval(told, references)
    assert low < chrf(told, references) < high
    assert chrf_interval(references, references) == pytest.approx((100, 100))
