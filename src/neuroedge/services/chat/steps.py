"""The steps of the assistant's workflow: each takes the state and gives what changes of it."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from neuroedge.contract.chat import ChatRequest
from neuroedge.contract.engine import Usage as Spent
from neuroedge.contract.errors import ContentBlocked
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.engines.knowledge.search import Hit
from neuroedge.engines.language.chat import attribution_over, claims_in, nearest_lines, supported, unrelated
from neuroedge.kit.grounding import sentences
from neuroedge.kit.prompts import CLARIFY, CONVERSE, INTENT
from neuroedge.services.artifact_drafts import Order
from neuroedge.services.chat import agent as agents
from neuroedge.services.chat import retrieval
from neuroedge.services.chat.citations import Gate, Numbering, by_sentence, citation, composed, marked, without_markers
from neuroedge.services.chat.intent import INTENTS, artifact_type
from neuroedge.services.chat.packing import Packed, conversation, packed
from neuroedge.services.chat.state import Event, Intent, State, usage_of
from neuroedge.services.chat.summary import summarised
from neuroedge.services.chat.turn import Turn

MAX_MESSAGE_CHARS: Final = 200_000
_INTENT_TOKENS: Final = 24
_NOT_SUPPORTED: Final = "I could not find support for this in what I looked at:"


async def embed(state: State, turn: Turn) -> State:
    """Check the question, summarise what does not fit any more, and embed what is searched for."""
    await turn.stage("embed")
    question, trace = await turn.judged(state["question"], "input")
    spent = Spent()
    newest, summary, told = await summarised(
        state["turns"],
        state.get("summary"),
        ctx=turn.ctx,
        policy=turn.options.policy("summary"),
        usage=spent,
    )
    if told is not None:
        trace += await turn.trace("summary", **told)
    # A question that follows another one is searched with it: "and where does he work?"
    before = [without_markers(t["content"]) for t in newest if t["role"] == "user"][-1:]
    query = "\n".join([*before, question])
    model = await turn.ctx.memories.embedding_model()
    async with turn.ctx.models.lease(TEXT_EMBEDDING.named(model)) as encoder:
        vector = (await encoder.encode([question])).vectors[0]
    return {
        "question": question,
        "turns": newest,
        "summary": summary,
        "query": query,
        "vector": [round(float(v), 6) for v in vector],
        "usage": usage_of(spent),
        "trace": trace,
    }


async def search(state: State, turn: Turn) -> State:
    """Find what may be cited; what the safety policy does not let through is not shown to the model."""
    await turn.stage("search")
    hits: list[Hit] = []
    left_out = 0
    if turn.options.include_context:
        hits = await retrieval.retrieved(state["query"], turn.options, turn.ctx)
    if state["attachments"]:
        near, left_out = await retrieval.attached(
            state["attachments"], state["question"], top_k=turn.options.top_k, ctx=turn.ctx
        )
        hits = [*near, *hits]
    kept, trace = list[Hit](), list[dict[str, Any]]()
    for hit in hits:
        try:
            text, told = await turn.judged(hit.content, "context")
        except ContentBlocked:
            trace += await turn.trace("safety", action="block", of="context", excerpt=str(hit.id))
            continue
        trace += told
        kept.append(hit if text == hit.content else hit.model_copy(update={"content": text}))
    trace += await turn.trace("search", found=len(kept), attachment_passages_left_out=left_out)
    return {"hits": [hit.model_dump(mode="json") for hit in kept], "trace": trace}


async def intent(state: State, turn: Turn) -> State:
    """What the message asks for: as the caller says, else by labelled examples, else by the model."""
    await turn.stage("intent")
    if turn.options.artifact:
        return {"intent": "artifact", "trace": await turn.trace("intent", intent="artifact", by="options")}
    model = await turn.ctx.memories.embedding_model()
    guess = await turn.examples.guess(state["vector"], ctx=turn.ctx, model=model)
    chosen, by, spent = guess.intent, "examples", Spent()
    if not guess.sure:
        # What was found and fits the question makes it one: no model is asked what can be seen.
        related = not unrelated(_hits(state))
        chosen, by = ("question", "search") if related else (await _asked_intent(state, turn, spent), "model")
    possible = _possible(chosen, state, turn)
    trace = await turn.trace(
        "intent",
        intent=possible,
        by=by if possible == chosen else "what is possible here",
        guess=guess.intent,
        nearness=round(guess.nearness, 3),
        lead=round(guess.lead, 3),
    )
    return {"intent": possible, "usage": usage_of(spent), "trace": trace}


def _possible(chosen: Intent, state: State, turn: Turn) -> Intent:
    """The intent, as far as this turn can follow it."""
    if chosen == "tool" and not turn.options.tools:
        return "question"
    if chosen == "artifact" and turn.artifacts is None:
        return "question"
    # Within a conversation, or about a file, the little that is said can be understood.
    if chosen == "clarify" and (state["turns"] or state["attachments"]):
        return "question"
    return chosen


async def _asked_intent(state: State, turn: Turn, spent: Spent) -> Intent:
    schema = {
        "type": "object",
        "properties": {"intent": {"type": "string", "enum": list(INTENTS)}},
        "required": ["intent"],
    }
    messages = conversation(INTENT, state["question"], state["turns"][-2:], None, None)
    request = ChatRequest(messages, max_tokens=_INTENT_TOKENS, json_schema=schema)
    text = ""
    async with aclosing(turn.ctx.llm.stream(request, policy=turn.options.policy("intent"))) as deltas:
        async for delta in deltas:
            text += delta.text
            spent.count(delta)
    try:
        chosen = json.loads(text)["intent"]
    except (ValueError, TypeError, KeyError):
        return "question"
    return cast(Intent, chosen) if chosen in INTENTS else "question"


async def answer(state: State, turn: Turn) -> State:
    """Answer from the excerpts: sentences are shown as soon as an excerpt supports them."""
    await turn.stage("generate")
    hits, spent, models = _hits(state), Spent(), list[str]()
    if not turn.options.include_context and not hits:
        return await _talk(state, turn, CONVERSE)
    if (reason := unrelated(hits)) and not state["attachments"]:
        return {"claims": [], "reason": reason, "trace": await turn.trace("generate", refused=reason)}
    claims, prompt, reason = await _attempt(state, hits, turn, spent, models)
    trace = await _told(prompt, turn)
    if not claims and len(near := nearest_lines(hits)) < len(hits):
        # A small model overlooks in many excerpts what it finds in a few.
        claims, prompt, reason = await _attempt(state, near, turn, spent, models)
        trace += await _told(prompt, turn)
    return {
        "claims": claims,
        "reason": reason,
        "models": models,
        "usage": usage_of(spent),
        "trace": trace,
    }


async def _attempt(
    state: State, hits: Sequence[Hit], turn: Turn, spent: Spent, models: list[str]
) -> tuple[list[dict[str, Any]], Packed, str | None]:
    policy, options = turn.options.policy("grounded"), turn.options
    prompt = await packed(
        state["question"],
        hits=hits,
        turns=state["turns"],
        summary=state["summary"],
        instructions=state["system_prompt"],
        llm=await turn.ctx.llm.chosen(policy),
        max_tokens=options.max_tokens,
    )
    shown, numbering = prompt.shown, Numbering()
    if not shown:
        return [], prompt, "no excerpt fits the model's context"
    holds_back, claims = await turn.holds_back(), list[dict[str, Any]]()

    async def show(sentence: str, excerpt: int) -> None:
        text, _ = await turn.judged(sentence, "output") if holds_back else (sentence, [])
        n, new = numbering.of(str(shown[excerpt].id))
        if new:
            await turn.tell(Event(name="citation", data=citation(n, shown[excerpt])))
        claims.append({"sentence": text, "hit_id": str(shown[excerpt].id)})
        await turn.token(f"{marked(text, n)} ")

    attribution = await attribution_over(shown, state["question"], turn.ctx)
    gate = Gate(attribution, shown, ctx=turn.ctx, policy=policy, usage=spent, show=show)
    pieces = turn.pieces(prompt.messages, policy=policy, max_tokens=options.max_tokens, spent=spent, models=models)
    async with aclosing(pieces), aclosing(by_sentence(pieces)) as told:
        async for sentence in told:
            if not await gate.take(sentence):
                break
    return claims, prompt, gate.reason


async def _told(prompt: Packed, turn: Turn) -> list[dict[str, Any]]:
    told: dict[str, Any] = {
        "excerpts": len(prompt.shown),
        "excerpts_left_out": prompt.left_out,
        "prompt_tokens": prompt.tokens,
    }
    if prompt.untrusted:
        told["untrusted"] = prompt.untrusted
    return await turn.trace("generate", **told)


async def converse(state: State, turn: Turn) -> State:
    """Small talk, or a question back."""
    await turn.stage("generate")
    return await _talk(state, turn, CLARIFY if state["intent"] == "clarify" else CONVERSE)


async def _talk(state: State, turn: Turn, system: str) -> State:
    """A plain answer, shown by tokens; by judged sentences where the safety policy may keep words back."""
    spent, models, said = Spent(), list[str](), list[str]()
    messages = conversation(system, state["question"], state["turns"], state["summary"], state["system_prompt"])
    pieces = turn.pieces(
        messages,
        policy=turn.options.policy("chat"),
        max_tokens=turn.options.max_tokens,
        spent=spent,
        models=models,
    )
    async with aclosing(pieces):
        if await turn.holds_back():
            async with aclosing(by_sentence(pieces)) as told:
                async for sentence in told:
                    text, _ = await turn.judged(sentence, "output")
                    said.append(f"{text} ")
                    await turn.token(f"{text} ")
        else:
            async for piece in pieces:
                said.append(piece)
                await turn.token(piece)
    return {
        "draft": "".join(said).strip(),
        "reason": None,
        "models": models,
        "usage": usage_of(spent),
    }


async def artifact(state: State, turn: Turn) -> State:
    """Have what was asked for made, from what was found."""
    await turn.stage("generate")
    assert turn.artifacts is not None
    hits, options = _hits(state), turn.options
    type_, language = artifact_type(state["question"], wanted=options.artifact)
    made = await turn.artifacts.make(
        turn.ctx.principal,
        type_=type_,
        format_=language,
        instruction=state["question"],
        sources=[] if unrelated(hits) else [hit.content for hit in hits],
        order=Order(max_tokens=max(options.max_tokens, 16), model=options.model, local_only=options.local_only),
        request_id=turn.ctx.request_id,
    )
    kept = made.artifact
    about = {"id": str(kept.id), "type": kept.type, "title": kept.named.title, "version": kept.version}
    await turn.tell(Event(name="artifact", data=about))
    message = f"I made the {kept.type} \u201c{kept.named.title}\u201d."
    await turn.token(message)
    return {
        "draft": message,
        "artifacts": [about],
        "reason": None,
        "models": list(made.version.models) if made.version else [],
        "trace": await turn.trace("generate", artifact=about["id"], type=kept.type),
    }


async def agent(state: State, turn: Turn) -> State:
    """One step with tools; the workflow comes back here until there is an answer."""
    policy, spent = turn.options.policy("agent"), Spent()
    work = state.get("work")
    if work is None:
        await turn.stage("generate")
        llm = await turn.ctx.llm.chosen(policy)
        system = agents.system(llm)
        work = agents.begun(
            conversation(system, state["question"], state["turns"], state["summary"], state["system_prompt"])
        )
    done = await agents.step(
        work,
        turn.toolbox,
        ctx=turn.ctx,
        policy=policy,
        usage=spent,
        limits=turn.limits,
        max_tokens=turn.options.max_tokens,
    )
    trace = [entry for told in done.trace for entry in await turn.trace("agent", **told)]
    # What the first search found for the whole question is not what the tools find for its parts.
    before = state["hits"] if work["steps"] else []
    hits = list({hit["id"]: hit for hit in [*before, *(h.model_dump(mode="json") for h in done.excerpts)]}.values())
    change: State = {
        "work": done.work,
        "hits": hits,
        "models": [done.model],
        "usage": usage_of(spent),
        "trace": trace,
    }
    if done.work["answer"] is not None:
        change["claims"] = await _attributed(done.work["answer"], state["question"], hits, turn)
        change["reason"] = None if any(claim["hit_id"] for claim in change["claims"]) else "no tool returned support"
    return change


async def _attributed(text: str, question: str, hits: Sequence[dict[str, Any]], turn: Turn) -> list[dict[str, Any]]:
    """The sentences of an agent's answer, with the tool results that support them."""
    told, excerpts = sentences(text), [Hit.model_validate(hit) for hit in hits]
    if not told or not excerpts:
        return [{"sentence": sentence, "hit_id": None} for sentence in told]
    attribution = await attribution_over(excerpts, question, turn.ctx)
    found = {c.sentence: c for c in await claims_in(told, attribution, turn.ctx) if supported(c)}
    return [
        {"sentence": each, "hit_id": str(excerpts[found[each].excerpt].id) if each in found else None} for each in told
    ]


async def validate(state: State, turn: Turn) -> State:
    """Check the citations against what was retrieved, the words against the safety policy, and the form."""
    await turn.stage("validate")
    hits, claims, reason = _hits(state), state.get("claims"), state.get("reason")
    if claims is None:
        message, citations, unknown = state.get("draft", ""), list[dict[str, Any]](), list[dict[str, Any]]()
        answered = bool(message)
        reason = None if answered else "the model said nothing"
    else:
        message, citations, unknown = composed(claims, hits)
        answered = bool(message) and reason is None
    if not message:
        message = _refusal(turn)
        await turn.token(message)
    message, trace = message[:MAX_MESSAGE_CHARS], list[dict[str, Any]]()
    if state["intent"] == "tool" and claims is not None:
        text, trace = await turn.judged(message if answered else f"{_NOT_SUPPORTED} {message}", "output")
        message = text
        for each in citations:
            await turn.tell(Event(name="citation", data=each))
        await turn.token(message)
    elif answered and not await turn.holds_back():
        # Nothing can be kept back any more; what the policy flags is kept as a decision.
        _, trace = await turn.judged(message, "output")
    trace += await turn.trace(
        "validate", answered=answered, citations=len(citations), unknown_citations=len(unknown), reason=reason
    )
    return {
        "message": message,
        "citations": citations,
        "artifacts": state.get("artifacts", []),
        "answered": answered,
        "reason": reason,
        "trace": trace,
    }


def _refusal(turn: Turn) -> str:
    where = "the recording" if turn.options.recording_id else "what is remembered"
    return f"Not in {where}."


def _hits(state: State) -> list[Hit]:
    return [Hit.model_validate(hit) for hit in state.get("hits", [])]
