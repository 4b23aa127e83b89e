"""Speaker verification on recorded voices: equal error rate, calibration, decisions, and the check for one person only.

    python -m benchmarks.speaker_verification --data DIR --models DIR [--cache FILE] [--fit]

DIR of --data holds Debian packages, each unpacked with `dpkg -x PACKAGE DIR/NAME`: klettres-data, ktuberling-data
(KDE's games: letters, syllables and words, spoken by volunteers), asterisk-core-sounds-{en,es,fr,it,ru}-wav,
asterisk-prompt-{es-co,fr-armelle,it-menardi-wav} (telephone prompts, 8 kHz, professional speakers),
pocketsphinx-testdata (read books). Prompts are joined to utterances of 3, 6 and 12 s; enrolment and trials share none.

Speakers are split by language: odd ones fit the calibration (--fit prints it for kit/speaker_calibration.py), even ones
are scored once. A folder counts as one speaker, though some may hold more than one: that can only raise the error rate.
Confounds: nearly every speaker has a language and a microphone of their own, so that other speakers are easier to tell
than in one room; figures on same-language pairs are given apart, and so is one speaker in two languages. No children.
"""

import argparse
import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from benchmarks.report import Figure, figure, save
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.kit.diarization import cut, sliding_windows
from neuroedge.kit.speaker_calibration import calibration_of
from neuroedge.kit.speaker_samples import POOLING, other_speech_s
from neuroedge.kit.speaker_scores import (
    Calibration,
    Numbers,
    cllr_bits,
    decide,
    equal_error_rate,
    features,
    fit,
    pooled,
    score,
    threshold_accepting,
    threshold_rejecting,
)
from neuroedge.kit.voice_quality import MIN_OTHER_S, MIN_OTHER_SHARE
from neuroedge.runtimes import silero, speaker

ENROL_S = 12.0
PROBES_S = (3.0, 3.0, 6.0, 6.0, 12.0)
FAR, FRR = 0.01, 0.05
SEED = 20061
_GAP_S = 0.15
_NAMED = {"en_US_f_Allison": "allison", "es_MX_f_Allison": "allison"}
_SOUND = (".wav", ".ogg", ".gsm")


@dataclass(frozen=True, slots=True)
class Session:
    """One person's recordings in one language."""

    name: str
    person: str
    language: str
    source: str
    clips: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """An utterance as the encoder hears it."""

    session: int
    kind: str
    """enrol or probe."""
    asked_s: float
    speech_s: float
    other_s: float
    vector: Floats


@dataclass(frozen=True, slots=True)
class Trials:
    """Pairs of an enrolment and a probe."""

    scores: Numbers
    speech_s: Numbers
    same: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    same_language: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    asked_s: Numbers
    people: list[tuple[str, str]]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="keeps the vectors between runs (.npz)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fit", action="store_true", help="fit on the development speakers and print the constants")
    given = parser.parse_args()
    sessions = discover(given.data)
    heard = load(given.cache, sessions) if given.cache and given.cache.exists() else None
    if heard is None:
        heard = asyncio.run(listen(sessions, given.models, threads=given.threads))
        if given.cache:
            keep(given.cache, heard)
    dev, test = split(sessions)
    people = {part: len({sessions[i].person for i in chosen}) for part, chosen in (("dev", dev), ("test", test))}
    print(f"{len(sessions)} sessions; people: {people}; utterances: {len(heard)}")
    if given.fit:
        compare_methods(sessions, heard, dev)
        print_constants(fitted(sessions, heard, dev))
        return
    calibration = calibration_of("resemblyzer-ge2e")
    assert calibration is not None
    asyncio.run(report(sessions, heard, test, calibration, given.models, threads=given.threads))


def discover(data: Path) -> list[Session]:
    """The people under a folder of unpacked packages."""
    folders = [p for p in sorted(data.glob("*/usr/share/klettres/*/syllab")) if p.is_dir()]
    folders += [p for p in sorted(data.glob("*/usr/share/ktuberling/sounds/*")) if p.is_dir() and "sr" not in p.name]
    folders += sorted(data.glob("*/usr/share/ktuberling/sounds/sr"))
    found = [_folder(folder) for folder in folders]
    for sounds in sorted(data.glob("asterisk-*/usr/share/asterisk/sounds")):
        found.append(_prompts(sounds))
    return [session for session in found if len(session.clips) >= 10]


def _folder(folder: Path) -> Session:
    klettres = folder.parent.parent.name == "klettres"
    language = (folder.parent.name if klettres else folder.name).split("_")[0].split("@")[0]
    clips = tuple(sorted(p for p in folder.rglob("*") if p.suffix in _SOUND))
    source = "klettres" if klettres else "ktuberling"
    return Session(f"{source}/{folder.parent.name}/{folder.name}", f"{source}/{language}", language, source, clips)


def _prompts(sounds: Path) -> Session:
    package = sounds.parents[3].name
    clips = tuple(sorted(p for p in sounds.rglob("*") if p.suffix in _SOUND and "silence" not in str(p)))
    first = clips[0].relative_to(sounds).parts[0]
    language = package.removeprefix("asterisk-core-sounds-").removeprefix("asterisk-prompt-")[:2]
    return Session(package, _NAMED.get(first, package), language, "asterisk", clips)


def split(sessions: Sequence[Session]) -> tuple[list[int], list[int]]:
    """Sessions of every other language, by its name; a person in two languages stays on one side."""
    names = sorted({session.language for session in sessions})
    side = {name: i % 2 for i, name in enumerate(names)}
    side["es"] = side["en"]
    parts: tuple[list[int], list[int]] = ([], [])
    for i, session in enumerate(sessions):
        parts[side[session.language]].append(i)
    return parts


def read(path: Path) -> Floats:
    """Mono float32 [n] at 16 kHz; nothing of a file that cannot be decoded."""
    try:
        samples, rate_hz = (
            _gsm(path) if path.suffix == ".gsm" else soundfile.read(path, dtype="float32", always_2d=True)
        )
    except (soundfile.LibsndfileError, av.FFmpegError):
        return np.zeros(0, np.float32)
    resampled: Floats = soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    return resampled


def _gsm(path: Path) -> tuple[Floats, int]:
    with av.open(str(path), format="gsm") as container:
        frames = [frame.to_ndarray().reshape(-1, 1) for frame in container.decode(audio=0)]
    samples: Floats = np.concatenate(frames).astype(np.float32) / np.float32(32_768)
    return samples, 8_000


class Ears:
    """The path of the engine `speaker` from samples to a vector."""

    def __init__(self, models: Path, *, threads: int) -> None:
        self.voice = silero.load("silero-vad", models / "silero-vad", threads=threads, options={})
        self.encoder = speaker.load("resemblyzer-ge2e", models / "resemblyzer-ge2e", threads=threads, options={})
        self.calibration = calibration_of("resemblyzer-ge2e")

    async def hear(self, samples: Floats) -> tuple[Floats | None, float, float]:
        """Vector, seconds of speech, seconds that seem another person's."""
        spans = [(span.start_s, span.end_s) for span in await self.voice.speech(samples)]
        windows = sliding_windows(spans, tuning=POOLING)
        if not windows:
            return None, 0.0, 0.0
        vectors = await self.encoder.encode(cut(samples, windows, rate_hz=SAMPLE_RATE_HZ, tuning=POOLING))
        other = other_speech_s(vectors, windows, spans, self.calibration)
        return pooled(vectors), sum(end - start for start, end in spans), other

    def close(self) -> None:
        """End the models' threads."""
        self.voice.close()
        self.encoder.close()


def utterances(session: Session, *, seed: int) -> list[tuple[str, float, Floats]]:
    """(kind, length asked for, samples) made of clips that no other utterance of the session has."""
    clips = list(session.clips)
    random.Random(f"{seed}/{session.name}").shuffle(clips)
    gap = np.zeros(round(_GAP_S * SAMPLE_RATE_HZ), np.float32)
    made: list[tuple[str, float, Floats]] = []
    rest = iter(clips)
    for kind, asked in (("enrol", ENROL_S), *(("probe", s) for s in PROBES_S)):
        parts: list[Floats] = []
        while sum(map(len, parts)) < asked * SAMPLE_RATE_HZ:
            clip = next(rest, None)
            if clip is None:
                return made
            parts += [read(clip), gap]
        made.append((kind, asked, np.concatenate(parts)[: round((asked + 1) * SAMPLE_RATE_HZ)]))
    return made


async def listen(sessions: Sequence[Session], models: Path, *, threads: int) -> list[Heard]:
    """Every utterance of every session."""
    ears = Ears(models, threads=threads)
    heard = []
    for number, session in enumerate(sessions):
        for kind, asked, samples in utterances(session, seed=SEED):
            vector, speech_s, other = await ears.hear(samples)
            if vector is not None and speech_s >= asked / 3:
                heard.append(Heard(number, kind, asked, speech_s, other, vector))
    ears.close()
    return heard


def keep(path: Path, heard: Sequence[Heard]) -> None:
    """Write the vectors."""
    np.savez(
        path,
        vectors=np.stack([h.vector for h in heard]),
        rows=np.array([(h.session, h.kind == "enrol", h.asked_s, h.speech_s, h.other_s) for h in heard]),
    )


def load(path: Path, sessions: Sequence[Session]) -> list[Heard]:
    """What `keep` wrote."""
    with np.load(path) as file:
        rows, vectors = file["rows"], file["vectors"]
    if len(rows) and int(rows[:, 0].max()) >= len(sessions):
        raise SystemExit(f"{path} was made of other data; remove it")
    return [
        Heard(int(i), "enrol" if enrol else "probe", float(asked), float(speech), float(other), vector)
        for (i, enrol, asked, speech, other), vector in zip(rows, vectors, strict=True)
    ]


def trials(
    sessions: Sequence[Session], heard: Sequence[Heard], chosen: Sequence[int], compare: Callable[[Heard, Heard], float]
) -> Trials:
    """Every enrolment against every probe of the chosen sessions of which it is known whether it is one person.

    Two KDE folders of one language may or may not be one person's: left out. So are the speaker of two languages.
    """
    rows = []
    inside = set(chosen)
    enrolled = [h for h in heard if h.kind == "enrol" and h.session in inside]
    probes = [h for h in heard if h.kind == "probe" and h.session in inside]
    for one, other in itertools.product(enrolled, probes):
        a, b = sessions[one.session], sessions[other.session]
        if a is not b and (
            a.person == b.person or (a.language == b.language and "asterisk" not in (a.source, b.source))
        ):
            continue
        rows.append(
            (
                compare(one, other),
                min(one.speech_s, other.speech_s),
                a is b,
                a.language == b.language,
                other.asked_s,
                (a.person, b.person),
            )
        )
    scores, speech_s, same, language, asked, people = zip(*rows, strict=True)
    return Trials(
        np.array(scores), np.array(speech_s), np.array(same), np.array(language), np.array(asked), list(people)
    )


def _surely_two(a: Session, b: Session) -> bool:
    return a.person != b.person and (a.language != b.language or "asterisk" in (a.source, b.source))


def centre_of(sessions: Sequence[Session], heard: Sequence[Heard], chosen: Sequence[int]) -> Floats:
    """The mean over people of the mean of each one's vectors, in the precision it is kept in."""
    people: dict[str, list[Floats]] = {}
    for one in heard:
        if one.session in set(chosen):
            people.setdefault(sessions[one.session].person, []).append(one.vector)
    mean = np.mean([np.mean(vectors, axis=0) for vectors in people.values()], axis=0)
    rounded: Floats = mean.astype(np.float16).astype(np.float32)
    return rounded


def compare_methods(sessions: Sequence[Session], heard: Sequence[Heard], dev: Sequence[int]) -> None:
    """Equal error rates on the development speakers: bare cosine, centred, centred with a cohort (S-norm)."""
    centre = centre_of(sessions, heard, dev)
    nothing = np.zeros_like(centre)
    cohort = [h for h in heard if h.session in set(dev) and h.kind == "enrol"]

    def snorm(one: Heard, other: Heard) -> float:
        raw = score(one.vector, other.vector, centre)
        parts = []
        for side in (one, other):
            away = {sessions[one.session].language, sessions[other.session].language}
            against = [score(side.vector, c.vector, centre) for c in cohort if sessions[c.session].language not in away]
            parts.append((raw - np.mean(against)) / np.std(against))
        return float(sum(parts) / 2)

    for name, compare in (
        ("cosine", lambda a, b: score(a.vector, b.vector, nothing)),
        ("centred cosine", lambda a, b: score(a.vector, b.vector, centre)),
        ("centred cosine, S-norm", snorm),
    ):
        found = trials(sessions, heard, dev, compare)
        parts = [f"{seconds:g} s {_eer(found, found.asked_s == seconds):.4f}" for seconds in sorted(set(PROBES_S))]
        print(
            f"dev EER {name}: all {_eer(found, found.asked_s > 0):.4f}; {', '.join(parts)}; "
            f"same language {_eer(found, found.same | found.same_language):.4f}"
        )


def _eer(found: Trials, where: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> float:
    return equal_error_rate(found.scores[where & found.same], found.scores[where & ~found.same])[0]


def fitted(sessions: Sequence[Session], heard: Sequence[Heard], dev: Sequence[int]) -> Calibration:
    """The calibration of the development speakers."""
    centre = centre_of(sessions, heard, dev)
    found = trials(sessions, heard, dev, lambda a, b: score(a.vector, b.vector, centre))
    weights = fit(features(found.scores, found.speech_s), found.same)
    ratios = features(found.scores, found.speech_s) @ weights
    same, different = ratios[found.same], ratios[~found.same]
    return Calibration(
        model_id="resemblyzer-ge2e",
        centre=centre,
        weights=tuple(float(round(w, 4)) for w in weights),  # type: ignore[arg-type]
        same_llr=round(threshold_accepting(different, FAR), 3),
        different_llr=round(threshold_rejecting(same, FRR), 3),
        far=FAR,
        frr=FRR,
        source="dev",
    )


def print_constants(found: Calibration) -> None:
    """As kit/speaker_calibration.py has them."""
    import base64

    print(f"weights={found.weights} same_llr={found.same_llr} different_llr={found.different_llr}")
    print("centre:", base64.b64encode(found.centre.astype(np.float16).tobytes()).decode())


async def report(
    sessions: Sequence[Session],
    heard: Sequence[Heard],
    test: Sequence[int],
    calibration: Calibration,
    models: Path,
    *,
    threads: int,
) -> None:
    """Score the test speakers once."""
    found = trials(sessions, heard, test, lambda a, b: score(a.vector, b.vector, calibration.centre))
    bare = trials(sessions, heard, test, lambda a, b: score(a.vector, b.vector, np.zeros_like(calibration.centre)))
    ratios = features(found.scores, found.speech_s) @ np.array(calibration.weights)
    judged = Trials(ratios, found.speech_s, found.same, found.same_language, found.asked_s, found.people)
    everything = found.asked_s > 0
    people = len({sessions[i].person for i in test})
    note = f"{people} people, {int(found.same.sum())} same and {int((~found.same).sum())} different pairs"
    figures = [
        _with_interval("Equal error rate, all lengths", judged, everything, at_most=0.1, note=note),
        _with_interval("Equal error rate, bare cosine (baseline)", bare, everything, note="not centred"),
    ]
    for seconds in sorted(set(PROBES_S)):
        figures.append(_with_interval(f"Equal error rate, {seconds:g} s", judged, found.asked_s == seconds))
    alike = found.same | found.same_language
    figures.append(
        _with_interval(
            "Equal error rate, other people in the same language only",
            judged,
            alike,
            note=f"{int((alike & ~found.same).sum())} different pairs",
        )
    )
    same, different = ratios[found.same], ratios[~found.same]
    figures.append(figure("Calibration cost (Cllr)", "bits", [cllr_bits(same, different)], at_most=0.5))
    far = float(np.mean([decide(r, calibration) == "same" for r in different]))
    frr = float(np.mean([decide(r, calibration) == "different" for r in same]))
    unsure = float(np.mean([decide(r, calibration) == "uncertain" for r in same]))
    figures += [
        figure("False acceptances where it says same", "share", [far], note=f"chosen for {calibration.far:g}"),
        figure(
            "False rejections at the threshold for different", "share", [frr], note=f"chosen for {calibration.frr:g}"
        ),
        figure("Same person, answered uncertain", "share", [unsure]),
    ]
    figures += _two_languages(sessions, heard, calibration)
    figures += await _one_person_check(sessions, heard, test, models, threads=threads)
    figures += await _read_books(sessions, heard, test, calibration, models, threads=threads, data=sessions[0].clips[0])
    save(
        "speaker_verification",
        figures,
        title="Speaker verification",
        command="python -m benchmarks.speaker_verification --data DIR --models DIR",
    )


def _with_interval(
    name: str,
    found: Trials,
    where: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    *,
    at_most: float | None = None,
    note: str = "",
) -> Figure:
    """The rate with its 95 % interval, people drawn with replacement."""
    rate = _eer(found, where)
    names = sorted({person for pair in found.people for person in pair})
    order = {person: i for i, person in enumerate(names)}
    first = np.array([order[a] for a, _ in found.people])
    second = np.array([order[b] for _, b in found.people])
    draws, source = [], np.random.default_rng(SEED)
    for _ in range(200):
        times = np.bincount(source.integers(0, len(names), len(names)), minlength=len(names))
        weight = np.where(found.same, times[first], times[first] * times[second]) * where
        chosen = np.repeat(np.arange(len(weight)), weight)
        if found.same[chosen].any() and (~found.same[chosen]).any():
            draws.append(
                equal_error_rate(found.scores[chosen][found.same[chosen]], found.scores[chosen][~found.same[chosen]])[0]
            )
    low, high = np.quantile(draws, [0.025, 0.975])
    target, met = ("", None) if at_most is None else (f"≤ {at_most:g}", rate <= at_most)
    return Figure(
        name=name,
        unit="share",
        median=round(rate, 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        runs=1,
        target=target,
        met=met,
        note=f"95 % interval by people{'; ' if note else ''}{note}",
    )


def _two_languages(sessions: Sequence[Session], heard: Sequence[Heard], calibration: Calibration) -> list[Figure]:
    """One speaker, enrolled in one language and heard in another: in neither half of the other figures."""
    mine = [i for i, session in enumerate(sessions) if session.person == "allison"]
    ratios = [
        _ratio(one, other, calibration)
        for one in heard
        for other in heard
        if one.kind == "enrol" and other.kind == "probe" and {one.session, other.session} == set(mine)
    ]
    if not ratios:
        return []
    share = float(np.mean([r > 0 for r in ratios]))
    note = f"{len(ratios)} pairs of the one speaker of two languages; median ratio {np.median(ratios):.1f}"
    return [figure("One person in two languages, ratio for same", "share", [share], note=note)]


def _ratio(one: Heard, other: Heard, calibration: Calibration) -> float:
    value = np.array([score(one.vector, other.vector, calibration.centre)])
    return float((features(value, np.array([min(one.speech_s, other.speech_s)])) @ np.array(calibration.weights))[0])


async def _one_person_check(
    sessions: Sequence[Session], heard: Sequence[Heard], test: Sequence[int], models: Path, *, threads: int
) -> list[Figure]:
    """How often one person passes for two, and two for one (8 s of one, 4 s of the next)."""
    ears = Ears(models, threads=threads)
    alone, together = [], []
    spoken = [utterances(sessions[i], seed=SEED + 1) for i in test]
    long = [(i, made[0][2]) for i, made in zip(test, spoken, strict=True) if made]
    for (i, one), (j, other) in zip(long, [*long[1:], long[0]], strict=True):
        _, speech_s, others = await ears.hear(one)
        alone.append(_flagged(speech_s, others))
        if sessions[i].language != sessions[j].language:
            both = np.concatenate([one[: 8 * SAMPLE_RATE_HZ], other[: 4 * SAMPLE_RATE_HZ]])
            _, speech_s, others = await ears.hear(both)
            together.append(_flagged(speech_s, others))
    ears.close()
    return [
        figure("One person taken for several", "share", [float(np.mean(alone))], note=f"{len(alone)} samples of 12 s"),
        figure("Two people noticed", "share", [float(np.mean(together))], note=f"{len(together)} samples of 8 + 4 s"),
    ]


def _flagged(speech_s: float, other_s: float) -> bool:
    return other_s >= MIN_OTHER_S and other_s >= MIN_OTHER_SHARE * speech_s


async def _read_books(
    sessions: Sequence[Session],
    heard: Sequence[Heard],
    test: Sequence[int],
    calibration: Calibration,
    models: Path,
    *,
    threads: int,
    data: Path,
) -> list[Figure]:
    """Another kind of speech: clips of one reader of a book against each other, and against the test speakers."""
    root = next(parent for parent in data.parents if parent.name == "usr").parents[1]
    clips = sorted(root.glob("*/usr/share/pocketsphinx/test/data/librivox/*.wav"))
    if not clips:
        return []
    ears = Ears(models, threads=threads)
    books = []
    for clip in clips:
        vector, speech_s, other = await ears.hear(read(clip))
        if vector is not None:
            books.append(Heard(-1, "probe", speech_s, speech_s, other, vector))
    ears.close()
    same = [_ratio(a, b, calibration) for a, b in itertools.combinations(books, 2)]
    inside = set(test)
    different = [_ratio(a, h, calibration) for a in books for h in heard if h.session in inside and h.kind == "enrol"]
    return [
        figure(
            "Reader of a book, ratio for same",
            "share",
            [float(np.mean([r > 0 for r in same]))],
            note=f"{len(same)} pairs; median ratio {np.median(same):.1f}",
        ),
        figure(
            "Reader of a book taken for a test speaker",
            "share",
            [float(np.mean([decide(r, calibration) == "same" for r in different]))],
            note=f"{len(different)} pairs",
        ),
    ]


if __name__ == "__main__":
    main()
