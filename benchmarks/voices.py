"""Voices of known properties, for tests and benchmarks: vowels, chords, whispers. Synthetic: they prove code only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly

RATE_HZ = 16_000
Floats = NDArray[np.float32]

_FINER = 8
FORMANTS_HZ = {
    "a": (730.0, 1090.0, 2440.0, 3500.0, 4500.0),
    "i": (270.0, 2290.0, 3010.0, 3700.0, 4500.0),
    "u": (300.0, 870.0, 2240.0, 3300.0, 4500.0),
    "e": (530.0, 1840.0, 2480.0, 3500.0, 4500.0),
}
"""Of men, by Peterson & Barney (1952), with a usual fourth and fifth."""
_BANDWIDTHS_HZ = (80.0, 100.0, 140.0, 220.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class Vowel:
    """A vowel [n] at 16 kHz with the truth of its source: jitter and shimmer (local), as shares."""

    samples: Floats
    jitter: float
    shimmer: float


def vowel(
    f0_hz: float,
    seconds: float,
    *,
    jitter: float = 0.0,
    shimmer: float = 0.0,
    noise_db: float | None = None,
    name: str = "a",
    glide_st: float = 0.0,
    seed: int = 0,
) -> Vowel:
    """Pulses through formants; `jitter` and `shimmer` are about the shares wanted, `noise_db` the noise below it."""
    draw = np.random.default_rng(seed)
    # The mean absolute difference of two normal numbers is 2 / sqrt(pi) of their deviation.
    spread = np.sqrt(np.pi) / 2
    t = np.arange(round(1.1 * seconds * RATE_HZ)) / RATE_HZ
    phase = np.cumsum(f0_hz * 2 ** (glide_st * t / seconds / 12)) / RATE_HZ
    plain = np.diff(np.interp(np.arange(int(phase[-1])), phase, t))
    count = len(plain)
    periods = plain * (1 + spread * jitter * draw.normal(size=count))
    heights = 1 + spread * shimmer * draw.normal(size=count)
    at = np.cumsum(periods)
    kept = at < seconds
    rate_hz = RATE_HZ * _FINER
    source = np.zeros(round(seconds * rate_hz) + 2)
    place = at[kept] * rate_hz
    first = place.astype(int)
    np.add.at(source, first, heights[kept] * (1 - (place - first)))
    np.add.at(source, first + 1, heights[kept] * (place - first))
    fall = np.exp(-2 * np.pi * 120 / rate_hz)
    source = lfilter([1.0], [1, -2 * fall, fall**2], source)
    wave = resample_poly(np.diff(source), 1, _FINER)
    for hz, width_hz in zip(FORMANTS_HZ[name], _BANDWIDTHS_HZ, strict=True):
        wave = _resonance(wave, hz, width_hz)
    wave = wave[: round(seconds * RATE_HZ)]
    if noise_db is not None:
        wave = wave + draw.normal(size=len(wave)) * np.sqrt(np.mean(wave**2)) * 10 ** (-noise_db / 20)
    kept_periods, kept_heights = periods[kept], heights[kept]
    return Vowel(
        samples=_scaled(wave),
        jitter=float(np.abs(np.diff(kept_periods)).mean() / kept_periods.mean()),
        shimmer=float(np.abs(np.diff(kept_heights)).mean() / kept_heights.mean()),
    )


def syllables(count: int, rate_syl_s: float, *, f0_hz: float = 120.0, seed: int = 0) -> Floats:
    """So many vowels of changing colour a second, parted by dips as consonants part them."""
    step = 1 / rate_syl_s
    parts = []
    for i in range(count):
        name = "aieu"[(i + seed) % 4]
        wave = vowel(f0_hz * (1 + 0.02 * (i % 3)), step, name=name, seed=seed + i).samples
        ramp = np.minimum(1.0, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / (0.25 * len(wave)))
        parts.append(wave * (0.03 + 0.97 * ramp))
    return np.concatenate(parts).astype(np.float32)


def chord(seconds: float, *, roots_hz: tuple[float, ...] = (196.0, 220.0, 261.6, 174.6)) -> Floats:
    """Major chords of several harmonics each, a new one each half second, as an organ plays them."""
    parts = []
    for i in range(int(np.ceil(seconds / 0.5))):
        t = np.arange(RATE_HZ // 2) / RATE_HZ
        root = roots_hz[i % len(roots_hz)]
        tones = [root * 2 ** (st / 12) for st in (0, 4, 7, 12)]
        parts.append(sum(np.sin(2 * np.pi * k * hz * t) / k for hz in tones for k in range(1, 5)))
    return _scaled(np.concatenate(parts)[: round(seconds * RATE_HZ)])


def whisper(seconds: float, *, rate_syl_s: float = 4.0, seed: int = 0) -> Floats:
    """Noise through the formants of changing vowels: speech without a voice."""
    draw = np.random.default_rng(seed)
    parts = []
    for i in range(int(np.ceil(seconds * rate_syl_s))):
        wave = draw.normal(size=round(RATE_HZ / rate_syl_s))
        for hz, width_hz in zip(FORMANTS_HZ["aieu"[i % 4]], _BANDWIDTHS_HZ, strict=True):
            wave = _resonance(wave, hz, 2 * width_hz)
        parts.append(wave / np.abs(wave).max() * np.hanning(len(wave)))
    return _scaled(np.concatenate(parts)[: round(seconds * RATE_HZ)])


def _resonance(wave: NDArray[np.float64], hz: float, width_hz: float) -> NDArray[np.float64]:
    r = np.exp(-np.pi * width_hz / RATE_HZ)
    a = [1.0, -2 * r * np.cos(2 * np.pi * hz / RATE_HZ), r**2]
    filtered: NDArray[np.float64] = lfilter([sum(a)], a, wave)
    return filtered


def _scaled(wave: NDArray[np.float64]) -> Floats:
    return np.asarray(0.5 * wave / np.abs(wave).max(), np.float32)
