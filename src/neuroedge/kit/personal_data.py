"""Personal data that looks the same everywhere, found by its form and, where it carries one, by its check digits.

E-mail addresses, payment cards (Luhn, ISO/IEC 7812), bank accounts (IBAN, mod 97, ISO 13616), IP addresses, telephone
numbers in international form (E.164). National identifiers need a library (infra/personal_data.py), names a parser.
A form is no proof: a score tells how seldom something else looks like it.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

TYPES: Final = ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER")
_PIECE_CHARS: Final = 32_768
"""A search holds up the other threads: long texts are searched in pieces."""
_OVERLAP_CHARS: Final = 512
_EMAIL: Final = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_CARD: Final = re.compile(r"(?<![\d.,-])[2-6](?:[ -]?\d){12,18}(?![\d])")
_IBAN: Final = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])")
_IPV4: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE: Final = re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .()/-]{0,2}\d){6,12}(?!\d)")
_SHORTEST_IBAN: Final = 15


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Characters `start` to `end` are, or look like, data of a type; score 0 to 1."""

    start: int
    end: int
    type: str
    score: float


def find(text: str) -> list[Found]:
    """What is found, in the order of the text, none within another; blocking, about 50 ms a megabyte."""
    found: set[Found] = set()
    for start in range(0, max(1, len(text)), _PIECE_CHARS - _OVERLAP_CHARS):
        piece = text[start : start + _PIECE_CHARS]
        cut = start + _PIECE_CHARS < len(text)
        for hit in _in_piece(piece):
            # What touches a piece's end may go on; the next piece has it whole.
            if not (cut and hit.end == len(piece)) and not (start and hit.start == 0):
                found.add(Found(start + hit.start, start + hit.end, hit.type, hit.score))
    return apart(found)


def apart(found: Iterable[Found]) -> list[Found]:
    """Of those that overlap the most certain, then the longest; in the order of the text."""
    kept: list[Found] = []
    for hit in sorted(found, key=lambda f: (f.start, -f.score, f.start - f.end, f.type)):
        if not kept or hit.start >= kept[-1].end:
            kept.append(hit)
        elif (hit.score, hit.end - hit.start) > (kept[-1].score, kept[-1].end - kept[-1].start):
            kept[-1] = hit
    return kept


def masked(text: str, found: Sequence[Found]) -> str:
    """The text with `<TYPE>` in place of each of these, which must be `apart`."""
    parts, at = [], 0
    for hit in found:
        parts += [text[at : hit.start], f"<{hit.type}>"]
        at = hit.end
    return "".join([*parts, text[at:]])


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * 2 - 9 * (int(d) > 4) for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def iban_holds(iban: str) -> bool:
    """Whether an IBAN without spaces leaves 1 when divided by 97 (ISO 13616)."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _in_piece(text: str) -> Iterator[Found]:
    if "@" in text:
        yield from (Found(*m.span(), "EMAIL_ADDRESS", 1.0) for m in _EMAIL.finditer(text))
    for match in _CARD.finditer(text):
        if luhn(re.sub(r"\D", "", match[0])):
            yield Found(*match.span(), "CREDIT_CARD", 1.0)
    for match in _IBAN.finditer(text):
        yield from _iban(match[0], match.start())
    if "+" in text:
        yield from (Found(*m.span(), "PHONE_NUMBER", 0.7) for m in _PHONE.finditer(text))
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if _names_a_host(match[0]):
                yield Found(*match.span(), "IP_ADDRESS", 0.6)


def _iban(written: str, start: int) -> Iterator[Found]:
    """The longest beginning whose check digits hold: words in capitals may follow the number."""
    groups = written.split(" ")
    for count in range(len(groups), 0, -1):
        number = "".join(groups[:count])
        if len(number) < _SHORTEST_IBAN:
            return
        if iban_holds(number):
            yield Found(start, start + len(" ".join(groups[:count])), "IBAN_CODE", 1.0)
            return


def _names_a_host(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    # a::b is an address too, but far more often a name in a program.
    return any(map(str.isdigit, written)) and not (address.is_unspecified or address.is_loopback)
