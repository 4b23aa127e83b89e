"""What is attached to an e-mail: kreuzberg (4) only names files, and runs the text of forwarded mails together."""

import email
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path

MAX_ATTACHMENTS = 100
_MAIL = "message/rfc822"
NESTED = 3
"""Mails within mails are read so deep."""


def attachments(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each, the first MAX_ATTACHMENTS; pictures that a mail's text shows are none."""
    with path.open("rb") as file:
        found = _attached(email.message_from_binary_file(file))
        for _, attachment in zip(range(MAX_ATTACHMENTS), found, strict=False):
            yield attachment


def without_forwarded(path: Path) -> bytes:
    """The mail without the mails attached to it, which are read each by itself."""
    data = path.read_bytes()
    message = email.message_from_bytes(data)
    return message.as_bytes() if _strip(message) else data


def _strip(message: Message) -> bool:
    """Take mails out of a mail; whether there was one."""
    parts = message.get_payload()
    if not isinstance(parts, list):
        return False
    kept = [part for part in parts if not (isinstance(part, Message) and part.get_content_type() == _MAIL)]
    found = [_strip(part) for part in kept if isinstance(part, Message)]
    if len(kept) == len(parts):
        return any(found)
    message.set_payload(kept)
    return True


def _attached(message: Message) -> Iterator[tuple[str, bytes]]:
    for part in message.get_payload() if message.is_multipart() else ():
        if not isinstance(part, Message):
            continue
        name = _name(part)
        if part.get_content_type() == _MAIL:
            inner = part.get_payload(0) if part.is_multipart() else None
            if isinstance(inner, Message):
                yield name or "message.eml", inner.as_bytes()
        elif part.is_multipart():
            yield from _attached(part)
        elif part.get_content_disposition() == "attachment" or (name and part.get_content_maintype() != "image"):
            data = part.get_payload(decode=True)
            yield name or "attachment", data if isinstance(data, bytes) else b""


def _name(part: Message) -> str:
    told = part.get_filename() or ""
    try:
        told = str(make_header(decode_header(told)))
    except (LookupError, ValueError):  # an encoding nobody knows: as it is written
        pass
    return "".join(c for c in told if c.isprintable())[:200]
