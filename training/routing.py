"""Trains the routing head: which engine serves a request, and whether a language model must be a large one.

    python -m training.routing --models DIR --out DIR [--scratch DIR]

Data: training/routing_requests.txt, written for NeuroEdge by one author (CC0): fifteen or more templates an engine,
three wordings of each. Templates are split 60 : 20 : 20 into train, dev and test within each engine, demanding ones by
themselves, and each side has its own words for the braces, so that no paraphrase of a template is on two sides. A
multinomial logistic regression over sentence vectors; its strength, the temperature (Guo et al. 2017), the level of
abstention and the Platt scaling of "demanding" are set on dev. Requests of the section `none` are served by no engine:
they set (dev) and score (test) abstention and are never trained on. Test is scored with the file as written. (It was
scored for two heads: the first could not tell demanding requests, AUC 0.14, and examples of them were added.)
"""

import argparse
import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from training.emotion_text import EMBEDDING_MODEL, embedded, platt

from neuroedge.engines.language.routing import DEMANDING
from neuroedge.kit.calibration import log_loss, softmax, temperature_of, top_label_error
from neuroedge.runtimes import text_classifier
from neuroedge.services.engines import discover

Array = NDArray[Any]

SEED = 20170806
REQUESTS = Path(__file__).with_name("routing_requests.txt")
SIDES = ("train", "dev", "test")
NOBODY = "none"
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
WORDS = {
    "topic": (
        ("renewable energy", "the new timetable", "data protection", "the French Revolution", "fractions"),
        ("water supply", "the canteen", "machine safety"),
        ("urban transport", "photosynthesis", "the annual budget"),
    ),
    "doc": (("contract", "report", "manual", "policy"), ("letter", "study"), ("handbook", "minutes")),
    "lang": (("Hindi", "German", "Spanish", "Tamil"), ("French", "Marathi"), ("Swahili", "Italian")),
    "name": (("Anna", "Mr Okafor", "Ravi", "Dr Weiss"), ("Lena", "Mrs Silva"), ("Tomás", "Priya")),
    "num": (("12", "30", "7", "100"), ("15", "40"), ("9", "25")),
}
WORDINGS = (
    ("{}", "Please help: {}", "I have a request. {}"),
    ("{}", "Could you do this? {}", "{} Thank you!"),
    ("{}", "Hello! {}", "{} That would be great."),
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request with the engine that serves it."""

    text: str
    target: str
    demanding: bool | None
    """Whether it asks much of a language model; None where none is needed."""
    template: int


def main() -> None:
    """Train, choose, calibrate, write, score once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--models", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    sides = requests()
    vectors = {s: embedded([r.text for r in sides[s]], models=given.models, scratch=given.scratch) for s in SIDES}
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / text_classifier.HEAD_FILE
    chosen = train(sides, vectors, path)
    chosen["zero_shot_temperature"] = zero_shot(sides["dev"], vectors["dev"], models=given.models)[0]
    figures = {s: asyncio.run(evaluate(given.out, sides[s], vectors[s])) for s in ("dev", "test")}
    figures["test"]["zero_shot_accuracy"] = zero_shot(sides["test"], vectors["test"], models=given.models)[1]
    card = model_card(path, chosen=chosen, figures=figures, rows={s: len(sides[s]) for s in SIDES})
    (given.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def requests(path: Path = REQUESTS) -> dict[str, list[Request]]:
    """The requests of train, dev and test."""
    templates: dict[str, list[tuple[str, bool | None]]] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            demanding = {"+": True, "-": False}.get(line[0])
            templates.setdefault(section, []).append((line.lstrip("+- "), demanding))
    drawn = np.random.default_rng(SEED)
    sides: dict[str, list[Request]] = {side: [] for side in SIDES}
    number = 0
    for target, lines in templates.items():
        for own in ([i for i, (_, much) in enumerate(lines) if bool(much) == wanted] for wanted in (False, True)):
            fifth = len(own) // 2 if target == NOBODY else round(len(own) / 5)
            for place, i in enumerate(drawn.permutation(own)):
                side = 2 if place < fifth else 1 if place < 2 * fifth else 0
                text, demanding = lines[int(i)]
                for k, wording in enumerate(WORDINGS[side]):
                    filled = wording.format(_filled(text, side, number + k))
                    sides[SIDES[side]].append(Request(text=filled, target=target, demanding=demanding, template=number))
                number += 1
    return sides


def _filled(template: str, side: int, turn: int) -> str:
    for slot, words in WORDS.items():
        template = template.replace("{" + slot + "}", words[side][turn % len(words[side])])
    return template


def train(sides: dict[str, list[Request]], vectors: dict[str, Array], path: Path) -> dict[str, Any]:
    """Fit on train, choose and calibrate on dev, write the head; what was chosen."""
    served = {s: np.array([r.target != NOBODY for r in sides[s]]) for s in SIDES}
    targets = sorted({r.target for r in sides["train"]})
    truth = {s: np.array([targets.index(r.target) for r in sides[s] if r.target != NOBODY]) for s in SIDES}
    own = {s: np.asarray(vectors[s][served[s]], np.float64) for s in SIDES}
    losses = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(own["train"], truth["train"])
        logits = model.decision_function(own["dev"])
        temperature = temperature_of(logits, truth["dev"])
        losses[strength] = log_loss(softmax(logits, temperature=temperature), truth["dev"])
        print(f"C {strength:g}: dev log loss {losses[strength]:.4f}, temperature {temperature:.3f}")
    strength = min(losses, key=lambda c: losses[c])
    model = LogisticRegression(C=strength, max_iter=2000).fit(own["train"], truth["train"])
    temperature = temperature_of(model.decision_function(own["dev"]), truth["dev"])
    best = softmax(model.decision_function(vectors["dev"]), temperature=temperature).max(axis=1)
    level = abstention_level(best[served["dev"]], best[~served["dev"]])
    asks = {s: np.array([r.demanding is not None for r in sides[s]]) for s in ("train", "dev")}
    much = {s: np.array([bool(r.demanding) for r in sides[s]])[asks[s]] for s in ("train", "dev")}
    demand = LogisticRegression(C=3.0, class_weight="balanced", max_iter=2000)
    demand.fit(vectors["train"][asks["train"]], much["train"])
    scores = demand.decision_function(vectors["dev"][asks["dev"]])
    scale, shift = platt(scores[:, None], much["dev"][:, None])
    weights = np.vstack([model.coef_, demand.coef_]).T
    n, dim = len(targets), weights.shape[0]
    arrays: dict[str, Any] = {
        "labels": np.array([*targets, DEMANDING]),
        "embedding_model": np.array(EMBEDDING_MODEL),
        "thresholds": np.full(n + 1, 0.5, np.float32),
        "abstain_below": np.float32(level),
        "w0": np.hstack([np.eye(dim), -np.eye(dim)]).astype(np.float16),
        "b0": np.zeros(2 * dim, np.float32),
        "w1": np.vstack([weights, -weights]).astype(np.float16),
        "b1": np.concatenate([model.intercept_, demand.intercept_]).astype(np.float32),
        "vector_scale": np.concatenate([np.full(n, 1 / temperature), scale]).astype(np.float32),
        "vector_shift": np.concatenate([np.zeros(n), shift]).astype(np.float32),
        "exclusive": np.int64(n),
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return {
        "strength": strength,
        "temperature": round(temperature, 4),
        "abstain_below": round(level, 4),
        "dev_log_loss": round(losses[strength], 4),
    }


def abstention_level(served: Array, strange: Array) -> float:
    """Where the share of `served` requests kept plus that of `strange` ones left is largest."""
    levels = np.unique(np.concatenate([served, strange]))
    gains = [(served >= level).mean() + (strange < level).mean() for level in levels]
    return float(levels[int(np.argmax(gains))])


async def evaluate(folder: Path, asked: Sequence[Request], vectors: Array) -> dict[str, Any]:
    """Figures of the head as written, through the product's runtime."""
    head = text_classifier.load("routing-head", folder, threads=1, options={})
    try:
        p = await head.predict(vectors)
    finally:
        head.close()
    targets = list(head.labels[: head.exclusive])
    served = np.array([r.target != NOBODY for r in asked])
    truth = np.array([targets.index(r.target) for r in asked if r.target != NOBODY])
    own = np.asarray(p[served][:, : head.exclusive], np.float64)
    right, kept = own.argmax(axis=1) == truth, own.max(axis=1) >= head.abstain_below
    strange = p[~served][:, : head.exclusive].max(axis=1) < head.abstain_below
    asks = np.array([r.demanding is not None for r in asked])
    much = np.array([bool(r.demanding) for r in asked])[asks]
    demand = p[asks][:, head.exclusive]
    figures = {
        "requests": len(truth),
        "templates": len({r.template for r in asked if r.target != NOBODY}),
        "accuracy": right.mean(),
        "top3_accuracy": (np.argsort(-own, axis=1)[:, :3] == truth[:, None]).any(axis=1).mean(),
        "ece": top_label_error(own, truth),
        "log_loss": log_loss(own, truth),
        "coverage": kept.mean(),
        "accuracy_where_answered": right[kept].mean(),
        "out_of_scope_requests": int((~served).sum()),
        "out_of_scope_abstained": strange.mean(),
        "demand_requests": int(asks.sum()),
        "demand_accuracy": ((demand >= 0.5) == much).mean(),
        "demand_majority_accuracy": max(much.mean(), 1 - much.mean()),
        "demand_auc": roc_auc_score(much, demand),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def zero_shot(asked: Sequence[Request], vectors: Array, *, models: Path) -> tuple[float, float]:
    """Temperature and accuracy of the cosine with the engines' titles: the baseline, and classification's default."""
    titles = {cls.name: f"{cls.name.replace('_', ' ')}: {cls.title}" for cls in discover()}
    targets = sorted({r.target for r in asked} & set(titles))
    names = embedded([titles[t] for t in targets], models=models, scratch=None)
    some = np.array([r.target in targets for r in asked])
    truth = np.array([targets.index(r.target) for r in asked if r.target in targets])
    logits = np.asarray(vectors[some] @ names.T, np.float64)
    return round(temperature_of(logits, truth), 4), round(float((logits.argmax(axis=1) == truth).mean()), 4)


def model_card(path: Path, *, chosen: dict[str, Any], figures: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """What stands in card.json."""
    return {
        "model": "routing-head",
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "data": "training/routing_requests.txt, written for NeuroEdge by one author, CC0; split by template",
        "rows": rows,
        "embedding_model": EMBEDDING_MODEL,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": SEED,
        "chosen_on_dev": chosen,
        "figures": figures,
    }


if __name__ == "__main__":
    main()
