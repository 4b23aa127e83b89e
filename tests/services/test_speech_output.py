"""Voices of a provider behind a real HTTP server: what is asked, what it costs, who may, and what fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import (
    BudgetExceeded,
    CircuitOpen,
    Forbidden,
    InvalidInput,
    Overloaded,
    ProviderFailed,
    ProviderRefused,
    Unavailable,
)
from neuroedge.contract.principal import Principal
from neuroedge.contract.speech import Part, Voice
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.clock import SystemClock
from neuroedge.runtimes.remote_llm.connections import Address, Connections
from neuroedge.runtimes.remote_voice import remote_voice
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.offers import Preferences, VoiceOffer
from neuroedge.services.llm.provider_file import read_providers, read_voices
from neuroedge.services.speech_output import SpeechOutputs
from tests.fakes import FakeModels, make_principal
from tests.services.llm.gateway_parts import FakeLedger
from tests.voice_upstream import VoiceUpstream, running_voice_upstream

pytestmark = pytest.mark.anyio
KEY = "sk-secret-0123456789abcdef"
FILE = """
[[provider]]
name = "room"
wire = "openai"
base_url = "{url}"
api_key_env = "VOICE_KEY"
[[provider.voice]]
model = "kokoro"
voices = ["af_heart", "bm_george"]
languages = ["en", "fr"]
answer_s = 60.0
usd_per_million_characters = "15"
"""
HELLO = [Part(text="Hello "), Part(text="cat", ipa="kæt")]


class Settled:
    """What the organisation has settled."""

    def __init__(self) -> None:
        self.preferences_ = Preferences()

    async def preferences(self, principal: Principal) -> Preferences:
        """As it was set."""
        return self.preferences_


class Parts:
    """The service over one provider."""

    def __init__(self, offers: list[VoiceOffer], connections: Connections) -> None:
        self.ledger, self.settled = FakeLedger(), Settled()
        self.local: list[Voice] = []
        self.outputs = SpeechOutputs(
            offers=offers,
            local=lambda: self.local,
            opened=lambda one: remote_voice(
                connections,
                provider=one.offer.provider,
                model=one.offer.model,
                address=Address(wire="openai", base_url=one.offer.base_url, api_key=one.offer.api_key, direct=True),
                silence_s=60.0,
            ),
            models=FakeModels({}),
            settled=self.settled,
            ledger=self.ledger,
            breakers=Breakers(threshold=3),
            clock=SystemClock(),
        )

    async def say(self, principal: Principal | None = None, **more: Any) -> Any:
        """By the first voice there is."""
        port = self.outputs.of(principal or make_principal(), "request-1")
        (first, *_) = await port.known()
        async with port.opened(first) as speaker:
            return await speaker.say(HELLO, voice=first.voice, **more)


@pytest.fixture(scope="module")
def _running() -> Iterator[VoiceUpstream]:
    with running_voice_upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(_running: VoiceUpstream) -> VoiceUpstream:
    """As new."""
    _running.forget()
    return _running


@pytest.fixture
async def parts(upstream: VoiceUpstream, tmp_path: Path) -> AsyncIterator[Parts]:
    """As providers.toml describes it."""
    path = tmp_path / "providers.toml"
    path.write_text(FILE.format(url=upstream.url))
    assert read_providers(path, environment={"VOICE_KEY": KEY}) == []
    connections = Connections()
    made = Parts(read_voices(path, environment={"VOICE_KEY": KEY}), connections)
    yield made
    await made.outputs.close()
    await connections.close()


async def test_a_provider_speaks_and_its_characters_are_counted(parts: Parts, upstream: VoiceUpstream) -> None:
    """Voice, speed and key reach it; the ledger knows characters and price; IPA is not for it."""
    said = await parts.say(speed=2.0)
    await parts.outputs.close()
    assert upstream.asked == [
        {"model": "kokoro", "input": "Hello cat", "voice": "af_heart", "response_format": "wav", "speed": 2.0}
    ]
    assert upstream.keys == [f"Bearer {KEY}"]
    assert said.rate_hz == 24_000
    assert len(said.samples) == pytest.approx(0.45 * 24_000, abs=2)
    assert "cat" in said.warnings[0]
    ((call, spent),) = parts.ledger.rows()
    assert (call.query_type, call.prompt_tokens, spent.prompt_tokens, spent.outcome) == ("speech", 9, 9, "ok")
    assert call.offer.price is not None
    assert call.offer.price.of(prompt_tokens=1_000_000, completion_tokens=0) == Decimal(15)


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderFailed), (429, Overloaded), (400, ProviderRefused), (503, ProviderFailed)]
)
async def test_a_providers_refusal_is_told_without_its_key(
    parts: Parts, upstream: VoiceUpstream, status: int, error: type[Exception]
) -> None:
    """As of language models; the call is closed in the ledger."""
    upstream.status = status
    with pytest.raises(error) as caught:
        await parts.say()
    assert KEY not in str(caught.value)
    await parts.outputs.close()
    assert parts.ledger.outcomes() == [("kokoro", "failed")]


@pytest.mark.parametrize("body", [b"", b"no sound", b"RIFF\0\0\0\0WAVE"])
async def test_what_is_no_sound_is_the_providers_fault(parts: Parts, upstream: VoiceUpstream, body: bytes) -> None:
    """Never an unexpected error."""
    upstream.body = body
    with pytest.raises(ProviderFailed, match="not understood"):
        await parts.say()


async def test_who_is_too_slow_is_given_up_and_then_left_alone(parts: Parts, upstream: VoiceUpstream) -> None:
    """Within its time each; after some failures it is not asked any more."""
    upstream.may_answer.clear()
    parts.outputs.offers = {id_: replace(one, answer_s=0.5) for id_, one in parts.outputs.offers.items()}
    for _ in range(3):
        with pytest.raises(ProviderFailed, match=r"did not answer within 0\.5 s"):
            await parts.say()
    with pytest.raises(CircuitOpen):
        await parts.say()
    await parts.outputs.close()
    assert parts.ledger.rows()[-1][1].prompt_tokens == 0


async def test_who_leaves_closes_the_call(parts: Parts, upstream: VoiceUpstream) -> None:
    """As cancelled; the breaker does not count it."""
    upstream.may_answer.clear()
    task = asyncio.create_task(parts.say())
    async with asyncio.timeout(60):
        while not upstream.asked:  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await parts.outputs.close()
    assert parts.ledger.outcomes() == [("kokoro", "cancelled")]
    assert parts.outputs.breakers.states()["voice:room"].failures == 0


async def test_a_spent_budget_asks_nobody(parts: Parts, upstream: VoiceUpstream) -> None:
    """The provider hears nothing."""
    parts.ledger.refusal = BudgetExceeded("spent")
    with pytest.raises(BudgetExceeded):
        await parts.say()
    assert upstream.asked == []


async def test_what_must_stay_here_does_not_leave(parts: Parts, upstream: VoiceUpstream) -> None:
    """local_only, an API key's models, the platform's own tests: such a voice is not listed, or not opened."""
    first = (await parts.outputs.of(make_principal(), "r").known())[0]
    parts.settled.preferences_ = Preferences(local_only=True)
    assert await parts.outputs.of(make_principal(), "r").known() == []
    with pytest.raises(Forbidden):
        async with parts.outputs.of(make_principal(), "r").opened(first):
            pass
    parts.settled.preferences_ = Preferences()
    for models, count in ((("room/*",), 2), (("local/x",), 0)):
        limited = replace(make_principal(), models=models)
        assert len(await parts.outputs.of(limited, "r").known()) == count
    with pytest.raises(Unavailable):
        await parts.say(PROBE)
    assert upstream.asked == []


async def test_what_is_not_installed_tells_its_remedy(parts: Parts) -> None:
    """A voice of this machine that is known only."""
    missing = Voice(
        id="joe",
        name="Joe",
        kind="neural",
        method="piper",
        model="joe",
        voice=None,
        languages=("en",),
        private=True,
        fingerprint="",
        ready=False,
        remedy="neuroedge models pull joe",
    )
    with pytest.raises(Unavailable) as caught:
        async with parts.outputs.of(make_principal(), "r").opened(missing):
            pass
    assert caught.value.hint == missing.remedy


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('voices = ["af_heart", "bm_george"]', "voices = []"), "voices"),
        (('"af_heart"', '"../x"'), "voices"),
        (('"en", "fr"', '"klingon!"'), "languages"),
        (("answer_s = 60.0", "answer_s = 0"), "answer_s"),
        (("answer_s = 60.0", "answer_s = nan"), "answer_s"),
        (('wire = "openai"', 'wire = "anthropic"'), "wire format"),
        (('usd_per_million_characters = "15"', "usd = 1"), "usd"),
    ],
)
async def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    """With the place in it."""
    path = tmp_path / "providers.toml"
    path.write_text(FILE.format(url="http://127.0.0.1:9/v1").replace(*change))
    with pytest.raises(InvalidInput, match=told):
        read_voices(path, environment={"VOICE_KEY": KEY})
