"""The cultural_context engine: facts with sources, flags with places, and what is refused."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning.cultural_context import CulturalContext, Input, Output
from tests.fakes import make_context


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await CulturalContext(probe=ctx).run(Input(**fields), ctx)


@pytest.mark.anyio
async def test_a_text_is_looked_through_for_its_readers() -> None:
    """Quotes are the text's own."""
    text = "The school is 5 miles away. Classes start on 03/04/2026 and cost $20."
    output = await _run(locale="hi-IN", text=text, on=date(2026, 1, 1))
    assert [(f.kind, f.quote) for f in output.flags] == [
        ("unit", "5 miles"),
        ("date", "03/04/2026"),
        ("currency", "$20"),
    ]
    assert all(text[f.start : f.end] == f.quote for f in output.flags)
    assert output.reliable
    assert {f.topic for f in output.facts} == {"writing", "measures", "money", "dates", "names", "address", "holidays"}
    assert any("source_locale is not given" in u for u in output.uncertainty)


@pytest.mark.anyio
async def test_an_assumed_country_is_marked_unreliable() -> None:
    """With what was assumed."""
    output = await _run(locale="hi")
    assert output.country == "IN"
    assert not output.reliable
    assert "likeliest" in output.warnings[0]


@pytest.mark.anyio
async def test_a_language_of_no_country_has_no_holidays_and_no_money() -> None:
    """English of the world: the formats are known, the rest is said to be missing."""
    output = await _run(locale="en-001")
    assert output.country is None
    assert {f.topic for f in output.facts} == {"writing", "measures", "dates", "names"}
    assert output.warnings == ["no list of public holidays for an unknown country"]
    assert not output.reliable


@pytest.mark.anyio
async def test_more_flags_than_are_given_are_counted() -> None:
    """Five hundred are enough."""
    output = await _run(locale="de-DE", text="5 miles " * 600)
    assert len(output.flags) == 500
    assert any("600 flags" in w for w in output.warnings)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"locale": "xx"}, "locale"),
        ({"locale": "en", "country": "QQ"}, "country"),
        ({"locale": "en-GB", "source_locale": "zz-ZZ"}, "source_locale"),
    ],
)
async def test_unknown_places_are_refused_by_name(fields: dict[str, Any], path: str) -> None:
    """With a hint."""
    with pytest.raises(InvalidInput) as refused:
        await _run(**fields)
    assert refused.value.errors[0]["loc"] == (path,)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, ("locale",)),
        ({"locale": ""}, ("locale",)),
        ({"locale": "english please"}, ("locale",)),
        ({"locale": 7}, ("locale",)),
        ({"locale": "en", "country": "in"}, ("country",)),
        ({"locale": "en", "text": "x" * 100_001}, ("text",)),
        ({"locale": "en", "on": "3000-01-01"}, ("on",)),
        ({"locale": "en", "on": float("nan")}, ("on",)),
    ],
)
def test_bad_input_names_its_field(payload: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Refused with the path of the field."""
    with pytest.raises(ValidationError) as refused:
        Input.model_validate(payload)
    assert path in [error["loc"] for error in refused.value.errors()]


@pytest.mark.anyio
async def test_it_proves_itself() -> None:
    """All that is planted in the example is found."""
    await CulturalContext(probe=make_context()).post_swap_test()
