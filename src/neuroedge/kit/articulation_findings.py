"""From the judge's slips to what is reported: kind, dialect, processes, confidence, and what makes it unreliable."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from neuroedge.kit import age_norms
from neuroedge.kit.articulation import LEAST_CLARITY_NATS, Evidence, Expected, clarity
from neuroedge.kit.phonology import DIALECTS, Slip, changed_features, processes_of

PhoneType = Literal["correct", "substitution", "omission", "distortion", "dialect", "connected_speech"]
Confidence = Literal["high", "medium", "low"]
ERRORS: Final = ("substitution", "omission", "distortion")
"""The kinds of a phone that are errors; a dialect's pattern and connected speech are none."""
MAX_MISFIT_NATS: Final = 4.5
"""Of 585 synthetic recordings, half of them with an error, one is above; other texts lie at 5.4 and more."""
_MORE_HEARD: Final = 1.7
_MIN_SNR_DB: Final = 10.0
_MAX_CLIPPING_PERCENT: Final = 1.0
_MIN_VOICED: Final = 0.2
_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSeen:
    """A phonological process over a whole recording."""

    name: str
    definition: str
    count: int
    examples: list[str]
    """Expected and heard phones of some, with their words."""


def kind_of(slip: Slip | None, *, dialects: Sequence[str], weak: bool) -> tuple[PhoneType, str | None]:
    """What a phone is reported as, and the one of `dialects` that explains it; `weak`: it is in a little word."""
    if slip is None:
        return "correct", None
    dialect = next((name for name in dialects if DIALECTS[name].fits(slip)), None)
    if dialect is not None:
        return "dialect", dialect
    if weak or slip.type == "addition":
        return "connected_speech", None
    return slip.type, None


def explained(phone: str, slip: Slip | None, *, error: bool, age_years: float | None) -> dict[str, Any]:
    """Fields of a finding: what was heard of a phone, its age of acquisition and, of an error, what it may show."""
    heard = phone if slip is None else slip.heard
    told: dict[str, Any] = {
        "heard": heard,
        "acquired_at_years": age_norms.ACQUIRED_AT_YEARS.get(phone),
        "age_expected": None,
        "features_changed": [],
        "processes": [],
    }
    if slip is None or not error:
        return told
    return {
        **told,
        "age_expected": None if age_years is None else age_norms.age_expected(phone, age_years),
        "features_changed": changed_features(phone, heard) if heard else [],
        "processes": [name for name, _ in processes_of(slip)],
    }


def confidence_of(p_error: float, *, distortion: bool, sure: bool) -> Confidence:
    """High where the probability is near 0 or 1; never for a distortion, which has no phone of its own."""
    if distortion or not sure:
        return "low"
    if p_error > 0.9 or p_error < 0.1:
        return "high"
    return "medium" if p_error > 0.75 or p_error < 0.25 else "low"


def processes_seen(words: Sequence[str], slips: Sequence[tuple[int, Slip]]) -> list[ProcessSeen]:
    """The processes that slips, each with the index of its word, may show; the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    for w, slip in slips:
        for process in processes_of(slip):
            counts[process] += 1
            examples.setdefault(process, []).append(f"{slip.expected or '∅'}→{slip.heard or '∅'} in {words[w]}")
    return [
        ProcessSeen(name=name, definition=text, count=count, examples=examples[name, text][:_EXAMPLES])
        for (name, text), count in counts.most_common()
    ]


def unreliable(
    found: Evidence,
    expected: Expected,
    *,
    snr_db: float | None,
    clipping_percent: float,
    telephone_band: bool,
    voiced: float | None,
) -> list[str]:
    """What makes findings unreliable, in words; `voiced` is the share of the speech that is, None if not known."""
    another_text = found.misfit_nats > MAX_MISFIT_NATS
    checks = [
        (another_text, "unreliable: the expected text was not said, or cannot be understood"),
        (
            len(found.heard) > _MORE_HEARD * len(expected.phones) + 2,
            "more was said than expected: another voice, a repetition or more words",
        ),
        (
            snr_db is not None and snr_db < _MIN_SNR_DB,
            f"noise or music: {snr_db} dB of speech over background, {_MIN_SNR_DB:.0f} dB are needed",
        ),
        (clipping_percent > _MAX_CLIPPING_PERCENT, "the recording is overdriven: record more softly"),
        (telephone_band, "nothing above 4 kHz, as on the telephone: s, f and th cannot be told apart"),
        (
            not another_text and clarity(found, expected) < LEAST_CLARITY_NATS,
            "the recogniser understands this voice or recording badly: findings are guesses",
        ),
        (voiced is not None and voiced < _MIN_VOICED, "hardly any voice: whispered speech hides p from b, t from d"),
    ]
    return [text for wrong, text in checks if wrong]
