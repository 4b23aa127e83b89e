"""LexRank against networkx's PageRank, TF-IDF cosines by hand, and a selection without repeats."""

import networkx
import numpy as np
import pytest

from neuroedge.kit.lexrank import JUMP, THRESHOLD, chosen, lexrank, tfidf

SENTENCES = [
    "The cat sat on the mat.",
    "A cat sat on a mat.",
    "Dogs like bones.",
    "A dog and a cat sat together.",
    "Nobody reads the newspaper.",
]


def test_ranks_are_those_of_a_pagerank_over_the_likeness_graph() -> None:
    """Against networkx, whose dangling nodes lead anywhere too."""
    vectors = tfidf(SENTENCES)
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(SENTENCES)))
    for i, row in enumerate(vectors @ vectors.T):
        for j, cosine in enumerate(row):
            if i != j and cosine >= THRESHOLD:
                graph.add_edge(i, j, weight=float(cosine))
    reference = networkx.pagerank(graph, alpha=1 - JUMP, tol=1e-12)
    assert lexrank(vectors) == pytest.approx([reference[i] for i in range(len(SENTENCES))], abs=1e-6)


def test_cosines_are_those_of_scikit_learn() -> None:
    """With idf 1 + ln(n/df), over the words that both sentences have."""
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(analyzer=str.split).fit_transform(["a1 b2 b2", "b2 c3", "a1 c3 d4"]).toarray()
    weights = counts * (1 + np.log(3 / (counts > 0).sum(axis=0)))
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    vectors = tfidf(["a1 b2 b2", "b2 c3", "a1 c3 d4"], language="")
    ours, theirs = vectors @ vectors.T, weights @ weights.T
    apart = ~np.eye(3, dtype=bool)
    assert ours[apart] == pytest.approx(theirs[apart], abs=1e-6)


def test_a_sentence_like_no_other_is_ranked_as_the_least() -> None:
    """Among sentences that resemble each other."""
    ranks = lexrank(tfidf(SENTENCES))
    assert ranks.sum() == pytest.approx(1)
    assert ranks[4] < ranks[0]


def test_unlike_sentences_are_all_equal() -> None:
    """There is no centre."""
    assert lexrank(np.eye(4)) == pytest.approx([0.25] * 4)


def test_no_sentences_are_an_error() -> None:
    """Nothing can be ranked."""
    with pytest.raises(ValueError, match="no sentences"):
        lexrank(np.zeros((0, 3)))


def test_a_repeat_is_chosen_after_something_new() -> None:
    """The first two say the same."""
    vectors = tfidf(SENTENCES)
    order = chosen(lexrank(vectors), vectors, balance=0.5)
    assert abs(order.index(0) - order.index(1)) > 1


def test_scripts_without_spaces_are_compared_by_pairs_of_signs() -> None:
    """Chinese sentences about the same city are alike."""
    vectors = tfidf(["北京是中国的首都。", "中国的首都很大。", "我喜欢猫。"])
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.3
    assert likeness[0, 2] == 0
