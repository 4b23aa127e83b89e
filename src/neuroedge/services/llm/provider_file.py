"""The operator's providers of language models and voices: providers.toml.

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
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroedge.contract.errors import InvalidInput
from neuroedge.services.llm.offers import Offer, VoiceOffer
from neuroedge.services.llm.provider_settings import (
    WELL_KNOWN,
    ApiKey,
    Name,
    PriceSettings,
    ProviderSettings,
    VoiceSettings,
)

log = structlog.get_logger(__name__)
_MAX_FILE_BYTES: Final = 1 << 20


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
