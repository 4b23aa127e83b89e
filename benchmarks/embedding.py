"""The default sentence encoder by every backend and layout, against sentence-transformers on torch.

    python -m benchmarks.embedding --peer-python PYTHON --peer-model MODEL [--data DIR] [--gguf FILE] [--quality]

PYTHON is that of an environment with torch and sentence-transformers, MODEL all-MiniLM-L6-v2 in float32 (a folder or
its name). All take turns on the same texts of mixed lengths, tokenising included; ratios are of the same round. DIR
holds Cranfield (cran.all.1400, cran.qry, cranqrel), else the texts are those in benchmarks/data. FILE is the same model
for llama.cpp. --quality measures nDCG@10 on Cranfield instead.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, figure, save
from neuroedge.runtimes.embedding import openvino
from neuroedge.runtimes.embedding.backend import Backend, batches, open_backend
from neuroedge.settings import load_settings

MODEL: Final = "all-minilm-l6-v2-int8"
OURS: Final = "onnxruntime int8, 2 × 1 thread, 256 tokens"
AS_STORED: Final = "onnxruntime float32, 2 × 1 thread, 256 tokens"
PEER: Final = "sentence-transformers, batch 32"
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    OURS: {"backend": "onnxruntime", "workers": 2},
    "onnxruntime int8, 2 × 1 thread, 1024 tokens": {"backend": "onnxruntime", "workers": 2, "token_budget": 1024},
    "onnxruntime int8, 1 × 2 threads, 256 tokens": {"backend": "onnxruntime", "workers": 1},
    AS_STORED: {"backend": "onnxruntime", "workers": 2, "precision": "float32"},
    "openvino, 2 × 1 thread, 256 tokens": {"backend": "openvino", "workers": 2},
    "openvino, 1 × 2 threads, 256 tokens": {"backend": "openvino", "workers": 1},
    "llama.cpp, 2 threads, 256 tokens": {"backend": "llama.cpp"},
}
OTHERS_ROUNDS: Final = 5
Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--peer-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quality", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Peer(given.peer_python, given.peer_model, threads=2) as peer:
        backends = _open_all(Path(folder), given.gguf)
        if given.quality:
            figures, group, title = retrieval(backends, peer, given.data), "embedding_quality", "Search by embedding"
        else:
            sample = texts(given.data)
            figures = speed(backends, peer, sample, rounds=given.rounds) + likeness(backends, peer, sample)
            texts_of = "Cranfield" if given.data else "documentation"
            group, title = "embedding", f"Embedding in process, mixed lengths ({texts_of}), 2 threads"
        for backend in backends.values():
            backend.close()
    shown = [" --data DIR"] * bool(given.data) + [" --gguf FILE"] * bool(given.gguf) + [" --quality"] * given.quality
    command = "python -m benchmarks.embedding --peer-python PYTHON --peer-model MODEL" + "".join(shown)
    save(group, figures, title=title, command=command)


class Peer:
    """sentence-transformers in another process."""

    def __init__(self, python: str, model: str, *, threads: int) -> None:
        script = Path(__file__).with_name("peer_sentence_transformers.py")
        command = [python, str(script), model, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def encode(self, texts: Sequence[str], *, batch_size: int = 32) -> tuple[float, Vectors]:
        """Seconds and vectors; the time is the peer's own, without the way there."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"texts": texts, "batch_size": batch_size}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["seconds"], np.asarray(answer["vectors"], np.float32)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the peer ended: does its environment have torch and sentence-transformers?")
        answer: dict[str, Any] = json.loads(line)
        return answer


def encode(backend: Backend, texts: Sequence[str]) -> Vectors:
    """All texts, as the batching queue would: batches of similar length, one a worker at a time."""
    ids = backend.tokenise(texts)
    vectors = np.empty((len(texts), backend.dim), np.float32)
    groups = list(batches([len(i) for i in ids], token_budget=backend.token_budget))[::-1]
    with ThreadPoolExecutor(backend.workers) as workers:
        for group, made in zip(
            groups, workers.map(lambda g: backend.forward([ids[i] for i in g]), groups), strict=True
        ):
            vectors[group] = made
    return vectors


def speed(backends: Mapping[str, Backend], peer: Peer, sample: Sequence[str], *, rounds: int) -> list[Figure]:
    """Texts a second of each, and over the peer's in the same round; the default in all rounds, the others in some."""
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds):
        seconds.setdefault(PEER, []).append(peer.encode(sample)[0])
        seconds.setdefault("sentence-transformers, batch 8", []).append(peer.encode(sample, batch_size=8)[0])
        for name, backend in backends.items():
            if name != OURS and turn >= OTHERS_ROUNDS:
                continue
            started = time.perf_counter()
            encode(backend, sample)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    best_peer = [min(pair) for pair in zip(*list(seconds.values())[:2], strict=True)]
    ratio = [theirs / ours for theirs, ours in zip(seconds[PEER], seconds[OURS], strict=True)]
    figures = [
        figure(f"{OURS}, over {PEER}", "×", ratio, at_least=2.0),
        figure(
            f"{OURS}, over the peer's better batch of each round",
            "×",
            [theirs / ours for theirs, ours in zip(best_peer, seconds[OURS], strict=True)],
        ),
    ]
    for name, taken in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[PEER], taken, strict=False)]
        note = "" if name == PEER else f"{statistics.median(ratios):.2f} × the peer"
        figures.append(figure(name, "texts/s", [len(sample) / s for s in taken], note=note))
    return figures


def likeness(backends: Mapping[str, Backend], peer: Peer, sample: Sequence[str]) -> list[Figure]:
    """Cosine to the peer's vectors, and the largest difference between a text alone and in a batch."""
    _, reference = peer.encode(sample)
    figures = []
    for name, backend in backends.items():
        vectors = encode(backend, sample)
        alone = np.concatenate([backend.forward([ids]) for ids in backend.tokenise(sample[:64])])
        difference = float(np.abs(vectors[:64] - alone).max())
        figures.append(figure(f"{name}: cosine to the peer", "", (vectors * reference).sum(axis=1).tolist()))
        figures.append(figure(f"{name}: alone against batched", "", [difference], at_most=1e-3))
    return figures


def retrieval(backends: Mapping[str, Backend], peer: Peer, data: Path) -> list[Figure]:
    """nDCG@10 on Cranfield."""
    encoders: dict[str, Encode] = {PEER: lambda texts: peer.encode(texts)[1]}
    for name in (OURS, AS_STORED):
        encoders[name] = partial(encode, backends[name])
    return [figure(f"{name}: nDCG@10 on Cranfield", "", [ndcg(made, data)]) for name, made in encoders.items()]


def ndcg(encode: Encode, data: Path, *, depth: int = 10) -> float:
    """Mean over the queries, gain 2^grade - 1; Cranfield's codes 1 … 4 (1 is best) become grades 4 … 1."""
    documents, queries = encode(_abstracts(data)), encode(_questions(data))
    grades: dict[int, dict[int, int]] = {}
    for line in (data / "cranqrel").read_text().splitlines():
        query, document, code = (int(part) for part in line.split()[:3])
        grades.setdefault(query - 1, {})[document - 1] = 5 - code if 1 <= code <= 4 else 0
    scores = []
    for query, graded in grades.items():
        found = np.argsort(-(documents @ queries[query]))[:depth]
        discount = 1 / np.log2(np.arange(2, depth + 2))
        gains = np.array([2 ** graded.get(int(d), 0) - 1 for d in found])
        ideal = np.sort([2**grade - 1 for grade in graded.values()])[::-1][:depth]
        if ideal.sum() > 0:
            scores.append((gains * discount).sum() / (ideal * discount[: len(ideal)]).sum())
    return float(np.mean(scores))


def texts(data: Path | None = None, *, count: int = 128) -> list[str]:
    """A quarter abstracts or paragraphs, half sentences, a quarter questions, in random order, always the same."""
    if data is None:
        sample = json.loads((Path(__file__).parent / "data" / "embedding_texts.json").read_text())["texts"]
        return [str(text) for text in sample][:count]
    rng = random.Random(7)
    abstracts = [text for text in _abstracts(data) if text]
    sentences = [s.strip() for text in abstracts for s in text.split(" .") if len(s) > 30]
    kinds = (abstracts, sentences, sentences, _questions(data))
    chosen = [rng.choice(kinds[i % 4]) for i in range(count)]
    rng.shuffle(chosen)
    return chosen


def _abstracts(data: Path) -> list[str]:
    raw = (data / "cran.all.1400").read_text(errors="replace")
    return [" ".join(part.partition("\n.W\n")[2].split()) for part in re.split(r"^\.I \d+\n", raw, flags=re.M)[1:]]


def _questions(data: Path) -> list[str]:
    parts = re.split(r"^\.I \d+\n", (data / "cran.qry").read_text(), flags=re.M)[1:]
    return [" ".join(part.partition(".W\n")[2].split()) for part in parts]


def _open_all(folder: Path, gguf: Path | None) -> dict[str, Backend]:
    """Every way that can be had here, each without calibration."""
    store = load_settings().model_store / MODEL
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(store / name, folder)
    if gguf is not None:
        (folder / "model.gguf").symlink_to(gguf.resolve())
    had = {"onnxruntime"} | ({"openvino"} if openvino.available() else set()) | ({"llama.cpp"} if gguf else set())
    ways = {name: options for name, options in WAYS.items() if options["backend"] in had}
    return {name: open_backend(MODEL, folder, threads=2, options=options) for name, options in ways.items()}


if __name__ == "__main__":
    main()
