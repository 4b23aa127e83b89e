"""How a provider of language models is described: by the operator (provider_file.py), and by an organisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from neuroedge.services.llm import prices
from neuroedge.services.llm.offers import LOCAL, Offer, Price

Kind = Literal["openai", "anthropic", "qwen"]
RemoteWire = Literal["openai", "anthropic"]
_CONTEXT_TOKENS: Final = 8192
_SHORT_TEXT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WellKnown:
    """A vendor whose address need not be given."""

    wire: RemoteWire
    base_url: str
    key_variable: str
    models: tuple[str, ...]
    """Offered where no models are named."""
    images: bool


WELL_KNOWN: Final[Mapping[Kind, WellKnown]] = {
    "openai": WellKnown(
        wire="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        models=("gpt-5-mini", "gpt-5", "gpt-4.1-mini", "gpt-4.1", "gpt-4o-mini"),
        images=True,
    ),
    "anthropic": WellKnown(
        wire="anthropic",
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
        models=("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"),
        images=True,
    ),
    "qwen": WellKnown(
        wire="openai",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variable="DASHSCOPE_API_KEY",
        models=("qwen-plus", "qwen-max", "qwen-turbo"),
        images=False,
    ),
}


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not text.isprintable():
        raise ValueError("is no URL; expected https://host/path")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("holds more than scheme, host and path; a key belongs into api_key")
    return text.rstrip("/")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("holds spaces around it or characters that cannot be printed")
    return text


def _not_reserved(name: str) -> str:
    if name == LOCAL:
        raise ValueError(f"{LOCAL} is the name of this machine's own models")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"), AfterValidator(_not_reserved)]
ModelName = Annotated[str, Field(min_length=1, max_length=_SHORT_TEXT), AfterValidator(_printable)]
ApiKey = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")]
QueryType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=18, decimal_places=10)]


class PriceSettings(BaseModel):
    """A price of the operator's, or of the organisation's contract."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_usd_per_million: Usd
    completion_usd_per_million: Usd
    cached_usd_per_million: Usd | None = Field(
        default=None, description="Of prompt tokens the provider had computed already; as other ones by default."
    )
    source: str = Field(default="as configured", min_length=1, max_length=_SHORT_TEXT)
    as_of: date | None = Field(default=None, description="When the price was read.")

    def price(self) -> Price:
        """As calls are priced."""
        return Price(
            prompt_usd_per_million=self.prompt_usd_per_million,
            completion_usd_per_million=self.completion_usd_per_million,
            cached_usd_per_million=self.cached_usd_per_million,
            source=self.source,
            as_of=(self.as_of or datetime.now(UTC).date()).isoformat(),
        )


class ModelSettings(BaseModel):
    """One model of a provider; what is left out is taken from the price table where it knows the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ModelName
    context_tokens: int | None = Field(default=None, ge=256, le=100_000_000)
    max_output_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    price: PriceSettings | None = Field(default=None, description="Instead of the price table's.")
    quality: int = Field(default=0, ge=-1000, le=1000, description="Higher is better, where a caller prefers quality.")
    query_types: tuple[QueryType, ...] = Field(default=(), max_length=50, description="What it is chosen for first.")
    tools: bool = True
    images: bool | None = None


class VoiceSettings(BaseModel):
    """A model of a provider that speaks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName
    voices: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")], ...] = Field(
        min_length=1, max_length=200
    )
    languages: tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$")], ...] = Field(
        default=(), max_length=200, description="As BCP 47; none: whatever the text is in."
    )
    answer_s: float = Field(
        default=15.0,
        gt=0,
        le=300,
        allow_inf_nan=False,
        description="Longest it may take for one utterance; then a voice of this machine says it.",
    )
    usd_per_million_characters: Usd | None = None


class ProviderSettings(BaseModel):
    """A provider without its name and key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind | None = Field(default=None, description="A vendor whose address and wire format are known.")
    wire: RemoteWire | None = Field(default=None, description="How it is spoken to, where no kind is given.")
    base_url: Annotated[str, Field(max_length=500), AfterValidator(_url)] | None = None
    private: bool = Field(default=False, description="Whether what is sent there stays with the operator.")
    models: tuple[ModelSettings, ...] = Field(default=(), max_length=200)
    concurrency: int = Field(default=8, ge=1, le=1000, description="Most calls at the same time, of one process.")
    first_token_s: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False)
    idle_s: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False, description="Longest silence in an answer.")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.kind is None and (self.wire is None or self.base_url is None):
            raise ValueError("give a kind, or wire and base_url")
        if self.kind is not None and self.wire not in (None, WELL_KNOWN[self.kind].wire):
            raise ValueError(f"the kind {self.kind} does not speak this wire format")
        if self.kind is None and not self._named():
            raise ValueError("name its models")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("names a model twice")
        return self

    def _named(self) -> bool:
        """Whether it says what it offers."""
        return bool(self.models)

    @property
    def address(self) -> str:
        """Where it is."""
        usual = WELL_KNOWN[self.kind].base_url if self.kind else ""
        return self.base_url or usual

    def offers(self, name: str, *, api_key: str | None, own: bool) -> list[Offer]:
        """Its models, in the order they are named."""
        well_known = WELL_KNOWN[self.kind] if self.kind else None
        usual = well_known.models if well_known else ()
        return [
            self._offer(name, model, well_known, api_key=api_key, own=own)
            for model in self.models or [ModelSettings(name=one) for one in usual]
        ]

    def _offer(
        self, name: str, model: ModelSettings, well_known: WellKnown | None, *, api_key: str | None, own: bool
    ) -> Offer:
        known = prices.NOTHING
        if model.price is None or model.context_tokens is None:
            # A kind at another address than the vendor's is a server of somebody else's, with prices of its own.
            moved = well_known is not None and self.address != well_known.base_url
            known = prices.known(model.name, kind=None if moved else self.kind, base_url=self.address)
        return Offer(
            provider=name,
            wire=well_known.wire if well_known else self.wire or "openai",
            model=model.name,
            base_url=self.address,
            api_key=api_key,
            private=self.private,
            context_tokens=model.context_tokens or known.context_tokens or _CONTEXT_TOKENS,
            max_output_tokens=model.max_output_tokens,
            price=model.price.price() if model.price else known.price,
            quality=model.quality,
            query_types=model.query_types,
            concurrency=self.concurrency,
            first_token_s=self.first_token_s,
            idle_s=self.idle_s,
            tools=model.tools,
            images=bool(well_known and well_known.images) if model.images is None else model.images,
            own=own,
        )
