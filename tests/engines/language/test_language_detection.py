"""The language_detection engine: mixed texts, honest und, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.language.language_detection import Input, LanguageDetection, Output
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


async def _run(text: str, **fields: Any) -> Output:
    ctx = make_context()
    return await LanguageDetection(probe=ctx).run(Input(text=text, **fields), ctx)


async def test_the_example_has_three_languages() -> None:
    """Each with its place; the whole is in the language of most letters."""
    example = LanguageDetection.example
    assert isinstance(example, Input)
    told = await _run(example.text)
    assert [segment.lang for segment in told.segments] == ["en", "de", "hi"]
    assert told.mixed
    assert told.reliable
    assert told.scripts["Deva"] > 10
    await LanguageDetection(probe=make_context()).post_swap_test()


@pytest.mark.parametrize("text", ["Hello", "x = 3", "OK", "... !!! 42", "🙂🙂🙂"])
async def test_what_tells_no_language_is_und(text: str) -> None:
    """With a reason, and never a made-up language."""
    told = await _run(text)
    assert told.lang == "und"
    assert not told.reliable
    assert told.warnings


async def test_a_script_of_no_known_language_is_und() -> None:
    """Runes."""
    told = await _run("ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾᛁᛃ ᛇᛈᛉᛊᛏᛒ ᛖᛗᛚᛜᛞᛟ")
    assert (told.lang, told.script, told.p) == ("und", "Zyyy", 0)
    assert "script" in told.warnings[0]


async def test_a_few_letters_are_told_but_marked() -> None:
    """A short sentence of a script that several languages share."""
    told = await _run("Guten Morgen", languages=["de", "en"])
    assert told.lang == "de"
    assert not told.reliable
    assert "letters" in told.warnings[0]


async def test_a_choice_of_languages_is_kept_to() -> None:
    """And a code that is not known is refused with its place."""
    told = await _run("Dette er et stort hus ved havet.", languages=["no", "en"])
    assert told.lang == "no"
    assert {a.lang for a in told.alternatives} == {"no", "en"}
    with pytest.raises(InvalidInput) as refused:
        await _run("Hello", languages=["en", "xx"])
    assert refused.value.errors[0]["loc"] == ["languages", 1]


async def test_a_text_of_a_hundred_thousand_signs_is_answered() -> None:
    """Thousands of one-letter sentences too."""
    assert (await _run("a. " * 33_333)).lang == "und"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": ""},
        {"text": None},
        {"text": 3},
        {"text": "x" * 100_001},
        {"text": "x", "min_p": float("nan")},
        {"text": "x", "min_p": -1},
        {"text": "x", "languages": []},
        {"text": "x", "languages": ["English"]},
        {"text": "x", "languages": ["en"] * 200},
    ],
)
def test_bad_input_is_refused(fields: dict[str, Any]) -> None:
    """By the contract, with the field's name."""
    with pytest.raises(ValidationError):
        Input(**fields)
