"""ShikshaSetu's content: a text made easier for a school grade, and a text in one of the languages of its schools."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.dialects.shikshasetu import ShikshaRoute, shiksha_error

INDIAN: Final = ("hi", "bn", "ta", "te", "mr", "gu", "kn", "ml", "pa", "or")
"""The ten Indian languages ShikshaSetu's content is in, beside English."""
REFUSALS = dict.fromkeys(("/api/v2/content/simplify", "/api/v2/content/translate"), shiksha_error)
"""How http/middleware.py refuses a body or a header of these paths before a route sees it."""
router = APIRouter(prefix="/api/v2/content", tags=["ShikshaSetu dialect"], route_class=ShikshaRoute)
ContentLanguage = Literal["en", "hi", "bn", "ta", "te", "mr", "gu", "kn", "ml", "pa", "or"]
KeptWord = Annotated[str, Field(min_length=1, max_length=200)]


class ShikshaSimplifyIn(BaseModel):
    """A text, and the grade it is for."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=20_000)
    grade_level: int = Field(default=5, ge=1, le=12)
    keep_terms: list[KeptWord] = Field(default_factory=list, max_length=500, description="Words that must stay.")
    method: Literal["rules", "llm"] = "rules"


class ShikshaSimplifyOut(BaseModel):
    """The easier text."""

    simplified_text: str
    grade_level: int = Field(description="As asked for.")
    grade_before: float | None = Field(description="US school grade of the text.")
    grade_after: float | None = Field(description="US school grade of the easier text.")
    edits: int
    method: str
    reliable: bool
    warnings: list[str]
    request_id: str


class ShikshaTranslateIn(BaseModel):
    """A text, and the language it should be in."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=20_000)
    target_language: ContentLanguage
    source_language: ContentLanguage | None = Field(default=None, description="Detected if absent.")
    glossary: dict[KeptWord, KeptWord] = Field(
        default_factory=dict, max_length=500, description="What terms have to be in the translation."
    )


class ShikshaTranslateOut(BaseModel):
    """The translation, and who made it."""

    translated_text: str
    source_language: str
    target_language: str
    backend: str = Field(description="nmt-ctranslate2, llm, or none where the text is in that language already.")
    models: list[str]
    reliable: bool
    warnings: list[str]
    request_id: str


@router.post("/simplify", summary="Make a text easier")
async def simplify(
    body: ShikshaSimplifyIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ShikshaSimplifyOut:
    """The English text with plainer words and shorter sentences, and its grade before and after."""
    payload = {"text": body.text, "target_grade": body.grade_level, "keep": body.keep_terms, "method": body.method}
    work = platform.runner.run("simplification", payload, principal=principal, request_id=request_id)
    told: Any = await unless_client_leaves(request, work)
    return ShikshaSimplifyOut(
        simplified_text=told.text,
        grade_level=body.grade_level,
        grade_before=told.grade_before,
        grade_after=told.grade_after,
        edits=len(told.edits),
        method=told.method,
        reliable=told.reliable,
        warnings=told.warnings,
        request_id=request_id,
    )


@router.post("/translate", summary="Translate a text")
async def translate(
    body: ShikshaTranslateIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ShikshaTranslateOut:
    """The text in English or one of the ten Indian languages, by the model that is set for the pair."""
    terms = [{"source": source, "target": target} for source, target in body.glossary.items()]
    payload = {"text": body.text, "target": body.target_language, "source": body.source_language, "terms": terms}
    work = platform.runner.run("translation", payload, principal=principal, request_id=request_id)
    told: Any = await unless_client_leaves(request, work)
    return ShikshaTranslateOut(
        translated_text=told.text,
        source_language=told.src,
        target_language=told.tgt,
        backend=told.method,
        models=told.models,
        reliable=told.reliable,
        warnings=told.warnings,
        request_id=request_id,
    )
