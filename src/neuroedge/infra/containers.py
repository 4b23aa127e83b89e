"""What a sound file says of itself in its first and last bytes, where FFmpeg does not tell."""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_STREAMED_BYTES = 0x7FFFF000
"""Data sizes from here on are placeholders of writers that could not seek back (FFmpeg, SoX in a pipe)."""
_OGG_PAGE = b"OggS\x00"
_OGG_PAGE_MAX_BYTES = 27 + 255 + 255 * 255
# Without a checksum and with one: Layer III of MPEG-1, of MPEG-2 and of MPEG-2.5; ADTS of MPEG-4 and of MPEG-2.
_MPEG_FRAMES = tuple(bytes([0xFF, second | crc]) for second in (0xFA, 0xF2, 0xE2, 0xF0, 0xF8) for crc in (1, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class WavHeader:
    """Format and place of a WAV file's sound; `data_bytes` is what it announces, or what is there when streamed."""

    format_tag: int
    channels: int
    rate_hz: int
    bits: int
    data_offset: int
    data_bytes: int
    missing_bytes: int

    @property
    def is_native(self) -> bool:
        """Whether the samples are what NeuroEdge works on: PCM16, mono, 16 kHz."""
        return (self.format_tag, self.channels, self.rate_hz, self.bits) == (1, 1, 16_000, 16)


def wav_header(file: BinaryIO) -> WavHeader | None:
    """The header of a RIFF/WAVE file up to its data chunk, or None when the file is no (readable) WAV."""
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    fmt = b""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data" and len(fmt) >= 16:
            return _wav_header(fmt, offset=file.tell(), size=size, total=total)
        if name == b"fmt ":
            fmt = file.read(min(size, 16))
            size -= len(fmt)
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _wav_header(fmt: bytes, *, offset: int, size: int, total: int) -> WavHeader:
    tag, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", fmt)
    present = total - offset
    streamed = size >= _STREAMED_BYTES or (size == 0 and present > 0)
    announced = present if streamed else size
    return WavHeader(
        format_tag=tag,
        channels=channels,
        rate_hz=rate_hz,
        bits=bits,
        data_offset=offset,
        data_bytes=announced,
        missing_bytes=max(0, announced - present),
    )


def looks_like_media(file: BinaryIO) -> bool:
    """Whether the first bytes are those of a format NeuroEdge decodes."""
    file.seek(0)
    head = file.read(12)
    starts = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1a\x45\xdf\xa3", *_MPEG_FRAMES)
    return head.startswith(starts) or head[4:8] == b"ftyp"


def announces_length(file: BinaryIO) -> bool:
    """Whether the encoder wrote the length; for OGG it is where the file ends, for a bare MP3/ADTS stream a guess."""
    file.seek(0)
    head = file.read(12)
    if head.startswith((b"RIFF", b"fLaC", b"\x1a\x45\xdf\xa3")) or head[4:8] == b"ftyp":
        return True
    if head.startswith(b"OggS"):
        return False
    file.seek(_id3_bytes(head))
    first_frame = file.read(64)
    xing = max(first_frame.find(b"Xing"), first_frame.find(b"Info"))
    has_frame_count = 0 <= xing < len(first_frame) - 8 and bool(first_frame[xing + 7] & 1)
    return has_frame_count or b"VBRI" in first_frame


def _id3_bytes(head: bytes) -> int:
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10


def ends_inside_ogg_page(file: BinaryIO) -> bool:
    """Whether an Ogg file's last page is incomplete (RFC 3533: 27 bytes, a table of segment lengths, the segments)."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    total = file.seek(0, os.SEEK_END)
    file.seek(max(0, total - 2 * _OGG_PAGE_MAX_BYTES))
    tail = file.read()
    at = 0 if total == len(tail) else tail.find(_OGG_PAGE)
    while at >= 0 and tail.startswith(_OGG_PAGE, at):
        head = tail[at : at + 27]
        lengths = tail[at + 27 : at + 27 + head[26]] if len(head) == 27 else b""
        if len(head) < 27 or len(lengths) < head[26]:
            return True
        at += 27 + len(lengths) + sum(lengths)
    rest = tail[at:] if at >= 0 else b""
    return at > len(tail) or bool(rest and _OGG_PAGE.startswith(rest))
