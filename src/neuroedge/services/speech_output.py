"""The voices of providers and of this machine, bound to who asks: what may be used, in its time, and what it cost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fnmatch import fnmatchcase
from typing import Final, Protocol

import structlog

from neuroedge.contract import scope
from neuroedge.contract.errors import (
    CircuitOpen,
    Forbidden,
    NeuroEdgeError,
    Overloaded,
    ProviderFailed,
    Unavailable,
)
from neuroedge.contract.models import SPEECH_SYNTHESIS, Models
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.contract.speech import AudioFormat, Part, SpeechPiece, SpeechSynthesiser, Voice
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.decode_slots import DecodeSlots
from neuroedge.infra.media_encode import encoded
from neuroedge.kit.waveform import Floats
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.attempt import Ledger
from neuroedge.services.llm.calls import Call, Outcome, Spent
from neuroedge.services.llm.lanes import Lanes
from neuroedge.services.llm.offers import Offer, Preferences, VoiceOffer
from neuroedge.stores.ids import new_id

log = structlog.get_logger(__name__)
QUERY_TYPE: Final = "speech"
"""Under which calls of voices stand in the ledger; their characters count as prompt tokens."""


class Settled(Protocol):
    """What an organisation has settled (services/llm/providers.py)."""

    async def preferences(self, principal: Principal) -> Preferences:
        """Whether anything may leave the operator's machines."""
        ...


class SpeechOutputs:
    """All voices of the installation; `of` binds them to a caller.

    `local`: this machine's, best first. `opened`: what speaks for a provider, made ready.
    """

    def __init__(
        self,
        *,
        offers: Sequence[VoiceOffer],
        local: Callable[[], Sequence[Voice]],
        opened: Callable[[VoiceOffer], AbstractAsyncContextManager[SpeechSynthesiser]],
        models: Models,
        settled: Settled,
        ledger: Ledger,
        breakers: Breakers,
        clock: Clock,
    ) -> None:
        self.offers = {offer.offer.id: offer for offer in offers}
        self.local = local
        self.open_remote = opened
        self.models = models
        self.settled = settled
        self.ledger = ledger
        self.breakers = breakers
        self.clock = clock
        self.lanes = Lanes()
        self.encoding = DecodeSlots(at_once=2, max_waiting=32)
        self.ending: set[asyncio.Task[None]] = set()

    def of(self, principal: Principal, request_id: str) -> "TenantSpeechOutput":
        """The SpeechOutput port, bound to a caller."""
        return TenantSpeechOutput(self, principal, request_id)

    async def close(self) -> None:
        """Wait until every call that has ended stands in the ledger."""
        while self.ending:
            await asyncio.wait(self.ending)


class TenantSpeechOutput:
    """The SpeechOutput port of one caller."""

    def __init__(self, outputs: SpeechOutputs, principal: Principal, request_id: str) -> None:
        self._outputs = outputs
        self._principal = principal
        self._request_id = request_id

    async def known(self) -> Sequence[Voice]:
        """The network's that the caller may use, then this machine's."""
        return [*await self._network(), *await asyncio.to_thread(self._outputs.local)]

    @asynccontextmanager
    async def opened(self, voice: Voice) -> AsyncIterator[SpeechSynthesiser]:
        """Hold what speaks with a voice. Raises Unavailable with the remedy, Forbidden."""
        if voice.kind != "network":
            if not voice.ready:
                raise Unavailable(f"the voice {voice.id} is not installed", hint=voice.remedy)
            async with self._outputs.models.lease(SPEECH_SYNTHESIS.named(voice.model)) as model:
                yield model
            return
        if voice.id not in {one.id for one in await self._network()}:
            raise Forbidden(f"the voice {voice.id} may not be used here")
        if self._principal.org_id == PROBE.org_id:
            raise Unavailable("no provider is asked for the platform's own tests")
        offer = self._outputs.offers[voice.model]
        yield _Metered(self._outputs, offer, self._principal, self._request_id)

    async def encode(self, samples: Floats, *, rate_hz: int, form: AudioFormat) -> bytes:
        """A whole file of a mono waveform [n]. Raises Overloaded."""
        return await self._outputs.encoding.run(encoded, samples, rate_hz=rate_hz, form=form)

    async def _network(self) -> list[Voice]:
        if not self._outputs.offers:
            return []
        local_only = (
            self._principal.org_id != PROBE.org_id
            and (await self._outputs.settled.preferences(self._principal)).local_only
        )
        return [
            _voice(one, name)
            for one in self._outputs.offers.values()
            if (one.offer.private or not local_only) and self._allows(one.offer)
            for name in one.voices
        ]

    def _allows(self, offer: Offer) -> bool:
        """Whether an API key that is limited to some models allows it."""
        models = self._principal.models
        return models is None or any(fnmatchcase(offer.id, allowed) for allowed in models)


def _voice(one: VoiceOffer, name: str) -> Voice:
    return Voice(
        id=f"{one.offer.id}/{name}",
        name=name,
        kind="network",
        method="network",
        model=one.offer.id,
        voice=name,
        languages=one.languages,
        private=one.offer.private,
        fingerprint=f"{one.offer.base_url}",
    )


class _Metered:
    """A provider's model in its lane, behind its breaker, within its time, in the ledger before and after."""

    def __init__(self, outputs: SpeechOutputs, one: VoiceOffer, principal: Principal, request_id: str) -> None:
        self.model_id = one.offer.id
        self._outputs = outputs
        self._one = one
        self._principal = principal
        self._request_id = request_id

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """Say `parts`. Raises what the provider's model raises, CircuitOpen, BudgetExceeded, ProviderFailed."""
        call = self._call(sum(len(part.text) for part in parts))
        await self._outputs.ledger.begin(call)
        started = time.monotonic()
        outcome: Outcome = "failed"
        code: str | None = None
        try:
            piece = await self._asked(parts, voice, language, speed)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except NeuroEdgeError as error:
            code = error.code
            log.warning("voice_failed", voice=self.model_id, code=code)
            raise
        finally:
            self._end(call, outcome, code, time.monotonic() - started)
        return piece

    async def _asked(self, parts: Sequence[Part], voice: str | None, language: str | None, speed: float) -> SpeechPiece:
        offer, outputs = self._one.offer, self._outputs
        limit_s = scope.remaining_s(self._one.answer_s)
        async with (
            outputs.breakers.guard(f"voice:{offer.provider}"),
            outputs.lanes.of(offer).place(wait_s=limit_s),
            outputs.open_remote(self._one) as model,
        ):
            try:
                async with asyncio.timeout(limit_s):
                    return await model.say(parts, voice=voice, language=language, speed=speed)
            except TimeoutError as error:
                raise ProviderFailed(f"{offer.provider} did not answer within {limit_s:.3g} s") from error

    def _call(self, characters: int) -> Call:
        return Call(
            id=new_id(),
            org_id=self._principal.org_id,
            user_id=self._principal.user_id,
            request_id=self._request_id,
            offer=self._one.offer,
            query_type=QUERY_TYPE,
            prompt_tokens=characters,
            started_at=self._outputs.clock.now(),
        )

    def _end(self, call: Call, outcome: Outcome, code: str | None, seconds: float) -> None:
        """In a task of its own: its caller may be cancelled again."""
        spent = Spent(
            outcome=outcome,
            prompt_tokens=0 if code in (CircuitOpen.code, Overloaded.code) else call.prompt_tokens,
            completion_tokens=0,
            seconds=seconds,
            error=code,
        )
        task = asyncio.create_task(self._outputs.ledger.end(call.id, spent))
        self._outputs.ending.add(task)
        task.add_done_callback(self._outputs.ending.discard)
