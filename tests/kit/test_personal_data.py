"""Personal data by form and check digits: what is found, what only looks like it, and texts made to be slow."""

import time

import pytest

from neuroedge.kit.personal_data import Found, apart, find, iban_holds, luhn, masked


@pytest.mark.parametrize(
    ("text", "type_", "what"),
    [
        ("write to jo.doe+x@mail.example.org.", "EMAIL_ADDRESS", "jo.doe+x@mail.example.org"),
        ("schreib an jürgen@straße.de!", "EMAIL_ADDRESS", "jürgen@straße.de"),
        ("card 4111 1111 1111 1111, thanks", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("amex 378282246310005", "CREDIT_CARD", "378282246310005"),
        ("IBAN GB82 WEST 1234 5698 7654 32 OKAY THEN", "IBAN_CODE", "GB82 WEST 1234 5698 7654 32"),
        ("DE89370400440532013000", "IBAN_CODE", "DE89370400440532013000"),
        ("call +49 (30) 123-4567 today", "PHONE_NUMBER", "+49 (30) 123-4567"),
        ("from 192.168.10.7:8080", "IP_ADDRESS", "192.168.10.7"),
        ("host fe80::1ff:fe23:4567:890a up", "IP_ADDRESS", "fe80::1ff:fe23:4567:890a"),
    ],
)
def test_what_has_the_form_is_found_whole(text: str, type_: str, what: str) -> None:
    """Type and characters, without what stands around."""
    (hit,) = find(text)
    assert (hit.type, text[hit.start : hit.end]) == (type_, what)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an @mention and a@b",
        "card 4111 1111 1111 1112",
        "order 1234567890123456",
        "GB82 WEST 1234 5698 7654 33",
        "std::vector<int> a::b ::1",
        "version 1.2.3 of 300.1.1.1",
        "1 + 2 = 3 and +12",
        "٠١٢٣ 漢字 emoji 😀",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    """Wrong check digits, code, versions, other scripts."""
    assert find(text) == []


def test_masks_keep_the_rest() -> None:
    """Placeholders in place of the data, nothing else changed."""
    text = "Jo <jo@x.org> paid with 4111111111111111 \u2014 10.0.0.7."
    assert masked(text, find(text)) == "Jo <<EMAIL_ADDRESS>> paid with <CREDIT_CARD> \u2014 <IP_ADDRESS>."


def test_of_overlapping_ones_the_most_certain_stays() -> None:
    """Then the longest; one that begins where another ends is apart from it."""
    sure, weak, next_ = Found(2, 8, "A", 1.0), Found(0, 9, "B", 0.4), Found(8, 12, "C", 0.5)
    assert apart([weak, sure, next_]) == [sure, next_]
    assert apart([Found(0, 5, "B", 0.5), Found(0, 9, "A", 0.5)]) == [Found(0, 9, "A", 0.5)]


def test_a_long_text_is_searched_to_its_end_and_across_its_pieces() -> None:
    """Wherever it stands, the address is found once."""
    for before in (0, 32_250, 32_300, 32_765, 65_000, 900_000):
        text = "word " * (before // 5) + "jo@example.org" + " word" * 10_000
        (hit,) = find(text)
        assert text[hit.start : hit.end] == "jo@example.org"


@pytest.mark.parametrize("piece", ["a", "1 ", "+1", "a.b@", "A", "1:", "GB82 ", "a@b.", "4 ", "\0", "+1 ("])
def test_text_made_to_be_slow_is_not(piece: str) -> None:
    """A quarter of a million characters in seconds at most: no pattern backtracks without end."""
    started = time.monotonic()
    find(piece * (250_000 // len(piece)))
    assert time.monotonic() - started < 60


def test_check_digits() -> None:
    """The standards' own examples."""
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert iban_holds("GB82WEST12345698765432")
    assert not iban_holds("GB83WEST12345698765432")
