"""Spectral envelope of speech, frame by frame, and how steady it is."""

import numpy as np

from neuroedge.kit.mel import mel_power
from neuroedge.kit.pitch import HOP_S, Doubles, Track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

BANDS = 24
_FLOOR_DB = -70.0
_WINDOW = 512


def envelope_db(samples: Floats) -> Doubles:
    """Level in mel bands less the frame's mean over bands, [frames, 24] in dB; frame k is at k x 10 ms."""
    power = mel_power(
        samples, rate_hz=SAMPLE_RATE_HZ, n_fft=_WINDOW, hop=round(HOP_S * SAMPLE_RATE_HZ), n_mels=BANDS
    ).astype(np.float64)
    loudest = float(power.max(initial=0.0))
    if loudest <= 0:
        return np.zeros_like(power)
    level_db = 10 * np.log10(np.maximum(power / loudest, 10 ** (_FLOOR_DB / 10)))
    shape: Doubles = level_db - level_db.mean(axis=1, keepdims=True)
    return shape


def at_frames(envelope: Doubles, voice: Track) -> Doubles:
    """The envelope at the frames of a pitch track, [frames, bands]."""
    if not len(envelope):
        return envelope
    frames: Doubles = envelope[np.clip(np.rint(voice.time_s / HOP_S).astype(int), 0, len(envelope) - 1)]
    return frames


def change_db(envelope: Doubles, *, over_frames: int = 5) -> Doubles:
    """RMS over bands, [frames] in dB, between what lies before and after each frame; small where sound is steady."""
    if len(envelope) < 2 * over_frames + 1:
        return np.full(len(envelope), np.inf)
    total = np.concatenate([np.zeros((1, envelope.shape[1])), np.cumsum(envelope, axis=0)])
    means = (total[over_frames:] - total[:-over_frames]) / over_frames
    apart = np.sqrt(np.mean((means[over_frames + 1 :] - means[: -over_frames - 1]) ** 2, axis=1))
    change: Doubles = np.pad(apart, (over_frames, len(envelope) - over_frames - len(apart)), constant_values=np.inf)
    return change
