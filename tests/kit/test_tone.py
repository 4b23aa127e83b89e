"""The smallest real sound."""

import io
import wave

import pytest

from neuroedge.kit.tone import tone_wav


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_the_tone_has_its_length_and_level(level: float) -> None:
    """8-bit samples around 128."""
    with wave.open(io.BytesIO(tone_wav(seconds=0.5, level=level))) as file:
        values = file.readframes(file.getnframes())
        assert file.getnframes() / file.getframerate() == 0.5
    assert max(values) - 128 == pytest.approx(127 * level, abs=1)
