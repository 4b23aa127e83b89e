"""In which order models are asked."""

from decimal import Decimal
from typing import Any

import pytest

from neuroedge.contract.chat import ChatMessage, ChatRequest, Image, Policy, Tool
from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.services.llm.choice import MOST_NAMED, ordered
from neuroedge.services.llm.offers import Offer, Preferences, Price

TALK = ChatRequest([ChatMessage(role="user", content="hi")], max_tokens=100)
PICTURE = ChatRequest(
    [ChatMessage(role="user", content="hi", images=[Image(media_type="image/png", data=b"x")])], max_tokens=100
)
TOOLS = ChatRequest([ChatMessage(role="user", content="hi")], max_tokens=100, tools=[Tool(name="f")])


def offer(name: str, **change: Any) -> Offer:
    """provider/model."""
    provider, model = name.split("/", 1)
    return Offer(provider=provider, wire="openai", model=model, **change)


def price(prompt: str, completion: str) -> Price:
    """US dollars per million tokens."""
    return Price(
        prompt_usd_per_million=Decimal(prompt),
        completion_usd_per_million=Decimal(completion),
        source="test",
        as_of="2026-01-01",
    )


def order(
    offers: list[Offer],
    policy: Policy = Policy(),
    preferences: Preferences = Preferences(),
    *,
    request: ChatRequest | None = TALK,
    prompt_tokens: int = 10,
    latency: dict[str, float] | None = None,
) -> list[str]:
    """Ids, the best first."""
    known = latency or {}
    best = ordered(
        offers,
        policy,
        preferences,
        request=request,
        prompt_tokens=prompt_tokens,
        latency=lambda offer: known.get(offer.id),
    )
    return [offer.id for offer in best]


A, B, C = offer("x/a"), offer("y/b"), offer("z/c")


def test_without_any_wish_the_given_order_holds() -> None:
    """The organisation's."""
    assert order([B, A, C]) == ["y/b", "x/a", "z/c"]


@pytest.mark.parametrize("name", ["y/b", "b"])
def test_the_named_model_comes_first(name: str) -> None:
    """In full or by its bare id; the others stand in for it."""
    assert order([A, B, C], Policy(model=name)) == ["y/b", "x/a", "z/c"]


def test_a_bare_id_means_the_model_of_every_provider_that_has_it() -> None:
    """In their order; a model's id may hold slashes itself."""
    both = [offer("x/meta/llama"), offer("y/other"), offer("y/meta/llama")]
    assert order(both, Policy(model="meta/llama")) == ["x/meta/llama", "y/meta/llama", "y/other"]


def test_a_full_name_wins_over_a_bare_id() -> None:
    """A model called `x/a` at another provider is not meant."""
    assert order([offer("y/x/a"), A], Policy(model="x/a")) == ["x/a", "y/x/a"]


def test_an_unknown_model_names_those_there_are() -> None:
    """Not all of a thousand."""
    with pytest.raises(NotFound) as caught:
        order([offer(f"x/{n}") for n in range(100)], Policy(model="nope"))
    assert str(caught.value.hint).count("x/") == MOST_NAMED
    assert "80 more" in str(caught.value.hint)


def test_local_only_leaves_private_models() -> None:
    """Wished by the caller or settled by the organisation, whose setting no caller can loosen."""
    own = offer("own/p", private=True)
    assert order([A, own], Policy(local_only=True)) == ["own/p"]
    assert order([A, own], Policy(local_only=False), Preferences(local_only=True)) == ["own/p"]
    with pytest.raises(NotFound):
        order([A, own], Policy(model="x/a"), Preferences(local_only=True))
    with pytest.raises(NotFound):
        order([A], Policy(local_only=True))


def test_for_a_private_model_only_private_ones_stand_in() -> None:
    """Who names one does not expect to be answered from elsewhere."""
    own, spare = offer("own/p", private=True), offer("own/q", private=True)
    assert order([A, own, spare], Policy(model="own/p")) == ["own/p", "own/q"]
    assert order([own, A], Policy(model="x/a")) == ["x/a", "own/p"]


def test_nothing_set_up_is_told() -> None:
    """With what to do."""
    with pytest.raises(NotFound) as caught:
        order([])
    assert caught.value.hint


def test_what_a_request_needs_decides_who_may_answer() -> None:
    """Tools and pictures; a named model that cannot is an error, not replaced in silence."""
    seeing, plain = offer("x/sees", images=True), offer("x/plain", tools=False)
    assert order([plain, seeing], request=PICTURE) == ["x/sees"]
    assert order([plain, seeing], request=TOOLS) == ["x/sees"]
    with pytest.raises(InvalidInput, match="images"):
        order([plain, seeing], Policy(model="plain"), request=PICTURE)
    with pytest.raises(InvalidInput, match="tools"):
        order([plain], request=TOOLS)


def test_models_too_small_for_the_prompt_come_last() -> None:
    """They are tried all the same, since the estimate may be too high."""
    small, large = offer("x/small", context_tokens=1000), offer("x/large", context_tokens=9000)
    assert order([small, large], prompt_tokens=950) == ["x/large", "x/small"]
    assert order([small, large], prompt_tokens=850) == ["x/small", "x/large"]


def test_models_chosen_for_a_type_of_query_come_first_for_it() -> None:
    """And last for others."""
    code = offer("x/code", query_types=("code",))
    assert order([A, code], Policy(query_type="code")) == ["x/code", "x/a"]
    assert order([code, A], Policy(query_type="chat")) == ["x/a", "x/code"]
    assert order([code, A]) == ["x/a", "x/code"]


def test_cost_is_that_of_this_prompt_and_answer() -> None:
    """A long prompt and a long answer have different cheapest models; none known costs nothing."""
    reader, writer = offer("x/reader", price=price("1", "10")), offer("x/writer", price=price("2", "1"))
    cost = Policy(prefer="cost")
    assert order([writer, reader], cost, prompt_tokens=5000) == ["x/reader", "x/writer"]
    assert order([reader, writer], cost, prompt_tokens=10) == ["x/writer", "x/reader"]
    assert order([reader, A], cost)[0] == "x/a"


def test_latency_is_what_was_measured() -> None:
    """One never measured is tried, so that it is."""
    fast = Policy(prefer="latency")
    assert order([A, B, C], fast, latency={"x/a": 0.5, "y/b": 0.1, "z/c": 0.3}) == ["y/b", "z/c", "x/a"]
    assert order([A, B], fast, latency={"x/a": 0.1})[0] == "y/b"


def test_quality_is_what_was_set() -> None:
    """Higher is better; equals stay as given."""
    good, best = offer("x/good", quality=1), offer("x/best", quality=2)
    assert order([A, good, B, best], Policy(prefer="quality")) == ["x/best", "x/good", "x/a", "y/b"]


def test_what_the_organisation_settled_holds_where_the_caller_has_no_wish() -> None:
    """Its default, its choice for a type of query, then its fallbacks, then the others."""
    settled = Preferences(default_model="y/b", fallback=("z/c",), by_query_type={"code": "x/a"})
    others = [offer("w/d"), A, B, C]
    assert order(others, Policy(), settled) == ["y/b", "z/c", "w/d", "x/a"]
    assert order(others, Policy(query_type="code"), settled) == ["x/a", "z/c", "w/d", "y/b"]
    assert order(others, Policy(model="w/d"), settled) == ["w/d", "y/b", "z/c", "x/a"]
    cheap = [offer("x/a", price=price("1", "1")), offer("y/b", price=price("9", "9"))]
    assert order(cheap, Policy(prefer="cost"), settled)[0] == "x/a"


def test_a_settled_model_that_is_gone_is_no_error() -> None:
    """A provider may be removed after it was chosen."""
    assert order([A], Policy(), Preferences(default_model="gone/model")) == ["x/a"]
