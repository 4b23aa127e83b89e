"""How well search finds what people judged relevant: keyword, dense, hybrid, hybrid + rerank, on two collections.

    python -m benchmarks.retrieval_quality --data DIR --gcide FILE --wordnet DIR --cache DIR

--data holds Cranfield; --gcide and --wordnet are gcide.dict.dz and the folder with data.noun … of the Debian packages
`dict-gcide` and `wordnet-base` (benchmarks/retrieval_collections.py says what is made of them). --cache keeps vectors
between runs: making them takes minutes.

keyword: BM25 (bm25s, Lucene's form, k1 1.5, b 0.75) over the product's words. dense: cosine of the default encoder.
hybrid: reciprocal rank fusion of the first 30 of each. hybrid + rerank: its first 30, ordered by `combined_scores` of
BM25, cosine and MaxSim with RERANK_WEIGHTS, which were chosen on the questions of the "dev" half only. Each question
belongs to a half by a hash of its text. nDCG@10 has the gain 2^grade - 1; p is of a two-sided paired randomisation test
(Smucker et al. 2007) of hybrid + rerank against the better of keyword and dense on that half.
"""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import bm25s
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, figure, save
from benchmarks.retrieval_collections import Collection, cranfield, glosses
from neuroedge.kit.fusion import RERANK_WEIGHTS, combined_scores, reciprocal_rank_fusion
from neuroedge.kit.late_interaction import max_sim
from neuroedge.kit.words import words
from neuroedge.runtimes.embedding.layout import EncoderOptions, Layout, batches
from neuroedge.runtimes.embedding.onnx import OnnxBackend, OnnxFile
from neuroedge.settings import load_settings

MODEL: Final = "all-minilm-l6-v2-int8"
DEPTH: Final = 10
CANDIDATES: Final = 3 * DEPTH
ROUNDS: Final = 100_000
PAIRED: Final = "hybrid + rerank"
Array = NDArray[np.float32]
Search = Callable[[int], Sequence[int]]
"""Positions of the documents found for the question at a position, best first."""


class InProcess:
    """The ways to search, without database: what the product must come near to."""

    def __init__(self, collection: Collection, encoder: OnnxBackend, *, cache: Path) -> None:
        self.collection = collection
        self._encoder = encoder
        self._documents = _cached(cache, encoder, collection.documents)
        self._questions = _cached(cache, encoder, collection.questions)
        self._bm25 = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        self._bm25.index([words(text) for text in collection.documents], show_progress=False)
        self.rerank_s: list[float] = []

    def ways(self) -> dict[str, Search]:
        """By the name they are reported under."""
        return {"keyword": self.keyword, "dense": self.dense, "hybrid": self.hybrid, PAIRED: self.reranked}

    def keyword(self, question: int) -> list[int]:
        """By BM25; documents without any of the words are not found."""
        scores = self._bm25_of(question)
        return [d for d in _best(scores) if scores[d] > 0]

    def dense(self, question: int) -> list[int]:
        """By cosine."""
        return _best(self._documents @ self._questions[question])

    def hybrid(self, question: int) -> list[int]:
        """By rank in both."""
        fused = reciprocal_rank_fusion({"dense": self.dense(question), "keyword": self.keyword(question)})
        return [item.id for item in fused][:CANDIDATES]

    def reranked(self, question: int) -> list[int]:
        """The candidates of `hybrid` by their scores."""
        candidates = self.hybrid(question)
        began = time.perf_counter()
        interaction = self._interaction(question, candidates)
        self.rerank_s.append(time.perf_counter() - began)
        parts = {
            "keyword": self._bm25_of(question)[candidates].tolist(),
            "dense": (self._documents[candidates] @ self._questions[question]).tolist(),
            "late-interaction": interaction.tolist(),
        }
        scores = combined_scores(parts, RERANK_WEIGHTS)
        return [candidates[i] for i in sorted(range(len(candidates)), key=lambda i: -scores[i])]

    def _interaction(self, question: int, candidates: Sequence[int]) -> Array:
        (query,) = self._states([self.collection.questions[question]])
        return max_sim(query, self._states([self.collection.documents[d] for d in candidates]))

    def _states(self, texts: Sequence[str]) -> list[Array]:
        """Token states without [CLS] and [SEP]."""
        ids = self._encoder.tokenise(texts)
        found: list[Array] = [np.zeros((0, 0), np.float32)] * len(ids)

        def compute(batch: Sequence[int]) -> None:
            for i, states in zip(batch, self._encoder.token_states([ids[i] for i in batch]), strict=True):
                found[i] = states[1:-1]

        _in_threads(compute, batches([len(sequence) for sequence in ids], token_budget=256))
        return found

    def _bm25_of(self, question: int) -> Array:
        asked = words(self.collection.questions[question])
        known = [word for word in asked if word in self._bm25.vocab_dict]
        return np.asarray(
            self._bm25.get_scores(known) if known else np.zeros(len(self.collection.documents)), np.float32
        )


def ndcg(found: Sequence[int], grades: dict[int, int], *, depth: int = DEPTH) -> float:
    """Normalised discounted cumulative gain (Järvelin & Kekäläinen 2002), gain 2^grade - 1."""
    discount = 1 / np.log2(np.arange(2, depth + 2))
    gains = np.array([2.0 ** grades.get(d, 0) - 1 for d in found[:depth]])
    ideal = np.array(sorted((2.0**grade - 1 for grade in grades.values()), reverse=True)[:depth])
    return float((gains * discount[: len(gains)]).sum() / (ideal * discount[: len(ideal)]).sum())


def recall(found: Sequence[int], grades: dict[int, int], *, depth: int = DEPTH) -> float:
    """Share of the relevant documents among the first."""
    return len(set(found[:depth]) & set(grades)) / len(grades)


def randomisation(first: Sequence[float], second: Sequence[float], *, rounds: int = ROUNDS) -> float:
    """Two-sided p of a paired randomisation test: how often random signs make so large a mean difference."""
    differences = np.asarray(first) - np.asarray(second)
    rng = np.random.default_rng(11)
    signs = [rng.choice((-1.0, 1.0), size=(1000, len(differences))) for _ in range(rounds // 1000)]
    means = np.concatenate([block @ differences for block in signs]) / len(differences)
    return float((1 + (np.abs(means) >= abs(differences.mean()) - 1e-12).sum()) / (1 + len(means)))


def measure(collection: Collection, ways: dict[str, Search]) -> list[Figure]:
    """All figures of both halves for any ways to search, these here or the product's own route."""
    asked = [i for i, grades in enumerate(collection.grades) if grades]
    found = {name: {i: list(search(i)) for i in asked} for name, search in ways.items()}
    figures = []
    for half in ("dev", "test"):
        questions = [i for i in asked if collection.half(i) == half]
        scores = {n: [ndcg(found[n][i], collection.grades[i]) for i in questions] for n in ways}
        recalls = {n: [recall(found[n][i], collection.grades[i]) for i in questions] for n in ways}
        better = max(("keyword", "dense"), key=lambda name: statistics.fmean(scores[name]))
        where = f"{collection.name}, {half} half"
        for name in ways:
            note = f"{len(questions)} questions"
            least = None
            if name == PAIRED:
                p = randomisation(scores[name], scores[better])
                note += f"; against {better}: p = {p:.5f}"
                # Better by chance alone is no success: then the target is out of reach.
                least = statistics.fmean(scores[better]) if p < 0.05 else 1.0
            least = least if half == "test" else None
            figures.append(
                figure(f"{where}, {name}: nDCG@10", "", [statistics.fmean(scores[name])], at_least=least, note=note)
            )
            figures.append(figure(f"{where}, {name}: recall@10", "", [statistics.fmean(recalls[name])]))
    return figures


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--gcide", "--wordnet", "--cache"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    file = OnnxFile(MODEL, load_settings().model_store / MODEL, EncoderOptions(), device="cpu")
    encoder = file.open(Layout(backend="onnxruntime", workers=2, threads=1))
    figures = []
    for collection in (cranfield(given.data), glosses(gcide=given.gcide, wordnet=given.wordnet)):
        search = InProcess(collection, encoder, cache=given.cache)
        figures += measure(collection, search.ways())
        times_ms = [1000 * seconds for seconds in search.rerank_s]
        figures.append(figure(f"{collection.name}: late interaction of {CANDIDATES} passages", "ms", times_ms))
    encoder.close()
    command = "python -m benchmarks.retrieval_quality --data DIR --gcide FILE --wordnet DIR --cache DIR"
    save("retrieval_quality", figures, title="Search against relevance judgements, in process", command=command)


def _best(scores: Array) -> list[int]:
    return [int(d) for d in np.argsort(-scores, kind="stable")[:CANDIDATES]]


def _cached(folder: Path, encoder: OnnxBackend, texts: Sequence[str]) -> Array:
    """Vectors of `texts`, from `folder` when they were made before."""
    path = folder / f"{MODEL}-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.npy"
    if path.exists():
        return np.asarray(np.load(path), np.float32)
    ids = encoder.tokenise(texts)
    made = np.empty((len(ids), encoder.dim), np.float32)

    def compute(batch: Sequence[int]) -> None:
        made[batch] = encoder.forward([ids[i] for i in batch])

    _in_threads(compute, batches([len(sequence) for sequence in ids], token_budget=256))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, made)
    return made


def _in_threads(compute: Callable[[Sequence[int]], None], work: Iterable[Sequence[int]]) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(compute, work))


if __name__ == "__main__":
    main()
