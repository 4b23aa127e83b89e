"""What an answer rests on: sentences let through as they come when an excerpt supports them, and their citations.

A sentence is shown only when its excerpt holds it; the first ones wait until they hold the kind of answer that was
asked for and, where the words alone do not tell, the model has confirmed that the lines answer the question. The method
is that of engines/language/chat.py. Afterwards each citation is checked against the text that was retrieved.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from neuroedge.contract.chat import Policy
from neuroedge.contract.engine import EngineContext, Usage
from neuroedge.engines.knowledge.search import Hit
from neuroedge.engines.language.chat import REFUSAL, claims_in, confirms, evidence, supported, unmarked
from neuroedge.kit.grounding import Attribution, Claim, coverage, expected_kind, holds, sentences

ATTACHMENT: Final = "attachment"
"""memory_type of excerpts that come with the message."""
TOOL: Final = "tool"
"""memory_type of what a tool returned."""
_END: Final = re.compile(r"([.!?…]*)$")
_MARKERS: Final = re.compile(r"\s*\[\d+\]")
Show = Callable[[str, int], Awaitable[None]]
"""Takes a sentence and the index of its excerpt."""


class Gate:
    """Lets the supported sentences of an answer through."""

    def __init__(
        self,
        attribution: Attribution,
        excerpts: Sequence[Hit],
        *,
        ctx: EngineContext,
        policy: Policy,
        usage: Usage,
        show: Show,
    ) -> None:
        self._attribution = attribution
        self._excerpts = excerpts
        self._ctx = ctx
        self._policy = policy
        self._usage = usage
        self._show = show
        self._waiting: list[Claim] = []
        self._open = False
        self._refused = False
        self._unfit = ""
        self.kept: list[Claim] = []
        """What was let through, in order."""

    @property
    def reason(self) -> str | None:
        """Why nothing came through; None when something did."""
        if self.kept:
            return None
        if self._refused and not self._waiting:
            return "the model found no answer in the excerpts"
        return self._unfit or (
            "the excerpts do not hold the kind of answer the question asks for"
            if self._waiting
            else "the excerpts do not support the model's answer"
        )

    async def take(self, sentence: str) -> bool:
        """Judge the next sentence; False when none that follows can come through."""
        if REFUSAL.search(sentence):
            self._refused = True
            return self._open
        self._waiting += [c for c in await claims_in([sentence], self._attribution, self._ctx) if supported(c)]
        if not self._open and not await self._opens():
            return not self._unfit
        for claim in self._waiting:
            await self._show(claim.sentence, claim.excerpt)
        self.kept += self._waiting
        self._waiting = []
        return True

    async def _opens(self) -> bool:
        """Whether what waits answers the question."""
        question = self._attribution.question
        if not any(holds(expected_kind(question), claim.sentence, question=question) for claim in self._waiting):
            return False
        first = self._waiting[0].excerpt
        if coverage(question, self._attribution.sources[first].line) < 1.0 and not await confirms(
            self._ctx, evidence(first, self._excerpts), question, self._usage, policy=self._policy
        ):
            self._unfit = "the lines nearest to the model's answer do not answer the question"
            return False
        self._open = True
        return True


async def by_sentence(pieces: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Whole sentences, each as soon as the next one begins; the model's own markers are left out."""
    text = ""
    async for piece in pieces:
        text += piece
        whole = sentences(text)
        if len(whole) > 1:
            for sentence in whole[:-1]:
                if clean := unmarked(sentence):
                    yield clean
            text = whole[-1] + (" " if text[-1:].isspace() else "")
    for sentence in sentences(text):
        if clean := unmarked(sentence):
            yield clean


class Numbering:
    """Numbers the excerpts of an answer in the order they are first cited, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, hit_id: str) -> tuple[int, bool]:
        """The excerpt's number, and whether it is new."""
        new = hit_id not in self._numbers
        return self._numbers.setdefault(hit_id, len(self._numbers) + 1), new


def marked(sentence: str, n: int) -> str:
    """The sentence with its marker before the last stop: "Bill lives in Leeds [1]." """
    return _END.sub(rf" [{n}]\1", sentence, count=1)


def without_markers(text: str) -> str:
    """An earlier answer as a model should read it."""
    return _MARKERS.sub("", text)


def citation(n: int, hit: Hit) -> dict[str, Any]:
    """Where a sentence comes from: a document's page, a recording's speaker and second, or a memory."""
    told = hit.metadata
    kind = "recording" if hit.recording_id else "document" if hit.document_id else "memory"
    if hit.memory_type in (ATTACHMENT, TOOL):
        kind = hit.memory_type
    return {
        "n": n,
        "kind": kind,
        "memory_id": str(hit.id) if kind not in (ATTACHMENT, TOOL) else None,
        "attachment_id": hit.source if kind == ATTACHMENT else None,
        "document_id": str(hit.document_id) if hit.document_id else None,
        "first_page": told.get("first_page"),
        "last_page": told.get("last_page"),
        "recording_id": str(hit.recording_id) if hit.recording_id else None,
        "speaker": told.get("speaker"),
        "start_s": told.get("start_s"),
        "end_s": told.get("end_s"),
        "title": hit.title,
        "quote": hit.content,
    }


def composed(
    claims: Sequence[Mapping[str, Any]], hits: Sequence[Hit]
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """The answer of these claims with its markers, its citations, and the claims whose excerpt was never retrieved.

    A claim without excerpt (`hit_id` None) is taken without a marker; one with an unknown excerpt is left out.
    """
    known = {str(hit.id): hit for hit in hits}
    numbering, citations = Numbering(), list[dict[str, Any]]()
    told, unknown = list[str](), list[dict[str, Any]]()
    for claim in claims:
        hit_id = claim["hit_id"]
        if hit_id is None:
            told.append(claim["sentence"])
        elif hit_id not in known:
            unknown.append(dict(claim))
        else:
            n, new = numbering.of(hit_id)
            if new:
                citations.append(citation(n, known[hit_id]))
            told.append(marked(claim["sentence"], n))
    return " ".join(told), citations, unknown
