"""Encoded speech is read back by the decoder: whole files and files written piece by piece."""

import av
import numpy as np
import pytest

from neuroedge.contract.speech import AudioFormat
from neuroedge.infra.media import decode
from neuroedge.infra.media_encode import MEDIA_TYPES, NOTE, SpeechEncoder, encoded
from tests.audio_samples import tone

FILES = [form for form in MEDIA_TYPES if form != "pcm"]


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_a_file_holds_what_was_said(form: AudioFormat, rate_hz: int) -> None:
    """Its length and level, from any rate a voice has; encoders may add some hundredths of a second."""
    sound = np.interp(np.arange(2 * rate_hz) / rate_hz, np.arange(32_000) / 16_000, tone(2.0)).astype(np.float32)
    heard = decode(encoded(sound, rate_hz=rate_hz, form=form), max_duration_s=10)
    assert heard.duration_s == pytest.approx(2.0, abs=0.2)
    assert float(np.sqrt(np.mean(heard.samples**2))) == pytest.approx(float(np.sqrt(np.mean(sound**2))), rel=0.1)


@pytest.mark.parametrize("form", FILES)
def test_pieces_make_one_file(form: AudioFormat) -> None:
    """Bytes come before the end, and together they play."""
    sound = tone(4.0)
    encoder = SpeechEncoder(form, rate_hz=16_000)
    pieces = [encoder.add(sound[at : at + 8_000]) for at in range(0, len(sound), 8_000)]
    assert sum(map(len, pieces[:6])) > 0
    heard = decode(b"".join([*pieces, encoder.end()]), max_duration_s=10)
    assert heard.duration_s == pytest.approx(4.0, abs=0.2)


def test_bare_samples_are_sixteen_bit() -> None:
    """Without any header; an empty file is empty."""
    assert len(encoded(tone(1.0), rate_hz=16_000, form="pcm")) == 32_000
    assert encoded(np.zeros(0, np.float32), rate_hz=16_000, form="pcm") == b""
    assert len(encoded(np.zeros(0, np.float32), rate_hz=16_000, form="wav")) == 44


@pytest.mark.parametrize("form", ["mp3", "opus", "flac"])
def test_a_file_says_that_it_is_synthetic(form: AudioFormat, tmp_path: object) -> None:
    """In its comment."""
    import io

    with av.open(io.BytesIO(encoded(tone(1.0), rate_hz=16_000, form=form))) as container:
        notes = {**container.metadata, **container.streams[0].metadata}
    assert NOTE in {value for key, value in notes.items() if key.lower() in ("comment", "description")}
