"""Voices: of the operator's providers, and of this machine."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from neuroedge.bootstrap.llm_accounts import LLMAccounts
from neuroedge.contract.models import SPEECH_SYNTHESIS, Models
from neuroedge.contract.ports import Clock
from neuroedge.contract.speech import INSTALL_VOICES, SpeechSynthesiser, Voice
from neuroedge.infra.breaker import Breakers
from neuroedge.runtimes import espeak, piper_voice
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry
from neuroedge.runtimes.remote_llm.connections import Address, Connections
from neuroedge.runtimes.remote_voice import remote_voice
from neuroedge.services.llm.offers import VoiceOffer
from neuroedge.services.llm.provider_file import read_voices
from neuroedge.services.speech_output import SpeechOutputs
from neuroedge.settings import Settings

SLACK_S = 5.0
"""The service's own limit comes first."""


async def speech_output_of(
    settings: Settings,
    *,
    catalogue: Catalogue,
    models: Models,
    accounts: LLMAccounts,
    breakers: Breakers,
    clock: Clock,
    stack: AsyncExitStack,
) -> SpeechOutputs:
    """All voices; the stack closes them. Raises InvalidInput for a providers.toml that cannot be used."""
    path = settings.llm_providers or settings.data_dir / "providers.toml"
    offers = await asyncio.to_thread(read_voices, path)
    connections = Connections()
    stack.push_async_callback(connections.close)

    def opened(one: VoiceOffer) -> AbstractAsyncContextManager[SpeechSynthesiser]:
        offer = one.offer
        return remote_voice(
            connections,
            provider=offer.provider,
            model=offer.model,
            address=Address(wire="openai", base_url=offer.base_url, api_key=offer.api_key, direct=offer.private),
            silence_s=one.answer_s + SLACK_S,
        )

    outputs = SpeechOutputs(
        offers=offers,
        local=lambda: local_voices(catalogue),
        opened=opened,
        models=models,
        settled=accounts.providers,
        ledger=accounts.ledger,
        breakers=breakers,
        clock=clock,
    )
    stack.push_async_callback(outputs.close)
    return outputs


def local_voices(catalogue: Catalogue) -> Sequence[Voice]:
    """Neural voices first, the configured one before others; then every language of espeak-ng."""
    entries = [entry for entry in catalogue if entry.role == SPEECH_SYNTHESIS.role]
    neural = sorted((one for one in entries if one.runtime != "espeak"), key=lambda one: not catalogue.active(one))
    formant = [entry for entry in entries if entry.runtime == "espeak"]
    return [voice for entry in neural for voice in _neural(catalogue, entry)] + [
        voice for entry in formant for voice in _formant(entry)
    ]


def _neural(catalogue: Catalogue, entry: ModelEntry) -> list[Voice]:
    """One, or one for each speaker that the catalogue names."""
    remedy = None
    if not piper_voice.installed():
        remedy = INSTALL_VOICES
    elif not catalogue.present(entry):
        remedy = f"neuroedge models pull {entry.id}"
    return [
        Voice(
            id=f"{entry.id}#{speaker}" if speaker else entry.id,
            name=speaker or str(entry.options.get("name", entry.id)),
            kind="neural",
            method="piper",
            model=entry.id,
            voice=speaker,
            languages=tuple(entry.options.get("languages", ())),
            private=True,
            fingerprint=entry.fingerprint,
            ready=remedy is None,
            remedy=remedy,
        )
        for speaker in entry.options.get("speakers", (None,))
    ]


def _formant(entry: ModelEntry) -> list[Voice]:
    return [
        Voice(
            id=f"espeak/{voice.id}",
            name=voice.name,
            kind="formant",
            method="espeak-ng",
            model=entry.id,
            voice=voice.id,
            languages=voice.languages,
            private=True,
            fingerprint=entry.fingerprint,
        )
        for voice in espeak.voices()
    ]
