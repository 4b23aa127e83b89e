"""What each of the two people of the sample call says alone."""

import numpy as np
import soundfile

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from tests.conftest import SampleCall

_MIN_S = 0.4


def speakers_alone(call: SampleCall) -> list[Floats]:
    """The waveform [n] at 16 kHz of each one, about 9 s, the one who speaks first before the other."""
    samples, rate_hz = soundfile.read(call.wav, dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ
    rows = [line.split() for line in call.rttm.read_text().splitlines()]
    turns = sorted((float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows)
    found: dict[str, list[Floats]] = {}
    for start, end, name in turns:
        silent = np.ones(round(end * rate_hz) - round(start * rate_hz), bool)
        for other_start, other_end, other in turns:
            if other != name:
                first = max(0, round((other_start - start) * rate_hz))
                silent[first : max(first, round((other_end - start) * rate_hz))] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[0], silent.astype(np.int8), [0]])))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if last - first > _MIN_S * rate_hz:
                at = round(start * rate_hz)
                found.setdefault(name, []).append(samples[at + first : at + last])
    return [np.concatenate(parts) for parts in found.values()]
