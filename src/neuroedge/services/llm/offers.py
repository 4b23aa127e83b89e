"""A model that can be asked, wherever it runs, with what one must know to ask it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

LOCAL: Final = "local"
"""Name of the provider that is this process."""
Wire = Literal["local", "openai", "anthropic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Prices of a call with a long prompt, of all its tokens."""

    beyond_tokens: int
    """It holds for prompts of more tokens than these."""
    prompt_usd_per_million: Decimal
    completion_usd_per_million: Decimal
    cached_usd_per_million: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What tokens cost, with where and when that was read."""

    prompt_usd_per_million: Decimal
    completion_usd_per_million: Decimal
    cached_usd_per_million: Decimal | None = None
    """Of prompt tokens the provider had computed already; None: as other prompt tokens."""
    source: str
    as_of: str
    """ISO date."""
    tiers: tuple[Tier, ...] = ()
    """Ascending."""

    def of(self, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Decimal:
        """US dollars of a call."""
        rate: Price | Tier = self
        for tier in self.tiers:
            if prompt_tokens > tier.beyond_tokens:
                rate = tier
        cached = rate.prompt_usd_per_million if rate.cached_usd_per_million is None else rate.cached_usd_per_million
        total = (
            max(0, prompt_tokens - cached_tokens) * rate.prompt_usd_per_million
            + cached_tokens * cached
            + completion_tokens * rate.completion_usd_per_million
        )
        return total / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model of one provider."""

    provider: str
    """Its name in this installation or organisation: local, openai, qwen-eu, …"""
    wire: Wire
    """How it is spoken to."""
    model: str
    """The provider's own name of the model."""
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    private: bool = False
    """Whether what is sent stays with the operator: this process, or a server of theirs."""
    context_tokens: int = 8192
    max_output_tokens: int | None = None
    price: Price | None = None
    """None: costs nothing that is known."""
    quality: int = 0
    """Higher is better, where the policy asks for quality."""
    query_types: tuple[str, ...] = ()
    """What it is chosen for first; empty: nothing in particular."""
    concurrency: int = 8
    """Most calls to this provider at the same time, of one process."""
    first_token_s: float = 30.0
    idle_s: float = 30.0
    """Longest silence within an answer."""
    tools: bool = True
    images: bool = False
    own: bool = False
    """The organisation's own, not the operator's: its URL is none to follow redirects from."""

    @property
    def id(self) -> str:
        """As callers name it."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What an organisation has settled for all of its calls. Offers are named by their id, as `provider/model`."""

    default_model: str | None = None
    """What answers where a caller names none."""
    local_only: bool = False
    """Nothing may leave the operator's machines: offers that are not `private` are none."""
    fallback: tuple[str, ...] = ()
    """What is tried after the first choice, in this order, before any other."""
    by_query_type: Mapping[str, str] = field(default_factory=dict)
    """The first choice for a query type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOffer:
    """A provider's model that speaks; of its `offer`, tokens are characters."""

    offer: Offer
    voices: tuple[str, ...]
    languages: tuple[str, ...]
    """BCP 47; empty: whatever the text is in."""
    answer_s: float
    """Longest it may take for one utterance; then another voice says it."""
