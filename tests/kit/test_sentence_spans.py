"""Where sentences stand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.sentence_spans import sentence_spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "Mr. Bennet met Dr. J. Smith (e.g. in Fig. 3). He left.",
            ["Mr. Bennet met Dr. J. Smith (e.g. in Fig. 3).", "He left."],
        ),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("It cost 3.5 euros. Good.", ["It cost 3.5 euros.", "Good."]),
        ("यह घर है। वह बड़ा है।", ["यह घर है।", "वह बड़ा है।"]),
        ("今日は。元気ですか？", ["今日は。", "元気ですか？"]),
        ("A heading\n\nA text\nover two lines.", ["A heading", "A text\nover two lines."]),
        ("Things:\n- one\n- two", ["Things:", "- one", "- two"]),
        ("no end", ["no end"]),
        ("... !!!", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    """Abbreviations, quotations, numbers, other scripts' stops, headings, lists."""
    assert [text[start:end] for start, end in sentence_spans(text)] == expected


@given(st.text(alphabet="ab. !?\n।-", max_size=60))
def test_spans_lie_in_order_and_lose_no_letter(text: str) -> None:
    """Without overlap or outer space."""
    spans = sentence_spans(text)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    inside = "".join(text[start:end] for start, end in spans)
    assert sorted(c for c in inside if c.isalnum()) == sorted(c for c in text if c.isalnum())
