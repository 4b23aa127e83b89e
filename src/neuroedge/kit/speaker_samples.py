"""Which speech of a recording a voice is known by, and whether it is one person's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroedge.kit.diarization import DEFAULT, Stretch, find_turns
from neuroedge.kit.speaker_scores import Calibration, llr, score
from neuroedge.kit.waveform import Floats

POOLING = replace(DEFAULT, hop_s=0.5)
"""Windows half as many as diarization needs, which has to tell when the speaker changes."""
_MIN_SIDE_S = 2.0
_LIKELY_LLR = 0.0
"""A ratio below it, at the likeliest moment, is a change of person."""


def opening(spans: Sequence[Stretch], *, limit_s: float) -> list[Stretch]:
    """Stretches in the order given until they make `limit_s` of speech; the last one is cut there."""
    kept: list[Stretch] = []
    left = limit_s
    for start, end in spans:
        if left <= 0:
            break
        kept.append((start, min(end, start + left)))
        left -= end - start
    return kept


def other_speech_s(
    vectors: Floats, windows: Sequence[Stretch], spans: Sequence[Stretch], calibration: Calibration | None
) -> float:
    """Seconds of speech that seem somebody else's than the main voice's.

    Arguments as of `find_turns`, which finds people who take turns; who speaks once, before or after the other, is
    found by the calibration, where there is one.
    """
    seconds: dict[str, float] = {}
    for turn in find_turns(vectors, windows, spans, tuning=POOLING):
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + turn.end_s - turn.start_s
    in_turns = sum(seconds.values()) - max(seconds.values(), default=0.0)
    return max(in_turns, 0.0 if calibration is None else _before_or_after_s(vectors, calibration))


def _before_or_after_s(vectors: Floats, calibration: Calibration) -> float:
    """Seconds of the shorter side of the moment where a change of person is likeliest; 0 where none is likely."""
    side = round(_MIN_SIDE_S / POOLING.hop_s)
    sums = np.cumsum(vectors, axis=0)
    best, shorter = _LIKELY_LLR, 0
    for at in range(side, len(vectors) - side + 1):
        ratio = llr(
            score(sums[at - 1] / at, (sums[-1] - sums[at - 1]) / (len(vectors) - at), calibration.centre),
            min(at, len(vectors) - at) * POOLING.hop_s,
            calibration,
        )
        if ratio < best:
            best, shorter = ratio, min(at, len(vectors) - at)
    return shorter * POOLING.hop_s
