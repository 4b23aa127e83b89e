"""The gateway over real HTTP: who answers, what happens when one fails, and that every attempt is in the ledger."""

import asyncio
import logging
import time
import traceback
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import anyio
import pytest

from neuroedge.contract import scope
from neuroedge.contract.chat import ChatDelta, ChatRequest, Policy
from neuroedge.contract.errors import (
    BudgetExceeded,
    CircuitOpen,
    ContextTooLong,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    ProviderBroke,
    ProviderFailed,
    ProviderRefused,
    Unavailable,
)
from neuroedge.services.llm.offers import Offer, Preferences, Price
from tests.services.llm.gateway_parts import KEY, answer, ask, gateway_over, listen, offer, text
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio

FAULTS = {
    "429": (Reply(status=429), Overloaded),
    "500": (Reply(status=500), ProviderFailed),
    "401": (Reply(status=401), ProviderFailed),
    "400": (Reply(status=400), ProviderRefused),
    "cut before the first byte": (Reply(cut=True), ProviderFailed),
    "cut before the first token": (Reply(cut_after=0), ProviderFailed),
    "stall before the first token": (Reply(stall_after=0), ProviderFailed),
    "no JSON": (Reply(malformed_after=0), ProviderFailed),
    "an error event": (Reply(error_after=0), ProviderFailed),
    "an end without a reason": (Reply(end_after=0), ProviderFailed),
    "a prompt that is too long": (
        Reply(
            status=400, error="This model's maximum context length is 8 tokens", error_code="context_length_exceeded"
        ),
        ContextTooLong,
    ),
}
BREAKS = {
    "cut": Reply(cut_after=2),
    "stall": Reply(stall_after=2),
    "no JSON": Reply(malformed_after=2),
    "an error event": Reply(error_after=2),
    "an end without a reason": Reply(end_after=2),
}


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_answer_says_who_gives_it_and_what_the_ledger_keeps(upstream: Upstream, wire: Any) -> None:
    """The first piece carries the model, the last the provider's own count, which the ledger has too."""
    upstream.script("a", Reply(text="red green blue", cached_tokens=1))
    async with gateway_over(offer(upstream, "a", wire=wire)) as parts:
        deltas = await answer(parts.llm)
        await parts.gateway.close()
        assert text(deltas) == "red green blue"
        assert [delta.model for delta in deltas] == ["up/a", None, None, None]
        assert (deltas[-1].finish_reason, deltas[-1].prompt_tokens, deltas[-1].completion_tokens) == ("stop", 3, 3)
        ((call, spent),) = parts.ledger.rows()
        assert (spent.outcome, spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens) == ("ok", 3, 3, 1)
        assert (call.org_id, call.request_id, call.offer.id) == (parts.principal.org_id, "request-1", "up/a")
        assert not spent.estimated
        assert spent.first_token_s is not None
        assert parts.metric("llm_calls_total", provider="up", model="a", outcome="ok") == 1
        assert parts.metric("llm_tokens_total", kind="completion") == 3
        assert parts.metric("llm_first_token_seconds_count", provider="up", model="a") == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_before_the_first_piece_another_model_answers(upstream: Upstream, wire: Any, fault: str) -> None:
    """Whatever goes wrong, the caller only sees the other model; both attempts are in the ledger."""
    reply, error = FAULTS[fault]
    upstream.script("bad", reply)
    upstream.script("good", Reply(text="well"))
    bad = offer(upstream, "bad", wire=wire, first_token_s=0.3 if "stall" in fault else 30.0)
    async with gateway_over(bad, offer(upstream, "good", provider="other")) as parts:
        deltas = await answer(parts.llm)
        assert text(deltas) == "well"
        assert deltas[0].model == "other/good"
        await parts.gateway.close()
        assert {model for model, outcome in parts.ledger.outcomes() if outcome == "failed"} == {"bad"}
        assert parts.ledger.outcomes()[-1] == ("good", "ok")
        labels = {"from": "up/bad", "to": "other/good", "reason": error.code}
        assert parts.metric("llm_fallbacks_total", **labels) == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_caller_that_wants_no_other_model_gets_the_error(upstream: Upstream, wire: Any, fault: str) -> None:
    """With `fallback` off nobody else is asked."""
    reply, error = FAULTS[fault]
    upstream.script("bad", reply)
    bad = offer(upstream, "bad", wire=wire, first_token_s=0.3 if "stall" in fault else 30.0)
    async with gateway_over(bad, offer(upstream, "good", provider="other")) as parts:
        with pytest.raises(error):
            await answer(parts.llm, fallback=False)
        assert upstream.requests("good") == []
        await parts.gateway.close()
        assert set(parts.ledger.outcomes()) == {("bad", "failed")}


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_after_the_first_piece_the_error_is_told(upstream: Upstream, wire: Any, fault: str) -> None:
    """What was heard cannot be taken back, so nobody else goes on with it; what came is in the ledger."""
    upstream.script("bad", BREAKS[fault])
    bad = offer(upstream, "bad", wire=wire, idle_s=1.0 if "stall" in fault else 30.0)
    async with gateway_over(bad, offer(upstream, "good", provider="other")) as parts:
        heard: list[ChatDelta] = []
        with pytest.raises(ProviderBroke):
            await listen(parts.llm, heard)
        assert text(heard) == "Hello from "
        assert upstream.requests("good") == []
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.outcome, spent.error, spent.estimated) == ("failed", "provider_broke", True)
        assert spent.completion_tokens == upstream.billed("bad")[1] == 2
        assert spent.prompt_tokens >= upstream.billed("bad")[0]


async def test_a_hiccup_is_mended_by_the_same_provider(upstream: Upstream) -> None:
    """5xx, 429 and lost connections are tried again, each attempt with a row of its own."""
    upstream.script("a", Reply(status=503), Reply(cut=True), Reply(text="at last"))
    async with gateway_over(offer(upstream, "a"), offer(upstream, "b", provider="other")) as parts:
        assert text(await answer(parts.llm)) == "at last"
        await parts.gateway.close()
        assert parts.ledger.outcomes() == [("a", "failed"), ("a", "failed"), ("a", "ok")]
        assert [spent.prompt_tokens for _, spent in parts.ledger.rows()] == [0, 0, 3]


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        (Reply(status=500), 3),
        (Reply(status=429), 3),
        (Reply(status=429, retry_after="60"), 1),
        (Reply(status=401), 1),
        (Reply(status=400), 1),
    ],
)
async def test_the_same_provider_is_not_asked_for_ever(upstream: Upstream, reply: Reply, asked: int) -> None:
    """A bound on attempts; none where waiting is asked for too long or the answer will be the same."""
    upstream.script("a", reply)
    async with gateway_over(offer(upstream, "a")) as parts:
        with pytest.raises((Unavailable, Overloaded, ProviderRefused)) as caught:
            await answer(parts.llm)
        assert len(upstream.requests()) == asked
        if reply.retry_after:
            assert getattr(caught.value, "retry_after_s", None) == 60


async def test_local_only_opens_no_connection_elsewhere(upstream: Upstream, elsewhere: Upstream) -> None:
    """Not even when the private model fails, and not when the caller names the other one."""
    own = offer(upstream, "own", provider="ours", private=True)
    async with gateway_over(offer(elsewhere, "big"), own) as parts:
        assert (await answer(parts.llm, local_only=True))[0].model == "ours/own"
        upstream.script("own", Reply(status=500))
        with pytest.raises(Unavailable):
            await answer(parts.llm, local_only=True)
        with pytest.raises(NotFound):
            await answer(parts.llm, local_only=True, model="up/big")
        parts.offers.settled = Preferences(local_only=True)
        with pytest.raises(Unavailable):
            await answer(parts.llm)
        assert elsewhere.asked == []


async def test_a_private_model_that_was_named_is_stood_in_for_by_private_ones_only(
    upstream: Upstream, elsewhere: Upstream
) -> None:
    """Who names a model of their own does not want the question to go elsewhere."""
    upstream.script("own", Reply(status=500))
    own = [offer(upstream, name, provider="ours", private=True) for name in ("own", "spare")]
    async with gateway_over(offer(elsewhere, "big"), *own) as parts:
        assert (await answer(parts.llm, model="ours/own"))[0].model == "ours/spare"
        assert elsewhere.asked == []


async def test_leaving_in_the_middle_ends_the_generation(upstream: Upstream) -> None:
    """The provider sees the connection close at once, and the ledger has what was heard."""
    upstream.script("a", Reply(text="one two three four", stall_after=2))
    async with gateway_over(offer(upstream, "a")) as parts:
        async with aclosing(parts.llm.stream(ask())) as deltas:
            assert (await anext(deltas)).text == "one "
            assert (await anext(deltas)).text == "two "
        assert await asyncio.to_thread(upstream.asked[0].wait) == "left"
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.outcome, spent.completion_tokens, spent.estimated) == ("cancelled", 2, True)
        assert spent.prompt_tokens >= 3
        assert parts.metric("llm_calls_total", provider="up", model="a", outcome="cancelled") == 1


@pytest.mark.parametrize("pieces", [0, 2])
async def test_a_cancelled_task_ends_the_generation(upstream: Upstream, pieces: int) -> None:
    """Before the first piece and after it, under a scope that cancels again at every step."""
    upstream.script("a", Reply(text="one two three four", stall_after=pieces))
    async with gateway_over(offer(upstream, "a")) as parts:
        heard: list[ChatDelta] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, parts.llm, heard)
            await asyncio.to_thread(upstream.wait_for, "a")
            with anyio.fail_after(60):
                while len(heard) < pieces:  # noqa: ASYNC110 - a list tells nobody
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert await asyncio.to_thread(upstream.asked[0].wait) == "left"
        await parts.gateway.close()
        assert parts.ledger.outcomes() == [("a", "cancelled")]


async def test_a_slow_provider_does_not_hold_up_another(upstream: Upstream) -> None:
    """Places are a provider's own; one that has none free is passed over after a while."""
    upstream.script("slow", Reply(stall_after=0))
    slow = offer(upstream, "slow", provider="slow", concurrency=1)
    async with gateway_over(slow, offer(upstream, "fast", provider="fast")) as parts:
        waiting = asyncio.create_task(answer(parts.llm, model="slow/slow", fallback=False))
        await asyncio.to_thread(upstream.wait_for, "slow")
        assert (await answer(parts.llm, model="fast/fast"))[0].model == "fast/fast"
        with scope.call_scope(timeout_s=0.1), pytest.raises(Overloaded):
            await answer(parts.llm, model="slow/slow", fallback=False)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(upstream.requests("slow")) == 1


async def test_no_more_calls_at_a_time_than_a_provider_takes(upstream: Upstream) -> None:
    """The others wait for a place and are answered then."""
    upstream.script("a", Reply(pause_s=0.01))
    async with gateway_over(offer(upstream, "a", concurrency=2)) as parts:
        answers = await asyncio.gather(*(answer(parts.llm) for _ in range(6)))
        assert [text(deltas) for deltas in answers] == ["Hello from the upstream."] * 6
        assert upstream.most_at_once == 2


async def test_a_provider_that_keeps_failing_is_left_alone(upstream: Upstream) -> None:
    """Its circuit opens; another organisation's provider of the same name is not concerned."""
    upstream.script("a", Reply(status=500))
    async with gateway_over(offer(upstream, "a")) as parts:
        for _ in range(2):
            with pytest.raises((ProviderFailed, CircuitOpen)):
                await answer(parts.llm)
        asked = len(upstream.asked)
        with pytest.raises(CircuitOpen):
            await answer(parts.llm)
        assert len(upstream.asked) == asked == 5
        assert len(parts.ledger.begun) == 5
        upstream.script("a", Reply(text="fine"))
        parts.offers.given = [offer(upstream, "a", api_key="sk-another-organisation")]
        assert text(await answer(parts.llm)) == "fine"


async def test_breaking_off_again_and_again_opens_the_circuit_too(upstream: Upstream) -> None:
    """A provider that begins well but never ends is no better than one that does not begin."""
    upstream.script("a", Reply(end_after=1))
    async with gateway_over(offer(upstream, "a")) as parts:
        for _ in range(5):
            # A success of the first piece must not hide the failure of the rest.
            with pytest.raises(ProviderBroke):
                await answer(parts.llm)
        with pytest.raises(CircuitOpen):
            await answer(parts.llm)


async def test_what_the_budget_forbids_is_not_asked_anywhere(upstream: Upstream) -> None:
    """A refusal of the ledger is the caller's answer."""
    async with gateway_over(offer(upstream, "a"), offer(upstream, "b", provider="other")) as parts:
        parts.ledger.refusal = BudgetExceeded("spent")
        with pytest.raises(BudgetExceeded):
            await answer(parts.llm)
        assert upstream.asked == []


async def test_without_a_ledger_nobody_is_asked(upstream: Upstream) -> None:
    """A call that could not be written down is not made, and no provider is blamed for it."""
    async with gateway_over(offer(upstream, "a")) as parts:
        parts.ledger.refusal = Unavailable("the database is away")
        for _ in range(6):
            with pytest.raises(Unavailable, match="database"):
                await answer(parts.llm)
        assert upstream.asked == []
        parts.ledger.refusal = None
        assert await answer(parts.llm)


async def test_the_callers_deadline_ends_everything(upstream: Upstream) -> None:
    """No other model is tried when there is no time left for it."""
    upstream.script("a", Reply(stall_after=0))
    async with gateway_over(offer(upstream, "a"), offer(upstream, "b", provider="other")) as parts:
        started = time.monotonic()
        with scope.call_scope(timeout_s=1.0), pytest.raises(DeadlineExceeded):
            await answer(parts.llm)
        assert time.monotonic() - started < 25, "less than the provider's own limit"
        assert upstream.requests("b") == []
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.outcome, spent.error) == ("cancelled", "deadline_exceeded")


@pytest.mark.parametrize("told", [(-5, -7), (3, 10**9), (10**9, 4), (0, 0)])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_count_that_cannot_be_true_is_not_believed(
    upstream: Upstream, wire: Any, told: tuple[int, int]
) -> None:
    """The ledger and the caller get an estimate near the truth instead, and the lie is counted."""
    upstream.script("liar", Reply(text="word " * 60, usage=told))
    async with gateway_over(offer(upstream, "liar", wire=wire)) as parts:
        last = (await answer(parts.llm, ask("a rather long question " * 20)))[-1]
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert spent.estimated
        assert (last.prompt_tokens, last.completion_tokens) == (spent.prompt_tokens, spent.completion_tokens)
        assert spent.completion_tokens == 60 if told[1] != 4 else True
        assert 80 <= spent.prompt_tokens <= 400 if told[0] != 3 else True
        doubted = sum(parts.metric("llm_usage_doubted_total", provider="up", kind=k) for k in ("prompt", "completion"))
        assert doubted >= 1


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_count_that_is_missing_is_estimated(upstream: Upstream, wire: Any) -> None:
    """The answer is whole; only its count is our own."""
    upstream.script("a", Reply(text="one two three four five", usage="missing"))
    async with gateway_over(offer(upstream, "a", wire=wire)) as parts:
        last = (await answer(parts.llm))[-1]
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.outcome, spent.completion_tokens, last.completion_tokens) == ("ok", 5, 5)
        assert spent.estimated
        assert parts.metric("llm_usage_doubted_total", provider="up", kind="completion") == 0


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_model_that_thinks_is_waited_for(upstream: Upstream, wire: Any) -> None:
    """Its thoughts are signs of life, not shown, and counted even where nobody tells how many they were."""
    upstream.script("a", Reply(text="42 ", thoughts=10, pause_s=0.45, stall_after=1, usage="missing"))
    async with gateway_over(offer(upstream, "a", wire=wire, first_token_s=4.0, idle_s=60.0)) as parts:
        async with aclosing(parts.llm.stream(ask())) as deltas:
            assert (await anext(deltas)).text == "42 "
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert spent.completion_tokens == upstream.billed()[1] == 11


async def test_a_server_that_counts_as_it_goes_is_believed_for_aborted_answers(upstream: Upstream) -> None:
    """vLLM's usage with every chunk makes even a cancelled call exact."""
    upstream.script("a", Reply(text="one two three four", usage="each", stall_after=3))
    async with gateway_over(offer(upstream, "a")) as parts:
        async with aclosing(parts.llm.stream(ask())) as deltas:
            heard = [await anext(deltas) for _ in range(3)]
        assert all(delta.prompt_tokens is None for delta in heard)
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (3, 3, False)
        assert upstream.billed() == (3, 3)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_keys_are_in_no_line_and_no_error(
    upstream: Upstream, wire: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not when the provider repeats the key, not in tracebacks, not at the lowest log level; nor are the words."""
    upstream.keys = {"sk-another"}
    secret = "the-words-of-the-caller"
    with caplog.at_level(logging.DEBUG):
        async with gateway_over(offer(upstream, "a", wire=wire)) as parts:
            with pytest.raises(ProviderFailed) as caught:
                await answer(parts.llm, ask(secret))
            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.hint)
            upstream.keys = None
            await answer(parts.llm, ask(secret))
            upstream.script("a", Reply(status=400, error=f"bad key {KEY} given"))
            with pytest.raises(ProviderRefused) as caught:
                await answer(parts.llm, ask(secret))
            shown += "".join(traceback.format_exception(caught.value)) + repr(parts.offers.given)
    out, err = capfd.readouterr()
    lines = caplog.text + out + err
    assert KEY not in shown + lines
    assert secret not in lines
    assert all(
        asked.headers.get("authorization", asked.headers.get("x-api-key", "")).endswith(KEY) for asked in upstream.asked
    )


async def test_the_model_chosen_is_asked_through_the_gateway(upstream: Upstream) -> None:
    """It tells its context before anything is connected, and its answers are in the ledger."""
    async with gateway_over(offer(upstream, "a", context_tokens=1234), offer(upstream, "b")) as parts:
        model = await parts.llm.chosen(Policy(model="b"))
        assert model.model_id == "up/b"
        assert (await parts.llm.chosen()).context_tokens == 1234
        assert await model.count_tokens("Hello there") >= 2
        assert upstream.asked == []
        assert text([d async for d in model.stream(ask())]) == "Hello from the upstream."
        await parts.gateway.close()
        assert parts.ledger.outcomes() == [("b", "ok")]


async def test_an_unknown_model_is_an_error_with_what_there_is(upstream: Upstream) -> None:
    """Nobody is asked instead."""
    async with gateway_over(offer(upstream, "a")) as parts:
        with pytest.raises(NotFound) as caught:
            await answer(parts.llm, model="gpt-9")
        assert "up/a" in str(caught.value.hint)
        assert upstream.asked == []


async def test_the_cheapest_model_answers_where_cost_counts(upstream: Upstream) -> None:
    """By the price of this prompt and answer."""
    dear = Price(
        prompt_usd_per_million=Decimal(9), completion_usd_per_million=Decimal(9), source="test", as_of="2026-01-01"
    )
    cheap = Price(
        prompt_usd_per_million=Decimal(1), completion_usd_per_million=Decimal(2), source="test", as_of="2026-01-01"
    )
    async with gateway_over(offer(upstream, "dear", price=dear), offer(upstream, "cheap", price=cheap)) as parts:
        assert (await answer(parts.llm, prefer="cost"))[0].model == "up/cheap"
        assert (await answer(parts.llm))[0].model == "up/dear"


async def test_the_quickest_model_answers_where_latency_counts(upstream: Upstream) -> None:
    """By what was measured, once both were."""
    upstream.script("slow", Reply(pause_s=0.1))
    async with gateway_over(offer(upstream, "slow"), offer(upstream, "fast")) as parts:
        for model in ("slow", "fast"):
            await answer(parts.llm, model=model)
        await parts.gateway.close()
        waits = {call.offer.id: spent.first_token_s or 0.0 for call, spent in parts.ledger.rows()}
        quickest = min(waits, key=lambda model: waits[model])  # "up/fast", unless the machine stood still
        assert (await answer(parts.llm, prefer="latency"))[0].model == quickest


async def test_no_more_tokens_are_asked_for_than_a_model_gives(upstream: Upstream) -> None:
    """Else the provider would refuse."""
    async with gateway_over(offer(upstream, "a", max_output_tokens=16)) as parts:
        await answer(parts.llm, ask(max_tokens=4000))
        assert upstream.asked[0].body["max_tokens"] == 16


class FakeLocal:
    """A model of this process; `fails` is raised before the first piece."""

    model_id, context_tokens = "small", 2048

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails

    async def stream(self, request: ChatRequest) -> Any:
        """Two pieces."""
        if self.fails is not None:
            raise self.fails
        yield ChatDelta(text="local ")
        yield ChatDelta(text="answer", finish_reason="stop", prompt_tokens=5, completion_tokens=2)

    async def count_tokens(self, text: str) -> int:
        """A token a word."""
        return len(text.split())


LOCAL_OFFER = Offer(provider="local", wire="local", model="small", private=True, context_tokens=2048)


async def test_the_local_model_goes_through_the_same_gate(upstream: Upstream) -> None:
    """Leased from the pool, in the ledger like others, and the first to be named by its bare id."""
    async with gateway_over(LOCAL_OFFER, models={"chat": FakeLocal()}) as parts:
        model = await parts.llm.chosen()
        assert (model.model_id, model.context_tokens) == ("small", 2048)
        deltas = await answer(parts.llm, model="small")
        assert (text(deltas), deltas[0].model) == ("local answer", "local/small")
        await parts.gateway.close()
        ((_, spent),) = parts.ledger.rows()
        assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (5, 2, False)


async def test_a_local_model_that_does_not_load_is_stood_in_for(upstream: Upstream) -> None:
    """Where nothing was named; a request at fault is nobody else's business."""
    local = FakeLocal(Unavailable("no memory"))
    async with gateway_over(LOCAL_OFFER, offer(upstream, "a"), models={"chat": local}) as parts:
        assert (await answer(parts.llm))[0].model == "up/a"
        local.fails = InvalidInput("a tool without a name")
        with pytest.raises(InvalidInput, match="without a name"):
            await answer(parts.llm)
        assert len(upstream.asked) == 1


async def test_a_busy_local_model_is_not_helped_by_another_on_the_same_processor(upstream: Upstream) -> None:
    """Others elsewhere are asked; another one here only where the organisation has settled it."""
    other = replace(LOCAL_OFFER, model="other")
    local = FakeLocal(Overloaded("the model is busy"))
    async with gateway_over(LOCAL_OFFER, other, models={"chat": local}) as parts:
        with pytest.raises(Overloaded, match="busy"):
            await answer(parts.llm)
        await parts.gateway.close()
        assert parts.ledger.outcomes() == [("small", "failed")]
        parts.offers.settled = Preferences(fallback=(other.id,))
        with pytest.raises(Overloaded, match="busy"):
            await answer(parts.llm, model="small")
        await parts.gateway.close()
        assert [model for model, _ in parts.ledger.outcomes()] == ["small", "small", "other"]
    async with gateway_over(LOCAL_OFFER, other, offer(upstream, "a"), models={"chat": local}) as parts:
        assert (await answer(parts.llm))[0].model == "up/a"
        await parts.gateway.close()
        assert parts.ledger.outcomes() == [("small", "failed"), ("a", "ok")]
