"""How a provider of language models is described: in the operator's providers.toml, and by an organisation.

[[provider]]
name = "openai"
kind = "openai"                  # address, wire and usual models are known; the key from OPENAI_API_KEY

[[provider]]
name = "gpu-room"
wire = "openai"                  # any server that speaks it: vLLM, llama.cpp, Ollama
base_url = "http://10.0.0.7:8000/v1"
api_key_file = "/run/secrets/gpu-room"
private = true                   # what is sent there stays with the operator
[[provider.model]]
name = "qwen3-32b"
context_tokens = 32768
price = { prompt_usd_per_million = "0.1", completion_usd_per_million = "0.3" }
[[provider.voice]]               # a model that speaks (POST /audio/speech), of providers with OpenAI's wire
model = "kokoro"
voices = ["af_heart", "bm_george"]
languages = ["en"]
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroedge.contract.errors import InvalidInput
from neuroedge.services.llm import prices
from neuroedge.services.llm.offers import LOCAL, Offer, Price, VoiceOffer

log = structlog.get_logger(__name__)

Kind = Literal["openai", "anthropic", "qwen"]
RemoteWire = Literal["openai", "anthropic"]
_MAX_FILE_BYTES: Final = 1 << 20
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


class _FileProvider(ProviderSettings):
    """A table of providers.toml."""

    name: Name
    api_key: ApiKey | None = Field(default=None, repr=False)
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_key_file: Path | None = None
    voices: tuple[VoiceSettings, ...] = Field(default=(), max_length=50)

    def _named(self) -> bool:
        return bool(self.models or self.voices)

    def voice_offers(self, *, api_key: str | None) -> list[VoiceOffer]:
        """Its models that speak, in the order they are named."""
        return [self._voice_offer(voice, api_key) for voice in self.voices]

    def _voice_offer(self, voice: VoiceSettings, api_key: str | None) -> VoiceOffer:
        price = voice.usd_per_million_characters
        offer = Offer(
            provider=self.name,
            wire="openai",
            model=voice.model,
            base_url=self.address,
            api_key=api_key,
            private=self.private,
            concurrency=self.concurrency,
            price=None
            if price is None
            else PriceSettings(prompt_usd_per_million=price, completion_usd_per_million=Decimal(0)).price(),
        )
        return VoiceOffer(offer=offer, voices=voice.voices, languages=voice.languages, answer_s=voice.answer_s)

    @model_validator(mode="after")
    def _can_speak(self) -> Self:
        wire = WELL_KNOWN[self.kind].wire if self.kind else self.wire
        if self.voices and wire != "openai":
            raise ValueError("voices are asked for in OpenAI's wire format only")
        return self

    @model_validator(mode="before")
    @classmethod
    def _tables(cls, data: Any) -> Any:
        """In TOML each model is a table `provider.model`, each that speaks a table `provider.voice`."""
        for one, many in (("model", "models"), ("voice", "voices")):
            if isinstance(data, dict) and one in data and many not in data:
                data = {**data, many: data[one]}
                del data[one]
        return data

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if sum(key is not None for key in (self.api_key, self.api_key_env, self.api_key_file)) > 1:
            raise ValueError("give one of api_key_env, api_key_file and api_key")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provider: tuple[_FileProvider, ...] = Field(default=(), max_length=100)


def read_providers(path: Path, *, environment: Mapping[str, str] = os.environ) -> list[Offer]:
    """The operator's offers, in the order of the file; none without a file.

    Raises InvalidInput that names the file, the place in it and what is wrong, never a value, which may be a key.
    """
    return [
        offer
        for provider in _read(path)
        for offer in provider.offers(provider.name, api_key=_key(provider, path, environment), own=False)
    ]


def read_voices(path: Path, *, environment: Mapping[str, str] = os.environ) -> list[VoiceOffer]:
    """The operator's models that speak, in the order of the file; none without a file. Raises InvalidInput likewise."""
    return [
        offer
        for provider in _read(path)
        if provider.voices
        for offer in provider.voice_offers(api_key=_key(provider, path, environment))
    ]


def _read(path: Path) -> Sequence[_FileProvider]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_FILE_BYTES:
        raise InvalidInput(f"{path.name} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        data = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} is no TOML: {_without_values(error)}") from None
    try:
        providers = _File.model_validate(data).provider
    except ValidationError as error:
        problems = [f"{_place(data, one['loc'])}: {one['msg']}" for one in error.errors(include_input=False)]
        raise InvalidInput(f"{path.name}: {'; '.join(problems[:10])}", hint="docs/operations.md shows one") from None
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names):
        raise InvalidInput(f"{path.name} has two providers of the same name")
    return providers


def _key(provider: _FileProvider, path: Path, environment: Mapping[str, str]) -> str | None:
    """Raises InvalidInput where one is named and not there, or a well-known vendor has none."""
    where = f"{path.name}: provider {provider.name}"
    if provider.api_key is not None:
        log.warning(
            "provider_key_in_file",
            provider=provider.name,
            hint="name a variable with api_key_env, or a file with api_key_file",
        )
        return provider.api_key
    if provider.api_key_file is not None:
        try:
            key = provider.api_key_file.expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{where}: the file of api_key_file cannot be read") from error
        return _usable(key, f"{where}: the file of api_key_file")
    usual = WELL_KNOWN[provider.kind].key_variable if provider.kind else None
    variable = provider.api_key_env or usual
    if variable is None or (variable not in environment and provider.base_url and not provider.api_key_env):
        return None
    if variable not in environment:
        raise InvalidInput(f"{where}: the variable {variable} is not set", hint="set it, or name another source")
    return _usable(environment[variable].strip(), f"{where}: the variable {variable}")


def _usable(key: str, source: str) -> str:
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidInput(f"{source} holds no key")
    return key


def _place(data: Mapping[str, Any], loc: Sequence[int | str]) -> str:
    """As `provider 2 (openai).model.1.name`: people count from 1."""
    parts = [str(part + 1) if isinstance(part, int) else part for part in loc]
    if len(loc) > 1 and isinstance(loc[1], int):
        one = data["provider"][loc[1]]
        name = one.get("name") if isinstance(one, Mapping) else None
        named = f" ({name})" if isinstance(name, str) and len(name) < 64 and name.isprintable() else ""
        parts = [f"provider {parts[1]}{named}", *parts[2:]]
    return ".".join(parts)


def _without_values(error: Exception) -> str:
    """Line and column of a syntax error, without the text that stands there."""
    text = str(error)
    return text[text.rindex("(") + 1 : text.rindex(")")] if text.endswith(")") else "it is no text in UTF-8"
