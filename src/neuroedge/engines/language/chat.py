"""Answers questions from what is remembered, with the speaker and second each sentence rests on, or says it cannot.

Method: retrieval-augmented generation (Lewis et al. 2020) in four steps. *retrieve*: hybrid search; of a recording the
whole conversation, or the hits with their neighbours where it is long. *prompt*: the excerpts, the question last, so
that a second question about the same recording reuses the computed prompt. *generate*: the local LLM, temperature 0.
*validate*: each sentence is attributed to the excerpt that holds its new words (small LLMs do not set markers
reliably), its numbers and names must be there, and the LLM, shown those lines only, must find that they answer the
question (Kamath et al. 2020, selective question answering: rather silent than wrong). What fails is not shown; the
LLM gets a second try with the lines nearest to the question alone.

Default model: see docs/benchmarks.md (benchmarks/grounded_answers.py). Limits: English prompts; a small LLM misses
answers that need two distant lines, and confuses who "I" is when speakers answer each other. Refusing is no proof that
a recording does not hold the answer.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from neuroedge.contract.chat import ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Usage
from neuroedge.contract.models import CHAT, TEXT_EMBEDDING
from neuroedge.engines.knowledge.search import Hit
from neuroedge.engines.knowledge.search import Input as SearchInput
from neuroedge.kit.grounding import (
    Attribution,
    Claim,
    Source,
    coverage,
    expected_kind,
    holds,
    sentences,
)
from neuroedge.kit.introductions import introductions
from neuroedge.kit.prompts import CHECK, CHECK_EXAMPLES, SYSTEM

WHOLE_RECORDING_HITS: Final = 50
"""A recording with fewer segments than one search can return is read as a whole."""
GROUNDED: Final = Policy(query_type="grounded")
EXCERPT_TOKENS: Final = 2000
NEAREST_HITS: Final = 3
MAX_NEIGHBOURED_RECORDINGS: Final = 3
MIN_COSINE: Final = 0.15
"""Below it the best excerpt is not about the question; with an answer it was 0.27 or more (development set)."""
MIN_COVERAGE: Final = 0.6
MIN_NEARNESS: Final = 0.35
"""Cosine of question and excerpt, unless they share a word: below it the excerpt is about something else."""
REFUSAL: Final = re.compile(
    r"not[_ ]?found|not (?:mentioned|specified|stated|provided|given|said)"
    r"|does(?:n't| not) (?:say|mention|specify|tell)",
    re.IGNORECASE,
)
_MARKER: Final = re.compile(r"\s*\[\d+\]")
_LABEL: Final = re.compile(r"^(?:Answer|S\d+):\s*", re.IGNORECASE)

Speaker = tuple[UUID | None, str]


class Turn(EngineInput):
    """An earlier message of the conversation with the assistant."""

    role: Literal["user", "assistant"] = Field(description="Who said it.")
    content: str = Field(min_length=1, max_length=8000, description="What was said.")


class Input(EngineInput):
    """A question."""

    message: str = Field(min_length=1, max_length=8000, description="The question, 1 to 8000 characters.")
    history: list[Turn] = Field(default_factory=list, max_length=50, description="Earlier turns, oldest first.")
    recording_id: UUID | None = Field(default=None, description="Answer from this recording only.")
    include_context: bool = Field(default=True, description="False: plain conversation, nothing is looked up.")
    max_tokens: int = Field(default=256, ge=1, le=2048, description="Longest answer, in tokens.")
    top_k: int = Field(default=6, ge=1, le=50, description="Excerpts to look up.")


class Citation(BaseModel):
    """Where a sentence of the answer comes from."""

    n: int = Field(description="Number of the citation, from 1, in the order of the answer's sentences.")
    memory_id: UUID = Field(description="Id of the remembered row.")
    quote: str = Field(description="The remembered text.")
    speaker: str | None = Field(description="Who said it, for a segment of a recording.")
    start_s: float | None = Field(description="When it begins in the recording, seconds.")
    end_s: float | None = Field(description="When it ends, seconds.")
    recording_id: UUID | None = Field(description="The recording.")
    title: str | None = Field(description="The recording's or note's title.")


class Output(EngineOutput):
    """The answer with its sources, or a refusal with its reason."""

    message: str = Field(description="The answer; a fixed sentence when `answered` is false.")
    citations: list[Citation] = Field(description="Sources; empty when refused or without context.")
    answered: bool = Field(description="Whether the excerpts support the answer.")
    reason: str | None = Field(description="Why nothing was answered; null when answered.")
    usage: Usage = Field(description="Tokens used.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What validation kept of an answer: claims, or the reason why there is none."""

    claims: list[Claim] = field(default_factory=list)
    reason: str | None = None


class ChatEngine(Engine[Input, Output]):
    """retrieve → prompt → generate → validate."""

    name = "chat"
    title = "Grounded chat"
    method = "rag-attributed"
    example = Input(message="Where does Sheila live?")
    needs = (CHAT, TEXT_EMBEDDING)
    timeout_s = 120.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Answer from the excerpts, or refuse."""
        usage = Usage()
        if not payload.include_context:
            return await self._converse(payload, ctx, usage)
        excerpts = await self.retrieve(payload, ctx)
        if reason := unrelated(excerpts):
            return self._refused(payload, usage, reason, models=[])
        answer = await self._attempt(payload, excerpts, ctx, usage)
        if not answer.answered and len(near := nearest_lines(excerpts)) < len(excerpts):
            # A small LLM overlooks in a long transcript what it finds in a short one.
            again = await self._attempt(payload, near, ctx, usage)
            return again if again.answered else answer
        return answer

    async def _attempt(self, payload: Input, excerpts: Sequence[Hit], ctx: EngineContext, usage: Usage) -> Output:
        llm = await ctx.llm.chosen(GROUNDED)
        shown = await fitting(excerpts, payload, llm)
        draft = await _text(ctx, prompt(payload, shown), usage, max_tokens=payload.max_tokens)
        model = llm.model_id
        verdict = await self.validate(draft, payload.message, shown, ctx, usage)
        if verdict.reason:
            return self._refused(payload, usage, verdict.reason, models=[model])
        return self._answered(verdict.claims, shown, usage, model)

    async def post_swap_test(self) -> None:
        """Prove the example, and that the LLM speaks: the probe organisation remembers nothing to be asked about."""
        await super().post_swap_test()
        await self.run(Input(message="Say hello.", include_context=False, max_tokens=8), self.probe)

    async def retrieve(self, payload: Input, ctx: EngineContext) -> list[Hit]:
        """Excerpts in the order they are shown: of one recording by time, else recording by recording."""
        before = [t.content for t in payload.history if t.role == "user"][-1:]
        query = "\n".join([*before, payload.message])[-8000:]
        wide = await self._search(ctx, query, payload.recording_id, WHOLE_RECORDING_HITS)
        if payload.recording_id and len(wide) < WHOLE_RECORDING_HITS:
            return by_time(wide)
        if payload.recording_id:
            return with_neighbours(wide[: payload.top_k], wide)
        best = wide[: payload.top_k]
        recordings = list(dict.fromkeys(hit.recording_id for hit in best if hit.recording_id))
        pool = list(best)
        for recording_id in recordings[:MAX_NEIGHBOURED_RECORDINGS]:
            pool += await self._search(ctx, query, recording_id, WHOLE_RECORDING_HITS)
        return with_neighbours(best, pool)

    async def validate(
        self, draft: str, question: str, excerpts: Sequence[Hit], ctx: EngineContext, usage: Usage
    ) -> Verdict:
        """Keep the sentences the excerpts support and that answer the question."""
        if not draft or REFUSAL.search(draft):
            return Verdict(reason="the model found no answer in the excerpts")
        attribution = await attribution_over(excerpts, question, ctx)
        kept = [c for c in await claims_in(sentences(draft), attribution, ctx) if supported(c)]
        if not kept:
            return Verdict(reason="the excerpts do not support the model's answer")
        if not any(holds(expected_kind(question), claim.sentence, question=question) for claim in kept):
            return Verdict(reason="the excerpts do not hold the kind of answer the question asks for")
        i = kept[0].excerpt
        doubtful = coverage(question, sources_of(excerpts)[i].line) < 1.0
        if doubtful and not await confirms(ctx, evidence(i, excerpts), question, usage):
            return Verdict(reason="the lines nearest to the model's answer do not answer the question")
        return Verdict(claims=kept)

    async def _search(self, ctx: EngineContext, query: str, recording_id: UUID | None, top_k: int) -> list[Hit]:
        answer: Any = await ctx.call("search", SearchInput(query=query, recording_id=recording_id, top_k=top_k))
        return list(answer.hits)

    async def _converse(self, payload: Input, ctx: EngineContext, usage: Usage) -> Output:
        turns = [ChatMessage(role=t.role, content=t.content) for t in payload.history]
        llm = await ctx.llm.chosen(GROUNDED)
        messages = [*turns, ChatMessage(role="user", content=payload.message)]
        text = await _text(ctx, messages, usage, max_tokens=payload.max_tokens)
        return Output(
            message=text, citations=[], answered=True, reason=None, usage=usage, method="llm", models=[llm.model_id]
        )

    def _answered(self, claims: Sequence[Claim], excerpts: Sequence[Hit], usage: Usage, model: str) -> Output:
        cited = list(dict.fromkeys(claim.excerpt for claim in claims))
        return Output(
            message=" ".join(claim.sentence for claim in claims),
            citations=[_citation(n, excerpts[i]) for n, i in enumerate(cited, start=1)],
            answered=True,
            reason=None,
            usage=usage,
            method=self.method,
            models=[model],
        )

    def _refused(self, payload: Input, usage: Usage, reason: str, *, models: list[str]) -> Output:
        where = "the recording" if payload.recording_id else "what is remembered"
        return Output(
            message=f"Not in {where}.",
            citations=[],
            answered=False,
            reason=reason,
            usage=usage,
            method=self.method,
            models=models,
        )


def unrelated(excerpts: Sequence[Hit]) -> str | None:
    """Why the excerpts cannot hold an answer, before the LLM is asked; None when they may."""
    if not excerpts:
        return "nothing is remembered that could answer"
    cosines = [hit.parts.dense for hit in excerpts if hit.parts.dense is not None]
    if cosines and max(cosines) < MIN_COSINE and not any(hit.parts.keyword for hit in excerpts):
        return "nothing remembered is about the question"
    return None


async def attribution_over(excerpts: Sequence[Hit], question: str, ctx: EngineContext) -> Attribution:
    """Embed the question and the excerpts, to attribute sentences as they come."""
    sources = sources_of(excerpts)
    async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
        vectors = (await encoder.encode([question, *(source.line for source in sources)])).vectors
    people = frozenset(speaker_names(excerpts).values())
    return Attribution(question=question, asked=vectors[0], sources=sources, vectors=vectors[1:], people=people)


async def claims_in(told: Sequence[str], attribution: Attribution, ctx: EngineContext) -> list[Claim]:
    """Those sentences that are about the question, each with its source."""
    async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
        return attribution.claims(told, (await encoder.encode(told)).vectors)


def supported(claim: Claim) -> bool:
    """Whether an excerpt about the question holds the sentence: nothing invented, and most of its new words."""
    about = claim.asked > 0 or claim.nearness >= MIN_NEARNESS
    return about and not claim.invented and claim.coverage >= MIN_COVERAGE


def prompt(payload: Input, excerpts: Sequence[Hit]) -> list[ChatMessage]:
    """Excerpts first and the question last, so that the next question shares the beginning."""
    transcript = "\n".join(line(hit) for hit in excerpts)
    earlier = "".join(f"\n{'Question' if t.role == 'user' else 'Answer'}: {t.content}" for t in payload.history)
    content = f"Transcript:\n{transcript}\n{earlier}\nQuestion: {payload.message}\nAnswer:"
    return [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=content)]


async def fitting(excerpts: Sequence[Hit], payload: Input, llm: ChatModel) -> list[Hit]:
    """The excerpts that fit the model's context beside the rest of the prompt; the least relevant ones go first."""
    kept = list(excerpts)
    fixed = await llm.count_tokens("\n".join(m.content for m in prompt(payload, [])))
    room = min(EXCERPT_TOKENS, llm.context_tokens - payload.max_tokens - fixed - 64)
    while len(kept) > 1 and await llm.count_tokens("\n".join(line(hit) for hit in kept)) > room:
        ranked = sorted(kept, key=lambda hit: -hit.score)[: max(1, len(kept) * 3 // 4)]
        kept = [hit for hit in kept if hit in ranked]
    return kept


def line(hit: Hit) -> str:
    """An excerpt as the LLM reads it: it answers better from bare labels than from the speakers' names."""
    return f"{_label(hit)}: {hit.content}" if _label(hit) else hit.content


def sources_of(excerpts: Sequence[Hit]) -> list[Source]:
    """The excerpts for attribution, speakers by the name they gave themselves: there "I" has to be resolved."""
    names = speaker_names(excerpts)
    return [
        Source(
            said=hit.content,
            who=names.get((hit.recording_id, str(hit.metadata.get("speaker")))) or _label(hit),
            before=excerpts[i - 1].content if _follows(i, excerpts) else "",
        )
        for i, hit in enumerate(excerpts)
    ]


def speaker_names(excerpts: Sequence[Hit]) -> dict[Speaker, str]:
    """The names the speakers of each recording give themselves in the excerpts."""
    names: dict[Speaker, str] = {}
    for recording in dict.fromkeys(hit.recording_id for hit in excerpts):
        said = [(str(h.metadata.get("speaker")), h.content) for h in excerpts if h.recording_id == recording]
        names |= {(recording, speaker): name for speaker, name in introductions(said).items()}
    return names


def evidence(i: int, excerpts: Sequence[Hit]) -> str:
    """Excerpt `i` with what was said right before it in the same recording."""
    return "\n".join(line(hit) for hit in excerpts[i - _follows(i, excerpts) : i + 1])


def _follows(i: int, excerpts: Sequence[Hit]) -> bool:
    return i > 0 and excerpts[i - 1].recording_id == excerpts[i].recording_id is not None


def _label(hit: Hit) -> str:
    return hit.metadata.get("speaker") or hit.title or ""


def by_time(hits: Sequence[Hit]) -> list[Hit]:
    """Recording by recording in the order given, each by time; what has no time comes last."""
    order = {recording: n for n, recording in reversed(list(enumerate(h.recording_id for h in hits)))}
    return sorted(hits, key=lambda h: (order[h.recording_id], h.metadata.get("start_s", float("inf"))))


def with_neighbours(best: Sequence[Hit], pool: Sequence[Hit]) -> list[Hit]:
    """`best` and, from `pool`, the lines said right before and after each, by time."""
    ordered = by_time(list({hit.id: hit for hit in (*best, *pool)}.values()))
    wanted = {hit.id for hit in best}
    near: set[int] = set()
    for i, hit in enumerate(ordered):
        if hit.id in wanted:
            near |= {
                j
                for j in (i - 1, i, i + 1)
                if 0 <= j < len(ordered) and (j == i or hit.recording_id == ordered[j].recording_id is not None)
            }
    return [ordered[i] for i in sorted(near)]


def nearest_lines(excerpts: Sequence[Hit]) -> list[Hit]:
    """The few excerpts nearest to the question, with their neighbours."""
    return with_neighbours(sorted(excerpts, key=lambda hit: -hit.score)[:NEAREST_HITS], excerpts)


async def generate(
    ctx: EngineContext, messages: Sequence[ChatMessage], usage: Usage, *, max_tokens: int, policy: Policy = GROUNDED
) -> AsyncGenerator[str, None]:
    """The LLM's words as they come; adds to `usage` at the end."""
    async with aclosing(ctx.llm.stream(ChatRequest(messages, max_tokens=max_tokens), policy=policy)) as deltas:
        async for delta in deltas:
            usage.count(delta)
            if delta.text:
                yield delta.text


async def _text(
    ctx: EngineContext,
    messages: Sequence[ChatMessage],
    usage: Usage,
    *,
    max_tokens: int,
    policy: Policy = GROUNDED,
) -> str:
    pieces = generate(ctx, messages, usage, max_tokens=max_tokens, policy=policy)
    return unmarked("".join([piece async for piece in pieces]))


def unmarked(text: str) -> str:
    """What a model wrote, without its own markers: those of small models are not reliable, attribution sets others."""
    return _LABEL.sub("", _MARKER.sub("", text).strip())


async def confirms(ctx: EngineContext, lines: str, question: str, usage: Usage, *, policy: Policy = GROUNDED) -> bool:
    """Whether the LLM, shown `lines` alone, says that they answer `question`."""
    messages = [ChatMessage(role="system", content=CHECK)]
    for excerpt, asked, reply in CHECK_EXAMPLES:
        messages += [_check(excerpt, asked), ChatMessage(role="assistant", content=reply)]
    reply = await _text(ctx, [*messages, _check(lines, question)], usage, max_tokens=2, policy=policy)
    return reply.lower().startswith("yes")


def _check(excerpt: str, question: str) -> ChatMessage:
    return ChatMessage(role="user", content=f"Excerpt:\n{excerpt}\nQuestion: {question}")


def _citation(n: int, hit: Hit) -> Citation:
    return Citation(
        n=n,
        memory_id=hit.id,
        quote=hit.content,
        speaker=hit.metadata.get("speaker"),
        start_s=hit.metadata.get("start_s"),
        end_s=hit.metadata.get("end_s"),
        recording_id=hit.recording_id,
        title=hit.title,
    )
