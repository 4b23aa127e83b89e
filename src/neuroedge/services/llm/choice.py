"""In which order models are asked: pure, from what there is, what is wanted and what was measured."""

from collections.abc import Callable, Sequence

from neuroedge.contract.chat import ChatRequest, Policy
from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.services.llm.offers import Offer, Preferences

MOST_NAMED = 20
"""Models an error lists."""
Latency = Callable[[Offer], float | None]
"""Seconds to the first token as measured lately; None: not measured."""


def ordered(
    offers: Sequence[Offer],
    policy: Policy,
    preferences: Preferences,
    *,
    request: ChatRequest | None,
    prompt_tokens: int,
    latency: Latency,
) -> list[Offer]:
    """The models that may answer, the best first; never empty.

    The named model comes first, then what the policy prefers; without a name or a preference, the organisation's
    first choice. Then come the organisation's fallbacks, then the others by the policy, or in the order of `offers`.
    Models whose context is too small for the prompt's estimate come last: the estimate may be too high. When the
    named model is private, only private ones may stand in for it, since its caller may have named it for that.
    Raises NotFound for an unknown model, InvalidInput when no model can do what the request needs.
    """
    local_only = policy.local_only or preferences.local_only
    allowed = [offer for offer in offers if offer.private or not local_only]
    named = _named(allowed, policy.model, local_only=local_only)
    if named and all(offer.private for offer in named):
        allowed = [offer for offer in allowed if offer.private]
    able = [offer for offer in allowed if _can(offer, request)]
    if named and not any(offer in able for offer in named):
        raise InvalidInput(f"{named[0].id} takes no {_needs(request)}", hint="choose another model")
    if not able:
        raise _none(offers, allowed, request)
    settled = _settled(policy, preferences)
    completion_tokens = request.max_tokens if request else 0

    def rank(offer: Offer) -> tuple[bool, bool, int, int, float]:
        return (
            named != [] and offer not in named,
            prompt_tokens + completion_tokens > offer.context_tokens,
            settled.index(offer.id) if offer.id in settled else len(settled),
            _fitness(offer, policy.query_type),
            _preference(offer, policy, prompt_tokens, completion_tokens, latency),
        )

    return sorted(able, key=rank)


def _settled(policy: Policy, preferences: Preferences) -> list[str]:
    """Ids that the organisation wants before others; a caller's own preference counts more."""
    if policy.prefer is not None:
        return []
    first = preferences.by_query_type.get(policy.query_type or "", preferences.default_model)
    return [*([first] if first else []), *preferences.fallback]


def _named(offers: Sequence[Offer], name: str | None, *, local_only: bool) -> list[Offer]:
    """Every offer of the model that the policy names."""
    if name is None:
        return []
    exact = [offer for offer in offers if offer.id == name]
    named = exact or [offer for offer in offers if offer.model == name]
    if not named:
        known = sorted(offer.id for offer in offers)
        more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
        raise NotFound(
            f"there is no {'private ' if local_only else ''}model {name!r}",
            hint=f"there is {', '.join(known[:MOST_NAMED])}{more}" if known else "none is set up",
        )
    return named


def _can(offer: Offer, request: ChatRequest | None) -> bool:
    if request is None:
        return True
    if request.tools and not offer.tools:
        return False
    return offer.images or not any(message.images for message in request.messages)


def _needs(request: ChatRequest | None) -> str:
    images = request is not None and any(message.images for message in request.messages)
    return " and ".join(["tools"] * bool(request and request.tools) + ["images"] * images)


def _none(offers: Sequence[Offer], allowed: Sequence[Offer], request: ChatRequest | None) -> NotFound | InvalidInput:
    if allowed:
        return InvalidInput(f"no model here takes {_needs(request)}", hint="set up a model that does")
    if offers:
        return NotFound("there is no private model, and nothing may leave this machine", hint="install a local model")
    return NotFound("no language model is set up", hint="install a local model or set up a provider")


def _fitness(offer: Offer, query_type: str | None) -> int:
    """Those chosen for this type of query first, those chosen for others last."""
    if query_type is not None and query_type in offer.query_types:
        return 0
    return 2 if offer.query_types else 1


def _preference(offer: Offer, policy: Policy, prompt_tokens: int, completion_tokens: int, latency: Latency) -> float:
    match policy.prefer:
        case "cost":
            price = offer.price
            return float(price.of(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)) if price else 0.0
        case "latency":
            # One that was never measured is tried, which measures it.
            return latency(offer) or 0.0
        case "quality":
            return -float(offer.quality)
    return 0.0
