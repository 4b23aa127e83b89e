"""Makes an English text easier to read, and measures by how much and whether the meaning stayed.

Method, default `rules`: plainer words from a table, each only where it is the more frequent one (wordfreq, Speer 2022),
and long sentences split by their parse (after Siddharthan 2006); role entities gives the parse. `llm`: a language model
rewrites paragraph by paragraph; what it changes too much, or makes no easier, is replaced by the rules' result.
Measured again: readability before and after (kit/readability.py), cosine of the sentence vectors of what was changed
(role text_embedding). Checked: names, numbers, negations and quotations are the same; what breaks one is undone.
Licence of code and table: Apache-2.0, public domain. Limits: English; the table holds 140 words, so rules split more
than they reword; a cosine near 1 is no proof of equal meaning. For a person to read over, not a legal plain version.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Policy
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Usage
from neuroedge.contract.errors import ContextTooLong, NeuroEdgeError, Unavailable
from neuroedge.contract.models import ENTITIES, TEXT_EMBEDDING, ParsedText
from neuroedge.kit.readability import MIN_WORDS, Readability, looks_english, readability
from neuroedge.kit.simplify import Edit, applied, kept, lost, name_texts, simplified

POLICY: Final = Policy(query_type="simplification")
_BATCH: Final = 64
PROMPT: Final = (
    "Rewrite the text for a reader in US school grade {grade}. Use short sentences and common words. Keep every fact, "
    "name, number, negation and quotation exactly. Add nothing. Answer with the rewritten text only."
)


class Input(EngineInput):
    """A text, and how easy it should become."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str = Field(min_length=1, max_length=20_000, description="An English text, 1 to 20,000 characters.")
    target_grade: float | None = Field(
        default=None,
        ge=1,
        le=16,
        description="US school grade to reach with as few edits as do; as easy as can be if absent.",
    )
    method: Literal["rules", "llm"] = Field(default="rules", description="Who rewrites; llm: falls back on the rules.")
    keep: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=500, description="Words that must stay: terms to be learnt."
    )
    min_cosine: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="A sentence whose vector's cosine with its original is lower is left as it was.",
    )


class SimplifyingEdit(BaseModel):
    """One change."""

    kind: Literal["phrase", "word", "split", "rewrite"] = Field(description="rewrite: a paragraph by a language model.")
    start: int = Field(description="First character in the original.")
    end: int = Field(description="Character after the last, in the original.")
    before: str = Field(description="What stood there.")
    after: str = Field(description="What stands there now.")


class Output(EngineOutput):
    """The easier text, and the measures of both."""

    text: str = Field(description="The text with all edits.")
    grade_before: float | None = Field(description="Median US school grade of four formulas; null without words.")
    grade_after: float | None = Field(description="The same of the result.")
    grades_before: dict[str, float] = Field(description="By formula: flesch_kincaid, dale_chall, spache, smog.")
    grades_after: dict[str, float] = Field(description="The same of the result.")
    edits: list[SimplifyingEdit] = Field(description="Changes, in the order of the original.")
    cosine: float | None = Field(description="Mean cosine of what was changed with its original; null if nothing was.")
    cosine_lowest: float | None = Field(description="The lowest of them.")
    n_words: int = Field(description="Words of the original.")
    usage: Usage = Field(description="Tokens of the language model.")
    reliable: bool = Field(description="Whether the text is English and long enough for the grades to mean something.")
    warnings: list[str] = Field(description="What is uncertain, or was undone.")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Characters of the original with the edits inside."""

    start: int
    end: int
    edits: tuple[Edit, ...]


class Simplification(Engine[Input, Output]):
    """Rules over a parse, or a language model under the same checks."""

    name = "simplification"
    title = "Simpler English text"
    method = "plain-words+clause-splitting"
    example = Input(
        text=(
            "The committee commenced its work in 1998, and the members utilized numerous documents in order to find "
            "the facts. The river, which rises in the hills, is long, but it does not reach the sea. Mr. Bennet "
            "purchased an enormous residence; his daughters were exceedingly fortunate."
        )
    )
    needs = (ENTITIES, TEXT_EMBEDDING)
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Simplify. Raises ModelUnavailable; for llm also what the language model raises."""
        text, warnings = payload.text, list[str]()
        before = await asyncio.to_thread(readability, text)
        if before is None or not looks_english(text):
            why = "no words" if before is None else "the text does not look English"
            return _unchanged(payload, before, [f"{why}: left as it is"])
        async with ctx.models.lease(ENTITIES) as parser:
            (parse,) = await parser.parse([text])
            models = [parser.model_id]
        await ctx.progress("simplification", 0.4)
        keep = frozenset(word.lower() for word in payload.keep)
        edits = await asyncio.to_thread(simplified, text, parse, target=payload.target_grade, keep=keep)
        pieces = _pieces(text, parse, edits, name_texts(text, parse), warnings)
        usage, method = Usage(), self.method
        rewritten: dict[int, str] = {}
        if payload.method == "llm":
            rewritten, who = await _rewritten(payload, ctx, parse, usage, warnings)
            method, models = ("llm-checked" if rewritten else self.method), [*models, *who]
        pieces = _with_rewritten(text, pieces, rewritten)
        pieces, cosines, encoder = await _checked(text, pieces, payload.min_cosine, ctx, warnings)
        final = [e for piece in pieces for e in piece.edits]
        after_text = applied(text, final)
        after = await asyncio.to_thread(readability, after_text) or before
        if before.words < MIN_WORDS:
            warnings.append(f"{before.words} words: grades mean little below {MIN_WORDS}")
        if payload.target_grade is not None and after.grade > payload.target_grade:
            warnings.append(
                f"grade {after.grade:.1f} is the lowest these edits reach; {payload.target_grade:g} was asked for"
            )
        return Output(
            method=method,
            models=[*models, *encoder],
            text=after_text,
            grade_before=round(before.grade, 2),
            grade_after=round(after.grade, 2),
            grades_before=_rounded(before),
            grades_after=_rounded(after),
            edits=[_told(text, e, rewritten) for e in final],
            cosine=round(float(np.mean(cosines)), 4) if cosines else None,
            cosine_lowest=round(min(cosines), 4) if cosines else None,
            n_words=before.words,
            usage=usage,
            reliable=before.words >= MIN_WORDS,
            warnings=warnings,
        )

    async def post_swap_test(self) -> None:
        """The example gets easier, and keeps its 1998, its "not" and its Bennet."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        easier = (answer.grade_after or 0) < (answer.grade_before or 0)
        if not easier or not all(word in answer.text for word in ("1998", "not", "Bennet")):
            raise NeuroEdgeError("the simplification engine does not simplify its own example")


def _unchanged(payload: Input, before: Readability | None, warnings: list[str]) -> Output:
    grades = {} if before is None else _rounded(before)
    grade = None if before is None else round(before.grade, 2)
    return Output(
        method="none",
        text=payload.text,
        grade_before=grade,
        grade_after=grade,
        grades_before=grades,
        grades_after=grades,
        edits=[],
        cosine=None,
        cosine_lowest=None,
        n_words=0 if before is None else before.words,
        usage=Usage(),
        reliable=False,
        warnings=warnings,
    )


def _rounded(r: Readability) -> dict[str, float]:
    return {name: round(grade, 2) for name, grade in r.grades.items()}


def _pieces(
    text: str, parse: ParsedText, edits: Sequence[Edit], names: Sequence[str], warnings: list[str]
) -> list[_Piece]:
    """The changed sentences whose names, numbers, negations and quotations survive; the others stay as they were."""
    found = []
    spans = [(parse.tokens[s.first].start, parse.tokens[s.stop - 1].end) for s in parse.sentences]
    for start, end in spans:
        inside = tuple(e for e in edits if start <= e.start and e.end <= end)
        if not inside:
            continue
        shifted = [Edit(kind=e.kind, start=e.start - start, end=e.end - start, after=e.after) for e in inside]
        original = text[start:end]
        must = kept(original, [name for name in names if name in original])
        broken = lost(must, applied(original, shifted))
        if broken:
            warnings.append(f"left as it was ({broken[0]}): {original[:60]}")
        else:
            found.append(_Piece(start, end, inside))
    return found


async def _rewritten(
    payload: Input, ctx: EngineContext, parse: ParsedText, usage: Usage, warnings: list[str]
) -> tuple[dict[int, str], list[str]]:
    """By start of a paragraph, what the model made of it, where that keeps what must be kept and is easier."""
    grade = f"{payload.target_grade:g}" if payload.target_grade is not None else "4"
    names = name_texts(payload.text, parse)
    found: dict[int, str] = {}
    who: list[str] = []
    paragraphs = _paragraphs(payload.text)
    for n, (start, end) in enumerate(paragraphs):
        original = payload.text[start:end]
        try:
            answer = await _asked(ctx, PROMPT.format(grade=grade), original, usage, who)
        except (Unavailable, ContextTooLong) as e:
            warnings.append(f"the language model does not answer ({e.detail}): rules used")
            break
        was, now = readability(original), readability(answer)
        broken = lost(kept(original, [name for name in names if name in original]), answer)
        missing = [
            word for word in payload.keep if word.lower() in original.lower() and word.lower() not in answer.lower()
        ]
        if missing:
            broken.append(f"words to keep are gone: {', '.join(missing[:3])}")
        if was is None or now is None or now.grade >= was.grade:
            broken.append("it is no easier")
        if broken:
            warnings.append(f"the language model's paragraph {n + 1} is not used: {broken[0]}")
        else:
            found[start] = answer
        await ctx.progress("simplification", 0.4 + 0.5 * (n + 1) / len(paragraphs))
    return found, list(dict.fromkeys(who))


async def _asked(ctx: EngineContext, system: str, text: str, usage: Usage, who: list[str]) -> str:
    request = ChatRequest(
        [ChatMessage(role="system", content=system), ChatMessage(role="user", content=text)],
        max_tokens=min(4096, 128 + len(text) // 2),
    )
    pieces: list[str] = []
    async with aclosing(ctx.llm.stream(request, policy=POLICY)) as stream:
        async for delta in stream:
            pieces.append(delta.text)
            usage.count(delta)
            who += [delta.model] if delta.model else []
    return "".join(pieces).strip()


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Paragraphs with words, without the space around them."""
    found, at = [], 0
    for block in text.split("\n\n"):
        inner = block.strip()
        if any(c.isalpha() for c in inner):
            start = at + block.index(inner)
            found.append((start, start + len(inner)))
        at += len(block) + 2
    return found


def _with_rewritten(text: str, pieces: list[_Piece], rewritten: dict[int, str]) -> list[_Piece]:
    """A rewritten paragraph replaces the rules' edits inside it."""
    spans = {start: end for start, end in _paragraphs(text) if start in rewritten}
    left = [p for p in pieces if not any(s < p.end and p.start < e for s, e in spans.items())]
    # The kind of a whole paragraph's edit is told apart by its start (`_told`).
    new = [_Piece(s, e, (Edit(kind="phrase", start=s, end=e, after=rewritten[s]),)) for s, e in spans.items()]
    return sorted([*left, *new], key=lambda p: p.start)


async def _checked(
    text: str, pieces: list[_Piece], min_cosine: float, ctx: EngineContext, warnings: list[str]
) -> tuple[list[_Piece], list[float], list[str]]:
    """The pieces near enough to their originals, with their cosines and the encoder."""
    if not pieces:
        return [], [], []
    pairs = [(text[p.start : p.end], _piece_text(text, p)) for p in pieces]
    cosines: list[float] = []
    async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
        for at in range(0, len(pairs), _BATCH):
            batch = pairs[at : at + _BATCH]
            one = (await encoder.encode([a for a, _ in batch])).vectors
            other = (await encoder.encode([b for _, b in batch])).vectors
            cosines += (one * other).sum(axis=1).astype(float).tolist()
        model_id = encoder.model_id
    far = sum(c < min_cosine for c in cosines)
    if far:
        warnings.append(f"{far} changes undone: the meaning moved too far (cosine below {min_cosine:g})")
    good = [i for i, c in enumerate(cosines) if c >= min_cosine]
    return [pieces[i] for i in good], [min(1.0, cosines[i]) for i in good], [model_id]


def _piece_text(text: str, piece: _Piece) -> str:
    moved = [
        Edit(kind=e.kind, start=e.start - piece.start, end=e.end - piece.start, after=e.after) for e in piece.edits
    ]
    return applied(text[piece.start : piece.end], moved)


def _told(text: str, edit: Edit, rewritten: dict[int, str]) -> SimplifyingEdit:
    whole = rewritten.get(edit.start) == edit.after
    return SimplifyingEdit(
        kind="rewrite" if whole else edit.kind,
        start=edit.start,
        end=edit.end,
        before=text[edit.start : edit.end],
        after=edit.after,
    )
