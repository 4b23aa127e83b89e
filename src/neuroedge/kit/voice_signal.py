"""Whether a recording is fit for measures of a voice: noise, clipping, band, one voice only.

A second voice (or a chord) is sought by cancelling the first: A. de Cheveigné (1993), "Separation of concurrent
harmonic sounds: fundamental frequency estimation and a time-domain cancellation model of auditory processing", JASA 93.
What is left of a single voice is not periodic at another pitch; that of two is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroedge.kit.pitch import Doubles, Track
from neuroedge.kit.signal import clipped_fraction, snr_db
from neuroedge.kit.syllables import Talk
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span

LEAST_SNR_DB = 15.0
MOST_CLIPPING_PERCENT = 0.1
LEAST_SPEECH_SHARE = 0.4
LEAST_VOICED_SHARE = 0.15
MOST_SECOND_VOICE_SHARE = 0.12
NARROW_BAND_HZ = 8_000
_BREAK_DB = -40.0
_MOST_FRAMES = 400
_WINDOW = 1_024
_LEFT_OVER = 0.1
_PERIODIC = 0.7
_LOWPASS_HZ = 1_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSignal:
    """How good a recording is; shares are 0..1 of the sounding time (of the voiced time for the second voice)."""

    snr_db: float | None
    clipping_percent: float
    narrow_band: bool
    speech_share: float
    voiced_share: float
    second_voice_share: float
    warnings: list[str]

    @property
    def reliable(self) -> bool:
        """Whether nothing was found that spoils the measures."""
        return not self.warnings


def voice_signal(
    samples: Floats, *, source_rate_hz: int, voice: Track, talk: Talk, speech: Sequence[Span], vowel: bool = False
) -> VoiceSignal:
    """Judge `samples` [n]; `speech` is where a voice activity detector hears speech, `vowel` that one is held."""
    sounding_s = sum(s.end_s - s.start_s for s in talk.speech)
    heard_s = sum(_overlap(s, speech) for s in talk.speech)
    voiced_s = sum(len(v.f0_hz[np.isfinite(v.f0_hz)]) for v in (voice.between(s.start_s, s.end_s) for s in talk.speech))
    speech_share = heard_s / sounding_s if sounding_s else 0.0
    sounding_share = min(1.0, voiced_s * 0.01 / sounding_s) if sounding_s else 0.0
    noise_db = snr_db(samples, talk.speech)
    clipping = 100 * clipped_fraction(samples)
    second = second_voice_share(samples, voice)
    narrow = source_rate_hz <= NARROW_BAND_HZ or _is_narrow(samples)
    warnings = []
    if not talk.speech:
        warnings.append("silence: nothing loud enough to measure")
    elif speech_share < LEAST_SPEECH_SHARE and not vowel:
        warnings.append(f"only {100 * speech_share:.0f} % of the sound is recognised as speech: music or noise?")
    if talk.speech and sounding_share < LEAST_VOICED_SHARE:
        warnings.append(f"only {100 * sounding_share:.0f} % of the sound is voiced: whispered, or no speech?")
    if second > MOST_SECOND_VOICE_SHARE:
        warnings.append("a second pitch sounds beside the first: several people at once, or music")
    if noise_db is not None and noise_db < LEAST_SNR_DB:
        warnings.append(f"noisy: speech is only {noise_db:.0f} dB above the background")
    if clipping > MOST_CLIPPING_PERCENT:
        warnings.append(f"clipped: {clipping:.2g} % of the samples are cut off at full scale")
    return VoiceSignal(
        snr_db=noise_db,
        clipping_percent=clipping,
        narrow_band=narrow,
        speech_share=speech_share,
        voiced_share=sounding_share,
        second_voice_share=second,
        warnings=warnings,
    )


def _overlap(span: Span, others: Sequence[Span]) -> float:
    return sum(max(0.0, min(span.end_s, o.end_s) - max(span.start_s, o.start_s)) for o in others)


def _is_narrow(samples: Floats) -> bool:
    """Whether sound breaks off at 4 kHz, as after a telephone line; a vowel alone only gets softer."""
    from scipy.signal import welch

    if len(samples) < _WINDOW:
        return False
    hz, power = welch(samples, SAMPLE_RATE_HZ, nperseg=_WINDOW)
    below, above = power[(hz > 2_800) & (hz < 3_600)].mean(), power[(hz > 4_300) & (hz < 5_200)].mean()
    return bool(below > 0 and 10 * np.log10(max(above, 1e-20) / below) < _BREAK_DB)


def second_voice_share(samples: Floats, voice: Track) -> float:
    """Share (0..1) of the voiced frames, at most 400 evenly spread, in which a second pitch sounds."""
    from scipy.signal import butter, sosfiltfilt

    voiced = np.flatnonzero(np.isfinite(voice.f0_hz))
    if len(voiced) < 10 or len(samples) < 2 * _WINDOW:
        return 0.0
    low = sosfiltfilt(butter(4, _LOWPASS_HZ, fs=SAMPLE_RATE_HZ, output="sos"), samples.astype(np.float64))
    chosen = voiced[:: max(1, len(voiced) // _MOST_FRAMES)]
    told = [_has_second(low, float(voice.time_s[i]), float(voice.f0_hz[i])) for i in chosen]
    return sum(told) / len(told)


def _has_second(x: Doubles, at_s: float, f0_hz: float) -> bool:
    period = SAMPLE_RATE_HZ / f0_hz
    start = round(at_s * SAMPLE_RATE_HZ) - _WINDOW // 2
    if start - period - 2 < 0 or start + _WINDOW > len(x):
        return False
    places = np.arange(start, start + _WINDOW)
    own = x[places]
    left = own - np.interp(
        places - period,
        np.arange(start - int(period) - 2, start + _WINDOW),
        x[start - int(period) - 2 : start + _WINDOW],
    )
    power = float(np.sum(own**2))
    if power <= 0 or float(np.sum(left**2)) < 2 * _LEFT_OVER * power:
        return False
    window = np.hanning(_WINDOW)
    spectrum = np.abs(np.fft.rfft(left * window, 2 * _WINDOW)) ** 2
    r = np.fft.irfft(spectrum)[: _WINDOW // 2]
    own_r = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * _WINDOW)) ** 2)[: _WINDOW // 2]
    r = r / max(r[0], 1e-20) / (own_r / own_r[0])
    lags = np.arange(SAMPLE_RATE_HZ // 500, SAMPLE_RATE_HZ // 75)
    ratio = lags / period
    other = np.abs(ratio - np.rint(ratio)) > 0.08 * np.maximum(1, np.rint(ratio))
    peak = (r[lags] >= r[lags - 1]) & (r[lags] >= r[lags + 1])
    return bool(np.any(r[lags][other & peak] > _PERIODIC))


def telephone_band(samples: Floats) -> bool:
    """Whether next to nothing lies above 4 kHz, as after a telephone line, which takes what tells s from f and th.

    Also where nothing breaks off there: then too it cannot be heard.
    """
    from scipy.signal import welch

    if len(samples) < SAMPLE_RATE_HZ // 10:
        return False
    hz, power = welch(samples, SAMPLE_RATE_HZ, nperseg=512)
    total = float(power.sum())
    return total > 0 and float(power[hz > 4200].sum()) < 1e-5 * total


def voiced_share(samples: Floats, speech: Sequence[Span]) -> float | None:
    """Share (0..1) of the louder half of the speech that has a pitch; whispered speech has next to none, by no track.

    A frame of 40 ms is voiced when its autocorrelation reaches 0.4 at a lag of 2 to 14 ms. None under 0.2 s.
    """
    size = SAMPLE_RATE_HZ // 25
    pieces = [samples[round(s.start_s * SAMPLE_RATE_HZ) : round(s.end_s * SAMPLE_RATE_HZ)] for s in speech]
    frames = [p[: len(p) // size * size].reshape(-1, size) for p in pieces]
    joined = np.concatenate(frames).astype(np.float64) if frames else np.zeros((0, size))
    if len(joined) < 5:
        return None
    joined = joined - joined.mean(axis=1, keepdims=True)
    power = np.einsum("ij,ij->i", joined, joined)
    joined = joined[power >= np.median(power)]
    spectrum = np.abs(np.fft.rfft(joined, 2 * size, axis=1)) ** 2
    lags = np.fft.irfft(spectrum, axis=1)[:, :size]
    shape = np.arange(size, 0, -1) / size
    normal = lags / (np.maximum(lags[:, :1], 1e-12) * shape)
    return float((normal[:, SAMPLE_RATE_HZ // 500 : SAMPLE_RATE_HZ // 70].max(axis=1) > 0.4).mean())
