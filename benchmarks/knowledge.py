"""Precision, recall and F1 of the knowledge engine on sentences labelled by hand.

    python -m benchmarks.knowledge --models DIR [--show]

DIR is the model store. The sample (benchmarks/data/knowledge_sample.jsonl) is 58 sentences of three books in the public
domain, named in each row, without footnotes and marks of emphasis. It was labelled by reading, before the engine was
written: every named person, organisation, place, group, product, event, work and language (no dates, no numbers), and
every relation a sentence states between two of its named things by grammar alone, pronouns unresolved.

An entity is right when its spelling is (case, article and title aside), with its type in the stricter figure. A
relation is right when subject and object are, in this order, and the predicate holds one of the label's words. Rules
were made on the even rows; the odd ones were only scored. `--show` prints the differences of the even rows.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.engines.knowledge.knowledge import Output, read
from neuroedge.kit.names import key_of
from neuroedge.runtimes import entities

SAMPLE = Path(__file__).parent / "data" / "knowledge_sample.jsonl"


@dataclass(slots=True)
class Score:
    """Counts of one kind of answer."""

    right: int = 0
    given: int = 0
    labelled: int = 0
    found: int = 0
    """Labels that some answer met; differs from `right` when several answers say the same."""

    def add(self, *, right: int, given: int, labelled: int, found: int) -> None:
        """Count one sentence."""
        self.right += right
        self.given += given
        self.labelled += labelled
        self.found += found

    @property
    def precision(self) -> float:
        """Share of the answers that are right."""
        return self.right / max(1, self.given)

    @property
    def recall(self) -> float:
        """Share of the labels that were found."""
        return self.found / max(1, self.labelled)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)


@dataclass(slots=True)
class Scores:
    """The three kinds over some sentences."""

    names: Score = field(default_factory=Score)
    typed: Score = field(default_factory=Score)
    relations: Score = field(default_factory=Score)

    def add(self, label: dict[str, Any], answer: Output) -> list[str]:
        """Count a sentence; the differences in words."""
        wanted = {key_of(name): type_ for name, type_ in label["entities"]}
        got = {entity.key: entity.type for entity in answer.entities}
        _exact(self.names, set(wanted), set(got))
        _exact(self.typed, set(wanted.items()), set(got.items()))
        said = [(answer.entities[r.subject].key, r.predicate, answer.entities[r.object].key) for r in answer.relations]
        true = [(key_of(subject), tuple(words), key_of(object_)) for subject, words, object_ in label["relations"]]
        right = [statement for statement in said if any(_says(statement, one) for one in true)]
        missed = [one for one in true if not any(_says(statement, one) for statement in said)]
        self.relations.add(right=len(right), given=len(said), labelled=len(true), found=len(true) - len(missed))
        return [
            *(f"  + {key} {got[key]}" for key in got if wanted.get(key) != got[key]),
            *(f"  - {key} {wanted[key]}" for key in wanted if wanted[key] != got.get(key)),
            *(f"  + {' | '.join(statement)}" for statement in said if statement not in right),
            *(f"  - {one[0]} | {'/'.join(one[1])} | {one[2]}" for one in missed),
        ]


def _exact(score: Score, wanted: set[Any], got: set[Any]) -> None:
    both = len(wanted & got)
    score.add(right=both, given=len(got), labelled=len(wanted), found=both)


def _says(statement: tuple[str, str, str], label: tuple[str, tuple[str, ...], str]) -> bool:
    ends = (statement[0], statement[2]) == (label[0], label[2])
    return ends and bool(set(label[1]) & set(statement[1].split()))


async def score(labels: Sequence[dict[str, Any]], models: Path) -> tuple[list[Scores], list[Scores], list[str]]:
    """Scores of each even and each odd row, and the differences of the even ones."""
    parser = entities.load("en-core-web-sm", models / "en-core-web-sm", threads=1, options={})
    halves, differences = (list[Scores](), list[Scores]()), []
    try:
        parses = await parser.parse([label["text"] for label in labels])
    finally:
        parser.close()
    for row, (label, parse) in enumerate(zip(labels, parses, strict=True)):
        things, relations = read([label["text"]], [parse])
        answer = Output(entities=things, relations=relations, method="", models=[])
        halves[row % 2].append(Scores())
        lines = halves[row % 2][-1].add(label, answer)
        if lines and row % 2 == 0:
            differences += [label["text"], *lines]
    return (*halves, differences)


def main() -> int:
    """Score, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="print the differences of the even rows")
    given = parser.parse_args()
    labels = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    development, held_out, differences = asyncio.run(score(labels, given.models))
    if given.show:
        print("\n".join(differences))
    figures: list[Figure] = []
    for rows, scores in (("even", development), ("odd", held_out)):
        for kind, field_ in (("names", "names"), ("names and types", "typed"), ("relations", "relations")):
            parts = [getattr(one, field_) for one in scores]
            one, (low, high) = _sum(parts), _interval(parts)
            note = f"precision {one.precision:.3f}, recall {one.recall:.3f}, {one.labelled} labels, {one.given} answers"
            note += f"; n={len(parts)} sentences; 95 % interval {low:.3f} to {high:.3f} (bootstrap over sentences)"
            figures.append(figure(f"{kind}, F1 on {rows} rows", "", [one.f1], note=note))
    save(
        "knowledge",
        figures,
        title="Entities and relations, labelled by hand",
        command="python -m benchmarks.knowledge --models DIR",
    )
    return 0


def _sum(parts: Sequence[Score]) -> Score:
    total = Score()
    for one in parts:
        total.add(right=one.right, given=one.given, labelled=one.labelled, found=one.found)
    return total


def _interval(parts: Sequence[Score]) -> tuple[float, float]:
    return interval(len(parts), lambda rows: _sum([parts[i] for i in rows]).f1)


if __name__ == "__main__":
    raise SystemExit(main())
