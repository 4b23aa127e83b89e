"""What stays in a translation: cut without loss, marked, put back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.translation_format import ForcedTerm, masked, numbers, numbers_lost, parts

MARK = "⟦{n}⟧"
MARKDOWN = """# Title of **it**

- Click [the link](http://a.b/c?d=e) now.
1. First thing. Second thing.
| a cell | other |
|---|---|
```python
print("stays")
```
  > quoted text
42
"""


@pytest.mark.parametrize("sentences", [True, False])
def test_markdown_is_cut_without_loss(sentences: bool) -> None:
    """Code, rules and list marks are no translator's business."""
    found = list(parts(MARKDOWN, sentences=sentences))
    assert "".join(part.text for part in found) == MARKDOWN
    wanted = [part.text for part in found if part.translate]
    first = ["First thing.", "Second thing."] if sentences else ["First thing. Second thing."]
    link = "Click [the link](http://a.b/c?d=e) now."
    assert wanted == ["Title of **it**", link, *first, "a cell", "other", "quoted text"]


@given(st.text(alphabet="ab. \n#-|`*1\t\r।", max_size=80), st.booleans())
def test_any_text_is_cut_without_loss(text: str, sentences: bool) -> None:
    """And what is translated has letters and no space around it."""
    found = list(parts(text, sentences=sentences))
    assert "".join(part.text for part in found) == text
    for part in found:
        if part.translate:
            assert part.text == part.text.strip()
            assert any(c.isalpha() for c in part.text)


def test_a_long_line_is_cut_into_parts_a_model_can_read() -> None:
    """Even without a full stop."""
    found = list(parts("word " * 1000, sentences=True))
    assert max(len(part.text) for part in found) <= 600
    assert "".join(part.text for part in found) == "word " * 1000


@pytest.mark.parametrize(
    "kept",
    [
        "{name}",
        "{{ user.name }}",
        "${cost}",
        "%s",
        "%(count)d",
        "`x = 1`",
        "$E = mc^2$",
        "https://example.org/a?b=c",
        "ann@example.org",
        "<b>",
        "&nbsp;",
    ],
)
def test_placeholders_code_and_addresses_are_taken_out(kept: str) -> None:
    """Each comes back in the place of its mark."""
    mask = masked(f"Take {kept} now.", [])
    assert [each.text for each in mask.kept] == [kept]
    assert mask.marked(MARK) == "Take ⟦0⟧ now."
    assert mask.restored("Jetzt ⟦0⟧ nehmen.", MARK) == f"Jetzt {kept} nehmen."


def test_prices_and_ordinary_words_are_not_taken_for_placeholders() -> None:
    """Money, percentages, a star in arithmetic."""
    text = "It costs $5 or 3 % of 2 * 4 * 6; snake_case stays."
    assert masked(text, []).kept == ()


def test_the_longest_term_wins_whatever_its_case_and_whole_words_only() -> None:
    """A term inside a word or a URL is none."""
    terms = [ForcedTerm(source="cell", target="कोशिका"), ForcedTerm(source="cell wall", target="कोशिका भित्ति")]
    mask = masked("A Cell wall is around a cell, see http://cell.org, not cellular.", terms)
    assert [(kept.text, kept.term) for kept in mask.kept] == [
        ("कोशिका भित्ति", 1),
        ("कोशिका", 0),
        ("http://cell.org", None),
    ]


@pytest.mark.parametrize("translated", ["nothing", "⟦0⟧ ⟦0⟧ ⟦1⟧", "⟦0⟧", "⟦0⟧ ⟦1⟧ ⟦2⟧"])
def test_lost_doubled_and_invented_marks_are_noticed(translated: str) -> None:
    """Nothing is put back then."""
    mask = masked("{a} and {b}", [])
    assert mask.restored(translated, MARK) is None
    assert mask.restored("⟦1⟧ und ⟦0⟧", MARK) == "{b} und {a}"


def test_numbers_are_compared_across_scripts_and_separators() -> None:
    """As often as they stand there."""
    assert numbers("४२ and 1,000.") == {"42": 1, "1000": 1}
    assert numbers_lost("42 of 1,000", "१.००० में से ४२") == []
    assert numbers_lost("2 and 2", "zwei und 2") == ["2"]
