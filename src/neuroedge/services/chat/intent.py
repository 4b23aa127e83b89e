"""What a message asks for: by its nearness to labelled examples, or unsure.

Method: k nearest labelled sentences by cosine of sentence embeddings, with abstention (Chow 1970): the mean of the
best three of each label; unsure when the best label is not near enough or not clearly before the next one. Both limits
were chosen on the examples themselves, leaving one out. Limits: the examples are English.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, get_args

import numpy as np

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.models import TEXT_EMBEDDING, Floats
from neuroedge.kit.artifact_checks import TYPES, Type
from neuroedge.services.chat.state import Intent

NEAREST: Final = 3
MIN_NEARNESS: Final = 0.2
MIN_LEAD: Final = 0.08
INTENTS: Final[tuple[Intent, ...]] = get_args(Intent)
_LANGUAGES: Final = re.compile(
    r"\b(python|javascript|typescript|java|rust|sql|bash|html|css|ruby|php|kotlin|swift)\b", re.IGNORECASE
)
_NAMED: Final[Mapping[Type, re.Pattern[str]]] = {
    "slides": re.compile(r"\b(?:slides?|presentation|deck)\b", re.IGNORECASE),
    "diagram": re.compile(r"\b(?:diagram|flow ?chart|gantt|mind ?map)\b", re.IGNORECASE),
    "table": re.compile(r"\b(?:table|spreadsheet|csv)\b", re.IGNORECASE),
    "json": re.compile(r"\bjson\b", re.IGNORECASE),
    "code": re.compile(r"\b(?:function|script|program|code|class|query)\b", re.IGNORECASE),
}


def artifact_type(text: str, *, wanted: str | None) -> tuple[Type, str | None]:
    """The type of artifact a message asks for, and of code its language: what is wanted, else what is named in it."""
    language = _LANGUAGES.search(text)
    named: Type = next((type_ for type_, pattern in _NAMED.items() if pattern.search(text)), "document")
    type_: Type = next((known for known in TYPES if known == wanted), named)
    if type_ == "document" and wanted is None and language:
        type_ = "code"
    if type_ != "code":
        return type_, None
    return type_, language.group(1).lower() if language else "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The likeliest intent; `sure` when it may be acted on without asking anybody."""

    intent: Intent
    nearness: float
    """Mean cosine to the nearest examples of that intent."""
    lead: float
    """How much nearer they are than those of the next intent."""

    @property
    def sure(self) -> bool:
        """Whether the guess is near and clear enough."""
        return self.nearness >= MIN_NEARNESS and self.lead >= MIN_LEAD


class Examples:
    """The labelled sentences, embedded once by each model."""

    def __init__(self) -> None:
        self._vectors: dict[str, Floats] = {}
        told = json.loads(files(__package__).joinpath("intents.json").read_text())
        self.sentences: list[str] = [text for label in INTENTS for text in told[label]]
        self.labels: list[Intent] = [label for label in INTENTS for _ in told[label]]

    async def guess(self, vector: Sequence[float] | Floats, *, ctx: EngineContext, model: str | None) -> Guess:
        """The intent of a message whose embedding by `model` (None: the platform's) is `vector`."""
        async with ctx.models.lease(TEXT_EMBEDDING.named(model)) as encoder:
            if encoder.model_id not in self._vectors:
                self._vectors[encoder.model_id] = (await encoder.encode(self.sentences)).vectors
            examples = self._vectors[encoder.model_id]
        return self.nearest(examples @ np.asarray(vector, np.float32))

    def nearest(self, cosines: Floats) -> Guess:
        """The guess from a message's cosine to each example; NaN leaves an example out."""
        means: dict[Intent, float] = {}
        for label in INTENTS:
            own = sorted((float(c) for c, of in zip(cosines, self.labels, strict=True) if of == label), reverse=True)
            near = [c for c in own if not np.isnan(c)][:NEAREST]
            means[label] = sum(near) / len(near)
        first, second = sorted(means, key=lambda label: -means[label])[:2]
        return Guess(intent=first, nearness=means[first], lead=means[first] - means[second])
