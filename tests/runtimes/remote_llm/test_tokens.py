"""The estimate is not below what is known of real vocabularies, and not absurdly above."""

from pathlib import Path

import pytest

from neuroedge.runtimes import llama
from neuroedge.runtimes.remote_llm.tokens import tokens_at_most


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counts of OpenAI's cl100k_base, from its documentation and cookbook.
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 9),
    ],
)
def test_known_counts_are_not_exceeded(text: str, tokens: int) -> None:
    """An upper estimate, at most three times too high."""
    assert tokens <= tokens_at_most(text) <= 3 * tokens


def test_every_script_counts() -> None:
    """Nothing is free but the space between words."""
    for text in ("a", "7", "{", "\n", "é", "я", "ф", "中", "한", "क", "🙂", "ⴰ"):
        assert tokens_at_most(text) >= 1, text
    assert tokens_at_most("") == 0


def test_more_text_is_more_tokens() -> None:
    """Whatever is added."""
    text = "The quick brown fox — 123 Füchse; 狐 🦊\n"
    assert [tokens_at_most(text * n) for n in range(4)] == [n * tokens_at_most(text) for n in range(4)]


def test_half_a_character_is_counted_too() -> None:
    """A lone surrogate, as a cut JSON string may hold, is no crash."""
    assert tokens_at_most("\ud83d") >= 1


@pytest.mark.models
@pytest.mark.anyio
async def test_it_is_not_below_a_real_vocabulary(models_dir: Path) -> None:
    """Of the small model, whose vocabulary is smaller than any vendor's, so that it needs more tokens."""
    folder = models_dir / "smollm2-135m-instruct"
    model = llama.load("smollm2-135m-instruct", folder, threads=1, options={})
    try:
        prose = "Circuit breakers keep a failing provider from holding up everybody else; then one probe decides. " * 5
        code = 'def total(rows):\n    """Sum."""\n    return sum(row["price_usd"] * row.count for row in rows)\n' * 5
        for text in (prose, code, "2026-11-21 14:36:20 [warning] id=0193-77 3.14159 €\n" * 5):
            assert await model.count_tokens(text) <= tokens_at_most(text)
    finally:
        model.close()
