"""The measures of retrieval against values computed by hand, and what is made of a dictionary."""

import gzip
import math
from pathlib import Path

import pytest
from benchmarks.retrieval_collections import Collection, glosses
from benchmarks.retrieval_quality import measure, ndcg, randomisation, recall

GCIDE = r"""
Abate \A*bate"\, v. t. [OF. abatre.]
   1. To bring down (Law.) or reduce from a higher state; to
      lessen; as, to abate a nuisance. --Shak.
      [1913 Webster]

   2. To put an end to.
      [1913 Webster]

Kettle \Ket"tle\, n.
   1. A metal vessel for boiling liquids over a fire.
      [WordNet 1.5]

Reduce \Re*duce"\, v. t.
   1. To bring to a reduced state or lower condition somehow.
      [1913 Webster]

Brief \Brief\, a.
   1. Short in time.
      [1913 Webster]
"""
VERBS = """  1 This software and database is being provided
00001 30 v 02 abate 0 let_up 0 000 | become less in amount; "the storm abated"
00002 30 v 02 Abate(a) 0 brief 0 000 | make less active
00003 30 v 02 reduce 0 kettle 0 000 | cut down on
"""


def test_ndcg_by_hand() -> None:
    """Grades 2 and 1 have gains 3 and 1; the second is discounted by log2 3."""
    grades = {7: 2, 8: 1}
    ideal = 3 + 1 / math.log2(3)
    assert ndcg([7, 8], grades) == 1.0
    assert ndcg([8, 7, 9], grades) == pytest.approx((1 + 3 / math.log2(3)) / ideal)
    assert ndcg([1, 2], grades) == ndcg([], grades) == 0.0
    assert ndcg([*range(100, 110), 7], grades) == 0.0


def test_recall_by_hand() -> None:
    """Of two relevant documents one stands among the first ten."""
    assert recall([7, *range(100, 110), 8], {7: 1, 8: 1}) == 0.5


def test_the_paired_test_knows_chance_from_difference() -> None:
    """Nine gains of ten equal signs have p = 2 / 2^10; equal scores have p = 1."""
    better = [0.5 + 0.01 * i for i in range(10)]
    assert randomisation(better, [0.1] * 10) == pytest.approx(2 / 2**10, rel=0.2)
    assert randomisation([0.3] * 10, [0.3] * 10) == 1.0


def test_what_is_asked_of_the_glosses(tmp_path: Path) -> None:
    """Field labels, examples and authors go; short, named and WordNet's own senses are left out."""
    (tmp_path / "gcide.dict.dz").write_bytes(gzip.compress(GCIDE.encode()))
    for part in ("noun", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text("")
    (tmp_path / "data.verb").write_text(VERBS)
    made, others = glosses(gcide=tmp_path / "gcide.dict.dz", wordnet=tmp_path)
    assert made.documents == ["become less in amount", "make less active", "cut down on"]
    assert made.questions == ["To bring down or reduce from a higher state; to lessen"]
    assert made.grades == [{0: 1, 1: 1}]
    assert others.questions == []


def test_any_way_to_search_can_be_measured() -> None:
    """A perfect reranker among searches that find nothing: figures of both halves, judged on the test half alone."""
    questions = [f"question {i}" for i in range(40)]
    collection = Collection(name="C", documents=[], questions=questions, grades=[{i: 1} for i in range(40)])
    ways = dict.fromkeys(("keyword", "dense", "hybrid"), lambda i: [i + 1])
    figures = {f.name: f for f in measure(collection, {**ways, "hybrid + rerank": lambda i: [i]})}
    assert figures["C, test half, hybrid + rerank: nDCG@10"].met is True
    assert figures["C, dev half, hybrid + rerank: nDCG@10"].met is None
    same = {f.name: f for f in measure(collection, {**ways, "hybrid + rerank": lambda i: [i + 1]})}
    assert same["C, test half, hybrid + rerank: nDCG@10"].met is False
