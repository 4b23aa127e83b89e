"""Prices: from the table that ships with the library, with source and date; none where it knows none."""

import re
from decimal import Decimal

import pytest

from neuroedge.services.llm.offers import Price, Tier
from neuroedge.services.llm.prices import NOTHING, known, table_date


@pytest.mark.parametrize(
    ("model", "kind"), [("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic"), ("qwen-plus", "qwen")]
)
def test_a_vendors_usual_models_have_a_price_with_source_and_date(model: str, kind: str) -> None:
    """Of all three well-known vendors."""
    found = known(model, kind=kind, base_url=None)
    assert found.price is not None
    assert 0 < found.price.prompt_usd_per_million < found.price.completion_usd_per_million
    assert found.price.source.startswith("genai-prices ")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found.price.as_of)
    assert found.context_tokens is not None
    assert found.context_tokens >= 128_000


def test_a_price_that_is_another_resellers_says_so() -> None:
    """The table has none of Alibaba's own endpoint."""
    price = known("qwen-plus", kind="qwen", base_url=None).price
    assert price is not None
    assert price.source.endswith("(OpenRouter's)")


@pytest.mark.parametrize(
    ("model", "kind", "url"),
    [
        ("no-such-model", "openai", None),
        ("gpt-4o-mini", "anthropic", None),
        ("gpt-4o-mini", None, "http://127.0.0.1:8000/v1"),
        ("gpt-4o-mini", None, None),
        ("", "openai", None),
    ],
)
def test_what_the_table_does_not_know_has_no_price(model: str, kind: str | None, url: str | None) -> None:
    """Not that of a model with a like name, nor the vendor's at somebody else's address."""
    assert known(model, kind=kind, base_url=url) == NOTHING


def test_a_vendor_is_known_by_its_address_too() -> None:
    """Without a kind."""
    assert known("gpt-4o-mini", kind=None, base_url="https://api.openai.com/v1") == known(
        "gpt-4o-mini", kind="openai", base_url=None
    )


def test_the_tables_date_is_none_of_the_future() -> None:
    """Prices announced for later are in it."""
    assert "2025-01-01" < table_date() < "2100-01-01"


def test_a_long_prompt_costs_what_its_tier_says_for_all_tokens() -> None:
    """One token more changes the price of all of them, as vendors bill it."""
    price = Price(
        prompt_usd_per_million=Decimal(3),
        completion_usd_per_million=Decimal(15),
        cached_usd_per_million=Decimal("0.3"),
        source="s",
        as_of="2026-01-01",
        tiers=(
            Tier(
                beyond_tokens=200_000,
                prompt_usd_per_million=Decimal(6),
                completion_usd_per_million=Decimal("22.5"),
                cached_usd_per_million=Decimal("0.6"),
            ),
        ),
    )
    assert price.of(prompt_tokens=200_000, completion_tokens=0) == Decimal("0.6")
    assert price.of(prompt_tokens=200_001, completion_tokens=2, cached_tokens=1) == Decimal("1.2000456")


def test_the_table_and_we_agree_on_a_sum() -> None:
    """The library's own calculation is the reference."""
    from genai_prices import Usage, calc_price

    for model, kind in (("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic")):
        price = known(model, kind=kind, base_url=None).price
        assert price is not None
        for prompt, cached, completion in ((1000, 0, 500), (1000, 400, 500), (250_000, 100, 1)):
            usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
            reference = calc_price(usage, model, provider_id=kind).total_price
            ours = price.of(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
            assert ours == reference
