"""National identifiers by presidio: found with what speaks for them, without network, at any length."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from neuroedge.infra.personal_data import LONGEST_CHARS, NationalIdentifiers

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def identifiers() -> Iterator[NationalIdentifiers]:
    """Built once."""
    made = NationalIdentifiers()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("presidio went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.parametrize(
    ("text", "type_", "what"),
    [
        ("my social security number is 219-09-9999", "US_SSN", "219-09-9999"),
        ("call me: (212) 555-0123 is my phone", "PHONE_NUMBER", "(212) 555-0123"),
        ("my phone is 020 7946 0958", "PHONE_NUMBER", "020 7946 0958"),
        ("NHS number 943 476 5919", "UK_NHS", "943 476 5919"),
        ("Aadhaar 2345 6789 0124", "IN_AADHAAR", "2345 6789 0124"),
        ("NIF 55555555K", "ES_NIF", "55555555K"),
        ("mac 00:1B:44:11:3A:B7", "MAC_ADDRESS", "00:1B:44:11:3A:B7"),
    ],
)
async def test_identifiers_are_found_whole(identifiers: NationalIdentifiers, text: str, type_: str, what: str) -> None:
    """Type and characters; others may overlap with less certainty."""
    found = {(hit.type, text[hit.start : hit.end]) for hit in await identifiers.find(text)}
    assert (type_, what) in found


@pytest.mark.parametrize("text", ["", "no digits here", "in 1984 there were 12 of them", "version 3.11", "你好 123"])
async def test_plain_numbers_are_none(identifiers: NationalIdentifiers, text: str) -> None:
    """Years, counts, versions."""
    assert await identifiers.find(text) == []


async def test_words_nearby_decide(identifiers: NationalIdentifiers) -> None:
    """Twelve digits are an account only where the text speaks of one."""
    assert not [hit for hit in await identifiers.find("article 123456789012") if hit.type == "US_BANK_NUMBER"]
    assert [hit for hit in await identifiers.find("bank account 123456789012") if hit.type == "US_BANK_NUMBER"]


async def test_long_texts_are_searched_in_pieces(identifiers: NationalIdentifiers) -> None:
    """Found once wherever it stands, up to the limit."""
    for before in (0, 7_790, 7_900, 7_995, 60_000):
        text = "word " * (before // 5) + "ssn 219-09-9999 " + "word " * 2_000
        assert [text[h.start : h.end] for h in await identifiers.find(text) if h.type == "US_SSN"] == ["219-09-9999"]
    assert await identifiers.find("x" * LONGEST_CHARS + " ssn 219-09-9999") == []


def test_start_up_does_not_pay_for_presidio() -> None:
    """Neither presidio nor spaCy nor tldextract is imported with the module."""
    code = (
        "import sys; import neuroedge.services.safety;"
        "print([name for name in ('presidio_analyzer', 'spacy', 'tldextract', 'phonenumbers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
