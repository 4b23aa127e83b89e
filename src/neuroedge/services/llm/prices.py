"""What language models cost, by the table of `genai-prices` (pydantic/genai-prices, MIT) that ships with the library.

The table is the installed version's and is not updated over the network: an operator who needs newer prices updates
the library, or gives prices in providers.toml. Of Alibaba's own endpoint it has no prices; OpenRouter's for the same
models stand in, and the source says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any, Final

from neuroedge.services.llm.offers import Price, Tier

_PROVIDER_OF: Final = {"openai": "openai", "anthropic": "anthropic"}
_QWEN: Final = "qwen"
_STANDS_IN: Final = "openrouter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the table says of a model."""

    price: Price | None
    context_tokens: int | None


NOTHING: Final = Known(price=None, context_tokens=None)


def known(model: str, *, kind: str | None, base_url: str | None) -> Known:
    """Price and context of a provider's model; a price the table does not have is None, never another model's.

    `kind` decides where it is one the table knows, else the address does.
    """
    return _known(model, kind, base_url, datetime.now(UTC).date())


@lru_cache(maxsize=4096)
def _known(model: str, kind: str | None, base_url: str | None, day: date) -> Known:
    """As of a day: some prices change on one."""
    from genai_prices.data_snapshot import get_snapshot  # large: not read unless a provider is set up

    table = get_snapshot()
    named, provider, url, note = model, _PROVIDER_OF.get(kind or ""), base_url, ""
    if kind == _QWEN:
        named, provider, note = f"qwen/{model}", _STANDS_IN, " (OpenRouter's)"
    if provider is None and not url:
        return NOTHING
    try:
        found = table.find_provider_model(named, None, provider, None if provider else url)[1]
        prices = found.get_prices(datetime.combine(day, time(12), UTC))
    except LookupError:
        return NOTHING
    return Known(price=_price(prices, note), context_tokens=found.context_window)


@cache
def table_date() -> str:
    """The latest change of a price that the table knows and that has come into force: it is at least as new as that."""
    from genai_prices.data_snapshot import get_snapshot

    today = datetime.now(UTC).date().isoformat()
    return max((day for day in _dates(get_snapshot()) if day <= today), default="1970-01-01")


def _dates(table: Any) -> Iterator[str]:
    for provider in table.providers:
        for model in provider.models:
            for conditional in model.prices if isinstance(model.prices, list) else ():
                if (start := getattr(conditional.constraint, "start_date", None)) is not None:
                    yield start.isoformat()


def _price(prices: Any, note: str) -> Price | None:
    """As we count: per million tokens of text, in US dollars; None without both prices."""
    prompt, completion = getattr(prices, "input_mtok", None), getattr(prices, "output_mtok", None)
    cached = getattr(prices, "cache_read_mtok", None)
    if prompt is None or completion is None:
        return None
    tiers = sorted({tier.start for one in (prompt, completion, cached) for tier in getattr(one, "tiers", ())})
    return Price(
        prompt_usd_per_million=_at(prompt, 0),
        completion_usd_per_million=_at(completion, 0),
        cached_usd_per_million=None if cached is None else _at(cached, 0),
        source=f"genai-prices {version('genai-prices')}{note}",
        as_of=table_date(),
        tiers=tuple(
            Tier(
                beyond_tokens=start,
                prompt_usd_per_million=_at(prompt, start + 1),
                completion_usd_per_million=_at(completion, start + 1),
                cached_usd_per_million=None if cached is None else _at(cached, start + 1),
            )
            for start in tiers
        ),
    )


def _at(price: Any, prompt_tokens: int) -> Decimal:
    """A price, which may depend on how long the prompt is."""
    best: Decimal = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if prompt_tokens > tier.start:
            best = tier.price
    return best
