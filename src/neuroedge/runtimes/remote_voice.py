"""Voices of providers that speak OpenAI's `POST /audio/speech`: OpenAI itself and servers compatible with it.

Asked for WAV, which says its own rate; the answer is read whole, at most 64 MB of it. Pronunciations in IPA cannot be
given to them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from neuroedge.contract.errors import NeuroEdgeError, ProviderFailed
from neuroedge.contract.speech import Part, SpeechPiece
from neuroedge.kit.speech_audio import of_wav
from neuroedge.runtimes.remote_llm.connections import Address, Client, Connections
from neuroedge.runtimes.remote_llm.errors import cause, wrapped


@asynccontextmanager
async def remote_voice(
    connections: Connections, *, provider: str, model: str, address: Address, silence_s: float
) -> AsyncIterator["RemoteVoice"]:
    """A provider's model. The SDK is imported here, which takes seconds the first time: no provider's fault."""
    async with connections.client(address) as client:
        yield RemoteVoice(
            client=client,
            provider=provider,
            model_id=f"{provider}/{model}",
            model=model,
            key=address.api_key,
            silence_s=silence_s,
        )


@dataclass(slots=True, kw_only=True)
class RemoteVoice:
    """SpeechSynthesiser over one provider's model."""

    client: Client
    provider: str
    model_id: str
    """`provider/model`."""
    model: str
    key: str | None = field(repr=False)
    silence_s: float
    """Longest time without a byte."""

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """Say `parts`; the language is the text's. Raises Overloaded, ProviderFailed, ProviderRefused."""
        text = "".join(part.text for part in parts)
        try:
            data = await self._asked(text, voice or "alloy", speed)
            samples, rate_hz = of_wav(data)
        except NeuroEdgeError:
            raise
        except ValueError as error:
            raise ProviderFailed(f"{self.provider} answers what is not understood: {error}", transient=False) from error
        except Exception as error:
            raise wrapped(error, provider=self.provider, key=self.key) from cause(error, self.key)
        unheard = [part.text for part in parts if part.ipa is not None]
        warnings = [f"{self.model_id} is not told pronunciations: {', '.join(unheard)}"] if unheard else []
        return SpeechPiece(samples=samples, rate_hz=rate_hz, words=None, warnings=warnings)

    async def _asked(self, text: str, voice: str, speed: float) -> bytes:
        answer = await self.client.sdk.audio.speech.create(
            model=self.model,
            input=text,
            voice=voice,
            response_format="wav",
            speed=speed,
            timeout=self.client.timeout(self.silence_s),
        )
        data: bytes = await answer.aread()
        return data
