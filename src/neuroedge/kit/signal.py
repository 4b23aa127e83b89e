"""Measures of a waveform: levels, clipping, signal-to-noise ratio, silence, a picture of it, and places to cut it."""

from collections.abc import Iterator, Sequence

import numpy as np

from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span

_FULL_SCALE = 0.999
_CLIPPED_RUN = 3
"""A plateau of three samples: a single sample at full scale is what normalising leaves, not clipping."""
_GUARD_S = 0.1
"""Around speech, breath and reverberation are neither speech nor background."""
_MIN_FRAMES_S = 0.25
_STEP = SAMPLE_RATE_HZ // 20
_FRAME = SAMPLE_RATE_HZ // 100
_PIECE = SAMPLE_RATE_HZ * 60


def peak_dbfs(samples: Floats) -> float | None:
    """Highest absolute sample in dB relative to full scale; None for digital silence."""
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    return 20 * float(np.log10(peak)) if peak > 0 else None


def rms_dbfs(samples: Floats) -> float | None:
    """Root mean square in dB relative to full scale (a full-scale sine is -3.0); None for digital silence."""
    power = mean_square(samples)
    return 10 * float(np.log10(power)) if power > 0 else None


def mean_square(samples: Floats) -> float:
    """Mean of the squared samples; 0 for no samples."""
    return float(np.dot(samples, samples)) / len(samples) if len(samples) else 0.0


def clipped_fraction(samples: Floats) -> float:
    """Share (0..1) of samples in plateaus of at least three at full scale, as an overdriven input leaves them."""
    # Piece by piece: an hour's recording must not be copied to be looked at.
    found = [
        start + np.flatnonzero(np.abs(samples[start : start + _PIECE]) >= _FULL_SCALE)
        for start in range(0, len(samples), _PIECE)
    ]
    at_limit = np.concatenate(found) if found else np.empty(0, np.intp)
    if not len(at_limit):
        return 0.0
    sign = np.sign(samples[at_limit])
    breaks = np.flatnonzero((np.diff(at_limit) > 1) | (np.diff(sign) != 0)) + 1
    lengths = np.diff(np.concatenate([[0], breaks, [len(at_limit)]]))
    return float(lengths[lengths >= _CLIPPED_RUN].sum()) / len(samples)


def snr_db(samples: Floats, speech: Sequence[Span]) -> float | None:
    """Signal-to-noise ratio in dB: power while somebody speaks, less the background's, over the background's.

    The background is what lies outside `speech`, 0.1 s off its borders. None when it can't be told: less than 0.25 s
    of either, a digitally silent background, or speech no louder than the background.
    """
    least = _MIN_FRAMES_S * SAMPLE_RATE_HZ
    talking = [(round(s.start_s * SAMPLE_RATE_HZ), round(s.end_s * SAMPLE_RATE_HZ)) for s in speech]
    voice_n, voice_power = _power(samples, talking)
    noise_n, noise = _power(samples, _outside(len(samples), speech))
    signal = voice_power - noise
    if min(voice_n, noise_n) < least:
        return None
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def background_dbfs(samples: Floats, speech: Sequence[Span]) -> float | None:
    """Root mean square of what lies outside `speech`, 0.1 s off its borders; None under 0.25 s or for digital zero."""
    count, power = _power(samples, _outside(len(samples), speech))
    return 10 * float(np.log10(power)) if count >= _MIN_FRAMES_S * SAMPLE_RATE_HZ and power > 0 else None


def silences(samples: Floats, *, below_dbfs: float, at_least_s: float) -> list[Span]:
    """Stretches of `at_least_s` or more in which no 10 ms has a root mean square of `below_dbfs` or more."""
    limit = 10 ** (below_dbfs / 10)
    quiet = []
    for start in range(0, len(samples), _PIECE):
        frames = np.arange(start, min(len(samples), start + _PIECE), _FRAME)
        piece = samples[start : start + _PIECE]
        power = np.add.reduceat(np.square(piece, dtype=np.float64), frames - start)
        quiet.append(power / np.diff([*frames, start + len(piece)]) < limit)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], *quiet, [False]]).astype(np.int8)))
    bounds = np.minimum(edges * _FRAME, len(samples)) / SAMPLE_RATE_HZ
    found = [Span(start_s=float(a), end_s=float(b)) for a, b in bounds.reshape(-1, 2)]
    return [span for span in found if span.end_s - span.start_s >= at_least_s]


def _outside(samples: int, speech: Sequence[Span]) -> list[tuple[int, int]]:
    """What lies outside `speech`, the guard off its borders, as [first, after the last)."""
    guard = round(_GUARD_S * SAMPLE_RATE_HZ)
    gaps, after = [], 0
    for span in sorted(speech, key=lambda span: span.start_s):
        gaps.append((after, round(span.start_s * SAMPLE_RATE_HZ) - guard))
        after = max(after, round(span.end_s * SAMPLE_RATE_HZ) + guard)
    return [(first, stop) for first, stop in [*gaps, (after, samples)] if stop > first]


def _power(samples: Floats, stretches: Sequence[tuple[int, int]]) -> tuple[int, float]:
    """How many samples the stretches hold, and their mean square."""
    count, total = 0, 0.0
    for first, stop in stretches:
        part = samples[max(0, first) : stop]
        count += len(part)
        total += float(np.dot(part, part))
    return count, total / count if count else 0.0


def waveform_peaks(samples: Floats, count: int) -> list[float]:
    """Highest absolute sample (0..1) of each of `count` equal stretches, for drawing; fewer when samples are fewer."""
    count = min(count, len(samples))
    if count == 0:
        return []
    starts = np.arange(count) * len(samples) // count
    tops = np.maximum(np.maximum.reduceat(samples, starts), -np.minimum.reduceat(samples, starts))
    return [round(float(top), 4) for top in tops]


def quiet_blocks(samples: Floats, *, max_s: float, search_s: float = 30.0) -> Iterator[tuple[int, Floats]]:
    """Cut `samples` into views of at most `max_s`, each with its offset in samples; cuts lie where it is quietest.

    The cut is the 50 ms stretch of least power in the last `search_s` of a block, so that no word is cut in two.
    """
    start, limit = 0, int(max_s * SAMPLE_RATE_HZ)
    search = min(int(search_s * SAMPLE_RATE_HZ), limit // 2) // _STEP * _STEP
    while len(samples) - start > limit:
        first = start + limit - search
        steps = samples[first : first + search].reshape(-1, _STEP)
        cut = first + int(np.argmin(np.einsum("ij,ij->i", steps, steps))) * _STEP + _STEP // 2
        yield start, samples[start:cut]
        start = cut
    yield start, samples[start:]
