"""The product's own search against relevance judgements: Cranfield remembered and asked for over HTTP.

    python -m benchmarks.retrieval_served --data DIR [--data-dir DIR]

--data holds Cranfield (benchmarks/retrieval_collections.py); the server works in --data-dir, by default a fresh folder.
Every abstract becomes a memory (two of the 1,400 are empty and cannot); each question of the test half is asked by
keyword, dense, hybrid and hybrid + rerank, ten hits wanted. Beside it stands BM25 over the same words in process
(bm25s, Lucene's form, k1 1.5, b 0.75): the product ranks by keyed hashes of words in the database, with the average
length known when each memory came, and must come within 0.02 of it. Measures and the paired test are those of
benchmarks/retrieval_quality.py.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.report import Figure, figure, save
from benchmarks.retrieval_collections import Collection, cranfield
from benchmarks.retrieval_quality import DEPTH, PAIRED, WordSearch, measure, ndcg
from benchmarks.serving import serve

ITEMS: Final = 100
WITHIN: Final = 0.02
ASKED: Final[dict[str, dict[str, Any]]] = {
    "keyword": {"mode": "keyword"},
    "dense": {"mode": "dense"},
    "hybrid": {"mode": "hybrid"},
    PAIRED: {"mode": "hybrid", "rerank": True},
}


class Product:
    """The search of a running server."""

    def __init__(self, client: httpx.Client, collection: Collection) -> None:
        self._client = client
        self._collection = collection
        self.times_ms: dict[str, list[float]] = {name: [] for name in ASKED}
        self.reranker = ""

    def remember(self) -> None:
        """Store the documents."""
        items = [
            {"content": text, "metadata": {"doc": position}}
            for position, text in enumerate(self._collection.documents)
            if text
        ]
        for start in range(0, len(items), ITEMS):
            self._run("memory", {"items": items[start : start + ITEMS]})

    def search(self, name: str, question: int) -> list[int]:
        """Documents found, best first."""
        began = time.perf_counter()
        body = {"query": self._collection.questions[question], "top_k": DEPTH, **ASKED[name]}
        answer = self._run("search", body)
        self.times_ms[name].append(1000 * (time.perf_counter() - began))
        self.reranker = answer.get("reranker") or self.reranker
        return [int(hit["metadata"]["doc"]) for hit in answer["hits"]]

    def _run(self, engine: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(f"/v1/engines/{engine}/run", json=body)
        if answer.is_error:
            raise SystemExit(f"{engine}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()["result"]
        return found


def compare(product: Product, collection: Collection) -> list[Figure]:
    """Figures of the test half."""
    beside = WordSearch(collection)
    kept: dict[tuple[str, int], list[int]] = {}

    def asked(name: str, question: int) -> list[int]:
        if (name, question) not in kept:
            kept[name, question] = product.search(name, question)
        return kept[name, question]

    ways = {name: (lambda question, name=name: asked(name, question)) for name in ASKED}
    figures = measure(collection, ways, halves=("test",))
    test = [i for i, grades in enumerate(collection.grades) if grades and collection.half(i) == "test"]
    ours, theirs = (
        statistics.fmean(ndcg(found(i), collection.grades[i]) for i in test) for found in (ways["keyword"], beside.best)
    )
    figures.append(figure("bm25s in process, test half: nDCG@10", "", [theirs]))
    figures.append(figure("keyword, distance to bm25s: nDCG@10", "", [abs(ours - theirs)], at_most=WITHIN))
    figures += [figure(f"{name}: a search, one caller", "ms", times) for name, times in product.times_ms.items()]
    return figures


def main() -> None:
    """Serve, remember, ask, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    collection = cranfield(given.data)
    with (
        tempfile.TemporaryDirectory() as fresh,
        serve(given.data_dir or Path(fresh)) as served,
        served.log_in() as client,
    ):
        product = Product(client, collection)
        product.remember()
        figures = compare(product, collection)
    title = f"Search against relevance judgements, over HTTP (reranker: {product.reranker})"
    save("retrieval_served", figures, title=title, command="python -m benchmarks.retrieval_served --data DIR")


if __name__ == "__main__":
    main()
