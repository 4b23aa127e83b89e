"""Real speech of Debian packages, unpacked below one folder: LibriVox clips and the prompts of asterisk.

`apt-get download pocketsphinx-testdata asterisk-core-sounds-{en,es,fr,it,ru}-wav` and `dpkg-deb -x FILE FOLDER` each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 16_000
DEV_SPEAKERS = ("en_US_f_Allison", "fr_CA_f_June")
TEST_SPEAKERS = ("librivox", "es_MX_f_Allison", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
"""No language of the dev half is here; the English and the Spanish prompts are spoken by the same person."""
_LEAST_RMS = 0.01


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording of fluent speech, float32 [n] at 16 kHz."""

    speaker: str
    name: str
    samples: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE_HZ


def clips(data: Path, speakers: tuple[str, ...], *, per_speaker: int, least_s: float, most_s: float) -> list[Clip]:
    """Of each speaker the first clips by name of a length in range."""
    found: list[Clip] = []
    for speaker in speakers:
        paths = sorted(p for p in data.rglob("*.wav") if speaker in p.parts)
        if not paths:
            raise SystemExit(f"no sounds of {speaker} below {data}: {__doc__}")
        own: list[Clip] = []
        for path in paths:
            if len(own) == per_speaker:
                break
            if least_s <= soundfile.info(path).duration <= most_s:
                samples = read(path)
                if np.sqrt(np.mean(samples**2)) > _LEAST_RMS:
                    own.append(Clip(speaker=speaker, name=path.stem, samples=samples))
        found += own
    return found


def read(path: Path) -> NDArray[np.float32]:
    """A file's first channel at 16 kHz."""
    import soxr

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = np.ascontiguousarray(samples[:, 0])
    return mono if rate_hz == RATE_HZ else np.asarray(soxr.resample(mono, rate_hz, RATE_HZ), np.float32)
