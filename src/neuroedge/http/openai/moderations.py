"""POST /v1/moderations as OpenAI's clients know it, over the engine `moderation`.

OpenAI's categories `hate` and `harassment` are the engine's hate and offensive; its other categories (violence,
self-harm, …) nobody here judges, so they are not in the answer. The engine's own stand beside them by their names.
"""

from typing import Annotated, Any, Final, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)
MAX_INPUTS: Final = 100
_OPENAI: Final = {"harassment": "offensive"}
"""OpenAI's name by ours, where they differ."""
Text = Annotated[str, Field(max_length=1_000_000)]


class ModerationPart(BaseModel):
    """A part of a message."""

    type: Literal["text", "image_url"]
    text: Text | None = None


class ModerationsIn(BaseModel):
    """What to judge."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[ModerationPart], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    model: str | None = Field(default=None, max_length=200, description="moderation, or left out.")


class ModerationResult(BaseModel):
    """The judgement of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationsOut(BaseModel):
    """A judgement for each text."""

    id: str
    model: str
    results: list[ModerationResult]


@router.post("/v1/moderations", summary="Judge texts (OpenAI)")
async def moderations(
    body: ModerationsIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ModerationsOut:
    """Hate, offence, prompt injection and personal data; the engine `moderation`."""
    texts = _texts(body)
    if body.model not in (None, "moderation", "omni-moderation-latest", "text-moderation-latest"):
        raise ModelNotFound(f"there is no moderation model {body.model!r}", hint="leave it out")

    async def work() -> list[Any]:
        return [
            await platform.runner.run("moderation", {"text": text}, principal=principal, request_id=request_id)
            for text in texts
        ]

    answers = await unless_client_leaves(request, work())
    return ModerationsOut(
        id=f"modr-{uuid4().hex}",
        model=", ".join(answers[0].models) or answers[0].method,
        results=[_result(answer) for answer in answers],
    )


def _texts(body: ModerationsIn) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    texts: list[str] = []
    for part in body.input:
        text = part if isinstance(part, str) else part.text
        if text is None:
            raise InvalidInput(
                "pictures cannot be judged here",
                hint="send texts",
                errors=[{"loc": ("input",), "msg": "give texts", "type": "value_error"}],
            )
        texts.append(text)
    return texts


def _result(answer: Any) -> ModerationResult:
    scores: dict[str, float] = dict(answer.categories)
    reached = {reason.category: True for reason in answer.reasons}
    for theirs, ours in _OPENAI.items():
        if ours in scores:
            scores[theirs], reached[theirs] = scores[ours], reached.get(ours, False)
    return ModerationResult(
        flagged=bool(answer.reasons),
        categories={name: reached.get(name, False) for name in scores},
        category_scores=scores,
        category_applied_input_types={name: ["text"] for name in scores},
    )
