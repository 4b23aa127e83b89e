"""What the first and last bytes of a file tell."""

import io

import numpy as np
import pytest

from neuroedge.infra.containers import announces_length, ends_inside_ogg_page, looks_like_media, wav_header
from neuroedge.infra.media import encode_wav
from tests import audio_samples


def test_a_wav_header_is_read_behind_other_chunks() -> None:
    """Chunks of odd size before the sound are skipped."""
    data = encode_wav(audio_samples.tone(0.1))
    data = data[:12] + b"LIST\x03\x00\x00\x00abc\x00" + data[12:]
    header = wav_header(io.BytesIO(data))
    assert header is not None
    assert header.is_native
    assert (header.data_offset, header.data_bytes, header.missing_bytes) == (56, 3_200, 0)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\x00\x00\x00\x00WAVE", b"OggS" * 20])
def test_what_is_no_wav_has_no_header(data: bytes) -> None:
    """Too short, without data chunk, or something else."""
    assert wav_header(io.BytesIO(data)) is None


def test_an_ogg_file_cut_anywhere_ends_inside_a_page() -> None:
    """Cut in a page's header, table or body; whole, or with another tag behind it, it does not."""
    data = audio_samples.make("ogg_opus", audio_samples.tone(2.0, rate_hz=48_000))
    assert not ends_inside_ogg_page(io.BytesIO(data))
    assert not ends_inside_ogg_page(io.BytesIO(data + b"TAG" + bytes(125)))
    last = data.rindex(b"OggS")
    for end in (last + 2, last + 10, last + 28, len(data) - 1):
        assert ends_inside_ogg_page(io.BytesIO(data[:end])), end


def test_a_long_ogg_file_is_read_at_its_end_only() -> None:
    """The pages are found from the middle of the file."""
    noise = np.random.default_rng(1).normal(0, 0.3, 48_000 * 30).astype(np.float32)
    data = audio_samples.make("ogg_opus", noise)
    assert len(data) > 200_000
    assert not ends_inside_ogg_page(io.BytesIO(data))
    assert ends_inside_ogg_page(io.BytesIO(data[:-100]))


def test_only_an_mp3_with_a_frame_count_announces_its_length() -> None:
    """Without the Xing header a player guesses the length from the bit rate."""
    data = audio_samples.make("mp3", audio_samples.tone(1.0, rate_hz=48_000))
    assert announces_length(io.BytesIO(data))
    assert not announces_length(io.BytesIO(data.replace(b"Info", b"....").replace(b"Xing", b"....")))


@pytest.mark.parametrize(
    "sync", [b"\xfb", b"\xfa", b"\xf3", b"\xf2", b"\xe3", b"\xe2", b"\xf1", b"\xf0", b"\xf9", b"\xf8"]
)
def test_every_kind_of_mpeg_frame_is_known(sync: bytes) -> None:
    """Layer III of MPEG-1, 2 and 2.5, and ADTS of MPEG-4 and 2, each without and with a checksum."""
    assert looks_like_media(io.BytesIO(b"\xff" + sync + bytes(20)))


@pytest.mark.parametrize("kind", audio_samples.KINDS)
def test_every_format_is_known_by_its_first_bytes(kind: str) -> None:
    """So that a damaged file is told from one of another kind."""
    stereo = np.stack([audio_samples.tone(0.2, rate_hz=48_000)] * 2)
    assert looks_like_media(io.BytesIO(audio_samples.make(kind, stereo, layout="stereo")))
