"""Does a recall bring what was remembered, the version that holds now, and never what was erased?

    python -m benchmarks.memory [--data-dir DIR]

A server of its own is told the facts below, made from templates by a fixed seed: of each of 40 people five facts, one
to 365 days old. Half of the facts have an older version with another value in other words, 30 to 300 days older;
nothing marks it as outdated but its time. Each fact is asked for once, in words that are not those of the statement.
Other people's facts of the same kind are the distractors. Beside the recall stands the search (the same rows, no time),
asked the same in the same run. Nothing was tuned on this: half-lives of 30 (the default) and 365 days are both shown.
Intervals are of a bootstrap over people (seed 0), for one person's facts are alike.

Then every memory of ten people is deleted and asked for again; last, all of the user's data are erased, and the report
of the erasure, the list and a recall are looked at for what is left.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from benchmarks.serving import serve

TOP: Final = 5
HALF_LIVES_DAYS: Final = (365.0, 30.0)
ERASED_PEOPLE: Final = 10
_ERASURE_S: Final = 120.0
FIRST: Final = ("Amara", "Bjorn", "Chidi", "Dalia", "Emeka", "Farah", "Goran", "Hana")
LAST: Final = ("Okoro", "Lindqvist", "Marino", "Petrov", "Sato")
KINDS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    (
        "{} lives in {}.",
        "The new address of {} is in {}.",
        "Where is {}'s home?",
        ("Lagos", "Oslo", "Turin", "Kyoto", "Quito", "Perth", "Delhi"),
    ),
    (
        "{} works as a {}.",
        "Since the change of job {} is employed as a {}.",
        "What does {} do for a living?",
        ("welder", "nurse", "pilot", "baker", "lawyer", "plumber", "librarian"),
    ),
    (
        "{} cannot eat {}.",
        "The doctor found that {} must now avoid {}.",
        "Which food is {} allergic to?",
        ("peanuts", "milk", "wheat", "shellfish", "eggs", "soy", "celery"),
    ),
    (
        "The car of {} is a {} one.",
        "{} bought another car, it is {}.",
        "What colour is the vehicle that {} drives?",
        ("red", "blue", "green", "white", "black", "silver", "yellow"),
    ),
    (
        "{} is learning {}.",
        "In the evenings {} now takes lessons in {}.",
        "Which subject does {} study after work?",
        ("Welsh", "chess", "pottery", "algebra", "the violin", "welding", "astronomy"),
    ),
)
"""Statement, statement of the newer version, question, values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What holds of a person now, and what held before."""

    person: int
    question: str
    now: str
    now_days: float
    before: str | None
    before_days: float


def facts(seed: int = 0) -> list[Fact]:
    """Five of each person; half of them with an older version."""
    rng = np.random.default_rng(seed)
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    found = []
    for number, person in enumerate(people):
        for statement, newer, question, values in KINDS:
            value, old = rng.choice(values, 2, replace=False)
            changed = bool(rng.random() < 0.5)
            days = float(rng.uniform(1, 365))
            found.append(
                Fact(
                    person=number,
                    question=question.format(person),
                    now=(newer if changed else statement).format(person, value),
                    now_days=days,
                    before=statement.format(person, old) if changed else None,
                    before_days=days + float(rng.uniform(30, 300)),
                )
            )
    return found


class Product:
    """The engines of a running server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.times_ms: list[float] = []

    def remember(self, all_facts: Sequence[Fact]) -> dict[str, str]:
        """Store every version; its id by its text."""
        now = datetime.now(UTC)
        told = [(f.now, f.now_days) for f in all_facts] + [(f.before, f.before_days) for f in all_facts if f.before]
        ids: dict[str, str] = {}
        for start in range(0, len(told), 100):
            some = told[start : start + 100]
            items = [{"content": t, "occurred_at": (now - timedelta(days=d)).isoformat()} for t, d in some]
            stored = self._run("memory", {"items": items})["ids"]
            ids |= {text: str(id_) for (text, _), id_ in zip(some, stored, strict=True) if text}
        return ids

    def recall(self, question: str, *, half_life_days: float) -> list[str]:
        """Contents recalled, best first."""
        began = time.perf_counter()
        asked = {"query": question, "top_k": TOP, "half_life_days": half_life_days}
        answer = self._run("memory", {"recall": asked})
        self.times_ms.append(1000 * (time.perf_counter() - began))
        return [memory["content"] for memory in answer["memories"]]

    def search(self, question: str) -> list[str]:
        """Contents found, best first."""
        return [hit["content"] for hit in self._run("search", {"query": question, "top_k": TOP})["hits"]]

    def delete(self, memory_id: str) -> None:
        """Forget one."""
        self._client.delete(f"/v1/memories/{memory_id}").raise_for_status()

    def erase(self) -> tuple[dict[str, Any], int]:
        """Erase the caller's data; the report, and how many memories are still listed."""
        me = self._client.get("/auth/me").raise_for_status().json()["user_id"]
        order = self._client.post("/v1/privacy/erase", json={"user_id": me}).raise_for_status().json()
        until = time.monotonic() + _ERASURE_S
        while order["state"] != "done":
            if time.monotonic() > until:
                raise SystemExit("the erasure does not end")
            time.sleep(0.5)
            order = self._client.get(f"/v1/privacy/erasures/{order['id']}").raise_for_status().json()
        listed = self._client.get("/v1/memories").raise_for_status().json()["memories"]
        return order["report"], len(listed)

    def _run(self, engine: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(f"/v1/engines/{engine}/run", json=body)
        if answer.is_error:
            raise SystemExit(f"{engine}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()["result"]
        return found


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where the server works; a fresh folder by default")
    asked = parser.parse_args()
    with (
        nullcontext(asked.data_dir) if asked.data_dir else tempfile.TemporaryDirectory() as folder,
        serve(Path(folder)) as served,
        served.log_in() as client,
    ):
        figures = measured(Product(client))
    save(
        "memory",
        figures,
        title="Memory: facts recalled, outdated ones, erased ones",
        command="python -m benchmarks.memory",
    )


def measured(product: Product) -> list[Figure]:
    """All figures."""
    told = facts()
    ids = product.remember(told)
    by_search = [product.search(fact.question) for fact in told]
    base = _rates(told, by_search)
    figures: list[Figure] = []
    for half_life in HALF_LIVES_DAYS:
        answers = [product.recall(fact.question, half_life_days=half_life) for fact in told]
        figures += _of_recall(told, answers, base, half_life)
    figures += [
        figure(f"search: the fact among the first {TOP}", "share", [base[0]], note="the same rows, no time"),
        figure("search: outdated before what holds now", "share", [base[1]], note="baseline of the same run"),
        figure("a recall over HTTP", "ms", product.times_ms),
    ]
    return figures + _erased(product, told, ids)


def _of_recall(
    told: Sequence[Fact], answers: Sequence[list[str]], base: tuple[float, float], half_life: float
) -> list[Figure]:
    found, stale = _rates(told, answers)
    of = f"half-life {half_life:g} days"
    spread = [_interval(told, answers, part) for part in (0, 1)]
    changed = sum(fact.before is not None for fact in told)
    judged = half_life == HALF_LIVES_DAYS[0]
    return [
        figure(
            f"the fact among the first {TOP}, {of}",
            "share",
            [found],
            at_least=base[0] if judged else None,
            note=f"n={len(told)}; 95 % interval {spread[0][0]:.3f} to {spread[0][1]:.3f} (bootstrap over people)",
        ),
        figure(
            f"outdated before what holds now, {of}",
            "share",
            [stale],
            at_most=base[1] if judged else None,
            note=f"n={changed}; 95 % interval {spread[1][0]:.3f} to {spread[1][1]:.3f} (bootstrap over people)",
        ),
    ]


def _rates(told: Sequence[Fact], answers: Sequence[list[str]]) -> tuple[float, float]:
    """Share of facts found, and share of changed facts whose older version stands before the newer one, or alone."""
    found = [fact.now in answer for fact, answer in zip(told, answers, strict=True)]
    stale = [
        fact.before in answer and (fact.now not in answer or answer.index(fact.before) < answer.index(fact.now))
        for fact, answer in zip(told, answers, strict=True)
        if fact.before is not None
    ]
    return float(np.mean(found)), float(np.mean(stale))


def _interval(told: Sequence[Fact], answers: Sequence[list[str]], part: int) -> tuple[float, float]:
    people = [[i for i, fact in enumerate(told) if fact.person == person] for person in range(len(FIRST) * len(LAST))]

    def rate(drawn: NDArray[np.int64]) -> float:
        rows = [i for person in drawn for i in people[person]]
        return _rates([told[i] for i in rows], [answers[i] for i in rows])[part]

    return interval(len(people), rate)


def _erased(product: Product, told: Sequence[Fact], ids: dict[str, str]) -> list[Figure]:
    """What is left of deleted people's facts, then of everything."""
    gone = [fact for fact in told if fact.person < ERASED_PEOPLE]
    texts = {text for fact in gone for text in (fact.now, fact.before) if text}
    for text in texts:
        product.delete(ids[text])
    left = [
        bool(texts & {*product.recall(fact.question, half_life_days=365.0), *product.search(fact.question)})
        for fact in gone
    ]
    report, listed = product.erase()
    after = sum(len(product.recall(fact.question, half_life_days=365.0)) for fact in told[:: len(KINDS)])
    kept = listed + after
    return [
        figure("answers with a deleted memory", "share", [float(np.mean(left))], at_most=0.0, note=f"n={len(gone)}"),
        figure(
            "memories listed or recalled after the user's erasure",
            "",
            [kept],
            at_most=0.0,
            note=f"erased: {report.get('erased', report)}"[:200].replace("|", "/"),
        ),
    ]


if __name__ == "__main__":
    main()
