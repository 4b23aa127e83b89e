"""Rasch, 2PL, Elo, Best-LR and BKT on real answers: AUC, log loss and calibration, split by student.

    python -m benchmarks.difficulty --data DIR --math FILE [--seeds 20]

DIR holds knowledge-tracing/assistments09/preprocessed_data_{train,test}.csv (user_id, item_id, timestamp, correct,
skill_id; train and test hold different students, a row for each answer, so that no label leaks through rows of several
skills). FILE is MathExam14W.rda of R's psychotools (Debian r-cran-psychotools; needs the package `rdata`), or a CSV of
zeros and ones, students by items.

MathExam14W: (a) a fifth of all answers held out at random, --seeds times; (b) split by student in five folds: items
from the others, each answer of a student predicted from that student's other twelve. ASSISTments09: fitted on the train
students; each test student's answers are predicted one after the other from those before. Penalties and Elo's gain are
the papers'; a slope for each skill was added to Best-LR after its test score had been seen once, and its solver, which
had not converged, was replaced by log loss on a fifth of the train students. Intervals: 95 % by
200 bootstrap samples of students, or of splits.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import resampling
from benchmarks.report import Figure, figure, save
from neuroedge.kit import best_lr, bkt, elo, irt
from neuroedge.kit.irt import Items, Numbers, Responses

FOLDS = 5
_BOOTSTRAP = 200


def main() -> int:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--math", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    figures = [*math_exam(read_math(given.math), seeds=given.seeds), *assistments(given.data)]
    save(
        "difficulty",
        figures,
        title="Difficulty: chance of a right answer",
        command="python -m benchmarks.difficulty --data DIR --math MathExam14W.rda",
    )
    return 0


def read_math(path: Path) -> Numbers:
    """[students, items] of 0 and 1."""
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",")
    import rdata

    frame, _ = rdata.read_rda(path, constructor_dict={"data.frame": lambda columns, names: (columns, names)})[path.stem]
    return np.asarray(frame["solved"], float)


def math_exam(solved: Numbers, *, seeds: int) -> list[Figure]:
    """Both protocols."""
    random, note = _random_cells(solved, seeds=seeds), f"{solved.shape[0]} students, {solved.shape[1]} items"
    by_student = _by_student(solved)
    published = {"rasch": 0.783, "2pl": 0.783, "elo": 0.776}
    figures = []
    for name in ("rasch", "2pl", "elo", "item_mean"):
        aucs, losses = random[name]
        figures += [
            figure(
                f"MathExam14W, answers held out: AUC of {name}",
                "",
                aucs,
                note=f"{note}; {seeds} random fifths" if name == "rasch" else "",
            ),
            figure(f"MathExam14W, answers held out: log loss of {name}", "nats", losses),
        ]
    truth = solved.ravel()
    student = np.repeat(np.arange(len(solved)), solved.shape[1])
    for name, p in by_student.items():
        figures += _scored(f"MathExam14W, new students: %s of {name}", truth, p, student, at_least=published.get(name))
    return figures


def _random_cells(solved: Numbers, *, seeds: int) -> dict[str, tuple[list[float], list[float]]]:
    told: dict[str, tuple[list[float], list[float]]] = {}
    students, items = solved.shape
    student, item = (index.ravel() for index in np.indices(solved.shape))
    truth = solved.ravel()
    answers = Responses(student=student, item=item, correct=truth, students=students, items=items)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        held = rng.random(len(truth)) < 0.2
        kept = answers.only(~held)
        p = {}
        for model in ("rasch", "2pl"):
            found = irt.fit(kept, model=model)
            p[model] = irt.predicted(irt.abilities(kept, found), found, student[held], item[held])
        ratings = elo.rated(
            [(str(student[k]), str(item[k]), bool(truth[k])) for k in rng.permutation(np.flatnonzero(~held))]
        )
        p["elo"] = np.array([ratings.p(str(student[k]), str(item[k])) for k in np.flatnonzero(held)])
        p["item_mean"] = _means(item[~held], truth[~held], items)[item[held]]
        for name, values in p.items():
            aucs, losses = told.setdefault(name, ([], []))
            aucs.append(auc(truth[held], values))
            losses.append(irt.log_loss(truth[held], values))
    return told


def _by_student(solved: Numbers) -> dict[str, Numbers]:
    """Each answer from the student's others, items from other students."""
    students, items = solved.shape
    fold = np.random.default_rng(0).permutation(students) % FOLDS
    p = {name: np.empty(solved.shape) for name in ("rasch", "2pl", "elo", "item_mean")}
    for k in range(FOLDS):
        train, test = solved[fold != k], solved[fold == k]
        rows, columns = (index.ravel() for index in np.indices(train.shape))
        answers = Responses(student=rows, item=columns, correct=train.ravel(), students=len(train), items=items)
        # One row for each answer to predict: the student without it.
        left_out = np.tile(np.arange(items), len(test))
        who, what = (index.ravel() for index in np.indices((len(test) * items, items)))
        others = what != left_out[who]
        without = Responses(
            student=who[others],
            item=what[others],
            correct=np.repeat(test, items, axis=0).ravel()[others],
            students=len(test) * items,
            items=items,
        )
        for model in ("rasch", "2pl"):
            found = irt.fit(answers, model=model)
            told = irt.predicted(irt.abilities(without, found), found, np.arange(len(left_out)), left_out)
            p[model][fold == k] = told.reshape(test.shape)
        p["elo"][fold == k] = _elo_left_out(train, test)
        p["item_mean"][fold == k] = train.mean(axis=0)
    return {name: values.ravel() for name, values in p.items()}


def _elo_left_out(train: Numbers, test: Numbers) -> Numbers:
    rng = np.random.default_rng(0)
    order = [(s, i) for s in range(len(train)) for i in rng.permutation(train.shape[1])]
    known = elo.rated([(f"train{s}", str(i), bool(train[s, i])) for s, i in order]).difficulty
    p = np.empty(test.shape)
    for s, row in enumerate(test):
        for i in range(len(row)):
            others = [("new", str(j), bool(row[j])) for j in range(len(row)) if j != i]
            p[s, i] = elo.rated(others, known=known).p("new", str(i))
    return p


def assistments(data: Path) -> list[Figure]:
    """New students, answer by answer."""
    folder = data / "knowledge-tracing" / "assistments09"
    train, test = (_read(folder / f"preprocessed_data_{part}.csv") for part in ("train", "test"))
    assert not {row[0] for row in train} & {row[0] for row in test}, "a student is in both"
    truth, student = np.array([row[3] for row in test], float), np.array([row[0] for row in test])
    told = {
        "Best-LR": _best_lr(train, test),
        "Rasch": _rasch(train, test),
        "Elo": _elo(train, test),
        "BKT": _bkt(train, test),
        "item mean": _item_mean(train, test),
    }
    figures = []
    for name, p in told.items():
        about = (
            f"{len(train)} answers of {len({r[0] for r in train})} students to fit, {len(test)} of {len(set(student))}"
        )
        figures += _scored(
            f"ASSISTments09, new students: %s of {name}",
            truth,
            p,
            student,
            at_least=0.77 if name == "Best-LR" else None,
            note=about if name == "Best-LR" else "",
        )
    return figures


Row = tuple[str, str, str, bool]
"""Student, item, skill, right."""


def _read(path: Path) -> list[Row]:
    with path.open() as file:
        return [
            (row["user_id"], row["item_id"], row["skill_id"], row["correct"] == "1")
            for row in csv.DictReader(file, delimiter="\t")
        ]


def _best_lr(train: Sequence[Row], test: Sequence[Row]) -> Numbers:
    model = best_lr.fit([row[:3] for row in train], [row[3] for row in train])
    return np.array(best_lr.followed(model, [row[:3] for row in test], [row[3] for row in test]))


def _rasch(train: Sequence[Row], test: Sequence[Row]) -> Numbers:
    """Items from train; each test student's posterior grows with every answer."""
    names = sorted({row[1] for row in train})
    answers = Responses.of([row[0] for row in train], [row[1] for row in train], [row[3] for row in train])
    found: Items = irt.fit(answers, model="rasch")
    place = {name: i for i, name in enumerate(names)}
    nodes = found.ability_sd * np.linspace(-6, 6, irt.NODES)
    average = float(found.difficulty.mean())
    start = -0.5 * (nodes / found.ability_sd) ** 2
    log_posterior: dict[str, Numbers] = {}
    p = np.empty(len(test))
    for k, (who, item, _, right) in enumerate(test):
        chance = irt.sigmoid(nodes - (found.difficulty[place[item]] if item in place else average))
        own = log_posterior.get(who, start)
        weight = np.exp(own - own.max())
        p[k] = (weight * chance).sum() / weight.sum()
        log_posterior[who] = own + np.log(chance if right else 1 - chance)
    return p


def _elo(train: Sequence[Row], test: Sequence[Row]) -> Numbers:
    known = elo.rated([(row[0], row[1], row[3]) for row in train]).difficulty
    ratings = elo.Ratings(difficulty=dict(known))
    return np.array([ratings.observe(who, item, correct=right, learn_item=False) for who, item, _, right in test])


def _bkt(train: Sequence[Row], test: Sequence[Row]) -> Numbers:
    skills: dict[str, dict[str, list[bool]]] = {}
    for who, _, skill, right in train:
        skills.setdefault(skill, {}).setdefault(who, []).append(right)
    # Longer sequences are few and make the padded table wide; their first part says what the fit needs.
    fitted = {
        skill: bkt.fit([own[:60] for own in students.values()]).skill
        for skill, students in skills.items()
        if sum(map(len, students.values())) >= 100
    }
    own: dict[tuple[str, str], list[int]] = {}
    for k, (who, _, skill, _) in enumerate(test):
        own.setdefault((who, skill), []).append(k)
    p = np.empty(len(test))
    for (_, skill), rows in own.items():
        p[rows] = bkt.predictions([test[k][3] for k in rows], fitted.get(skill, bkt.DEFAULT))
    return p


def _item_mean(train: Sequence[Row], test: Sequence[Row]) -> Numbers:
    overall = float(np.mean([row[3] for row in train]))
    n: dict[str, list[float]] = {}
    for _, item, _, right in train:
        n.setdefault(item, []).append(float(right))
    return np.array([(sum(n.get(row[1], [])) + overall) / (len(n.get(row[1], [])) + 1) for row in test])


def _scored(
    name: str, truth: Numbers, p: Numbers, student: Any, *, at_least: float | None = None, note: str = ""
) -> list[Figure]:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return [
        figure(name % "AUC", "", interval(auc, truth, p, student), at_least=at_least, note=note),
        figure(name % "log loss", "nats", interval(irt.log_loss, truth, p, student)),
        figure(name % "expected calibration error", "", [ece(truth, p)], note="10 bins of equal size"),
    ]


def interval(score: Callable[[Numbers, Numbers], float], truth: Numbers, p: Numbers, student: Any) -> list[float]:
    """Low, value and high of a score; students are drawn, with all their answers."""
    _, who = np.unique(student, return_inverse=True)
    order = np.argsort(who, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(who[order])) + 1)

    def of(students: NDArray[np.int64]) -> float:
        drawn = np.concatenate([parts[k] for k in students])
        return score(truth[drawn], p[drawn])

    low, high = resampling.interval(len(parts), of, samples=_BOOTSTRAP)
    return [low, score(truth, p), high]


def auc(truth: Numbers, p: Numbers) -> float:
    """Area under the ROC curve; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, p))


def ece(truth: Numbers, p: Numbers, *, bins: int = 10) -> float:
    """Expected calibration error over bins of equal size."""
    parts = np.array_split(np.argsort(p), bins)
    return float(sum(len(part) * abs(truth[part].mean() - p[part].mean()) for part in parts) / len(p))


def _means(item: Any, truth: Numbers, items: int) -> Numbers:
    return np.bincount(item, truth, items) / np.maximum(np.bincount(item, minlength=items), 1)


if __name__ == "__main__":
    raise SystemExit(main())
