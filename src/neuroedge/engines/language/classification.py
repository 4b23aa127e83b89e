"""Classification of texts by labels of the caller's: zero-shot from their descriptions, or trained from examples.

Zero-shot (`labels`): cosine of the sentence vectors of text and description, turned into probabilities by a temperature
set on other texts (docs/engines/classification.md): `calibrated` is false. After Yin et al. 2019, "Benchmarking
Zero-shot Text Classification". Trained (`examples`): multinomial logistic regression over TF-IDF words, or over
sentence vectors, whichever has the lower log loss by cross-validation; temperature scaling (Guo et al. 2017); every
fifth example is held out and scored once. A head over vectors can be kept (`keep_as`), sealed, as the organisation's
own, and used again (`model`). Role text_embedding. Code: scikit-learn, BSD-3-Clause.
Limits of use: one label per text. English by default, as the sentence encoder. A vector stands for the beginning of a
long text only. A head over words is not kept. The figures hold for texts like the examples.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import TEXT_EMBEDDING, Floats
from neuroedge.kit import text_head
from neuroedge.kit.calibration import Doubles, softmax
from neuroedge.kit.text_head import TextHead, TooFewExamples

ZERO_SHOT_TEMPERATURE: Final = 0.047
"""Fitted on the dev part of the routing requests, with the engines' titles as labels (training/routing.py)."""
MAX_EMBEDDED: Final = 2000
"""Most examples that are read by the sentence encoder within a call."""
MAX_LABELS: Final = 100
MAX_CHARS: Final = 8_000_000
MIN_HELD_OUT: Final = 50
"""Below it the figures say little."""
HIGH_ECE: Final = 0.1
KIND: Final = "text-head"
"""Of a trained model that is kept."""
_BATCH: Final = 64
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Text = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]


class LabelToChoose(BaseModel):
    """A label, told in words."""

    model_config = ConfigDict(extra="forbid")

    name: Label = Field(description="What the answer calls it.")
    description: str = Field(
        default="", max_length=2000, description="What texts of this label are about; the name alone if empty."
    )


class LabelledText(BaseModel):
    """An example."""

    model_config = ConfigDict(extra="forbid")

    text: Text = Field(description="A text.")
    label: Label = Field(description="Its label.")


class Input(EngineInput):
    """Texts, and one of: labels to choose from, examples to learn from, a model that was kept."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    texts: list[Text] = Field(min_length=1, max_length=256, description="The texts to classify, 1 to 256.")
    labels: list[LabelToChoose] = Field(
        default_factory=list, max_length=MAX_LABELS, description="For zero-shot: 2 to 100 labels."
    )
    examples: list[LabelledText] = Field(
        default_factory=list,
        max_length=10_000,
        description="To learn from: at least 5 for each of 2 to 100 labels, 8 million characters in all.",
    )
    model: UUID | None = Field(default=None, description="Id of a model that an earlier call kept.")
    keep_as: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")] | None = Field(
        default=None,
        description="With examples: keep what is learnt under this name; over vectors, at most 2,000 examples.",
    )
    features: Literal["auto", "tfidf", "embedding"] = Field(
        default="auto",
        description="What is learnt from; auto: the better one by cross-validation up to 2,000 examples, else words.",
    )
    abstain_below: float = Field(default=0.5, ge=0, le=1, description="Abstain where the best probability is lower.")
    top: int = Field(default=5, ge=1, le=MAX_LABELS, description="How many labels to give with each text.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="For the split; the same seed gives the same answer.")

    @model_validator(mode="after")
    def _one_way(self) -> "Input":
        if sum((bool(self.labels), bool(self.examples), self.model is not None)) != 1:
            raise ValueError("give exactly one of 'labels' (zero-shot), 'examples' (to learn from) and 'model'")
        if self.keep_as is not None and (not self.examples or self.features == "tfidf"):
            raise ValueError("'keep_as' needs 'examples' and features other than 'tfidf'")
        if self.labels and len({label.name for label in self.labels}) != len(self.labels):
            raise ValueError("a label's name is given twice")
        if len(self.labels) == 1:
            raise ValueError("'labels' needs at least two")
        if len({example.label for example in self.examples}) > MAX_LABELS:
            raise ValueError(f"'examples' have more than {MAX_LABELS} labels")
        if sum(len(example.text) for example in self.examples) > MAX_CHARS:
            raise ValueError(f"'examples' have more than {MAX_CHARS} characters")
        return self


class LabelScore(BaseModel):
    """A label with its probability."""

    label: str = Field(description="Name of the label.")
    p: float = Field(description="Probability, 0 to 1; over all labels they sum to 1.")


class ClassifiedText(BaseModel):
    """The answer on one text."""

    label: str | None = Field(description="The most probable label; null when abstained.")
    p: float = Field(description="Its probability, 0 to 1, also when abstained.")
    abstained: bool = Field(description="Whether p is below abstain_below.")
    scores: list[LabelScore] = Field(description="Labels by probability, best first, at most `top`.")
    truncated: bool = Field(description="Whether the sentence encoder read only the beginning.")


class HoldoutFigures(BaseModel):
    """How the trained head does on examples it did not see."""

    n: int = Field(description="Examples held out.")
    accuracy: float = Field(description="Share whose most probable label is right, 0 to 1.")
    macro_f1: float = Field(description="F1, averaged over labels.")
    log_loss_nats: float = Field(description="Mean negative log-probability of the right label.")
    ece: float = Field(description="Expected calibration error of the most probable label, 15 bins, 0 to 1.")
    auc: float = Field(description="Area under the ROC curve; mean over labels where they are more than two.")
    majority_accuracy: float = Field(description="Accuracy of always answering the commonest label.")


class Output(EngineOutput):
    """A label for each text, and how far to believe it."""

    results: list[ClassifiedText] = Field(description="One for each text, in its order.")
    calibrated: bool = Field(description="Whether the probabilities were calibrated on examples of this very task.")
    temperature: float = Field(description="By which the scores were divided.")
    holdout: HoldoutFigures | None = Field(description="Figures on held-out examples; null for zero-shot.")
    model_id: UUID | None = Field(default=None, description="Id of the kept model, to classify with again.")
    n_train: int = Field(description="Examples learnt from, without those held out and repeated ones.")
    reliable: bool = Field(description="Whether enough was held out and the head beats the commonest label.")
    warnings: list[str] = Field(description="What is uncertain.")


class Classification(Engine[Input, Output]):
    """Zero-shot or trained within the call."""

    name = "classification"
    title = "Text classification by own labels"
    method = "zero-shot-cosine"
    example = Input(
        texts=["The striker scored twice in the second half.", "Parliament passed the new budget on Friday."],
        labels=[
            LabelToChoose(name="sport", description="sports, matches, players and results"),
            LabelToChoose(name="politics", description="government, elections, parliament and laws"),
            LabelToChoose(name="cooking", description="recipes, ingredients and kitchens"),
        ],
    )
    needs = (TEXT_EMBEDDING,)
    timeout_s = 600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Classify. Raises InvalidInput for too few examples, NotFound, ModelUnavailable without a sentence encoder."""
        if payload.model is not None:
            return await _by_kept(payload.model, payload, ctx)
        return await _trained(payload, ctx) if payload.examples else await _zero_shot(payload, ctx)

    async def post_swap_test(self) -> None:
        """The example's goals are sport, its budget is politics."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if [result.scores[0].label for result in answer.results] != ["sport", "politics"]:
            raise ModelUnavailable("the classification engine misjudges its own example")


async def _zero_shot(payload: Input, ctx: EngineContext) -> Output:
    told = [f"{label.name}: {label.description}" if label.description else label.name for label in payload.labels]
    labels, _, model = await _embedded(told, ctx, share=0.2)
    vectors, cut, model = await _embedded(payload.texts, ctx, share=1.0)
    p = softmax(np.asarray(vectors @ labels.T, np.float64), temperature=ZERO_SHOT_TEMPERATURE)
    return Output(
        method="zero-shot-cosine",
        models=[model],
        results=_results([label.name for label in payload.labels], p, cut, payload),
        calibrated=False,
        temperature=ZERO_SHOT_TEMPERATURE,
        holdout=None,
        n_train=0,
        reliable=False,
        warnings=["zero-shot: the probabilities are not calibrated for these labels; give examples to learn from"],
    )


async def _trained(payload: Input, ctx: EngineContext) -> Output:
    warnings: list[str] = []
    texts, labels = _distinct(payload.examples, warnings)
    _check(labels)
    by_vector = payload.features == "embedding" or payload.keep_as is not None
    if by_vector and len(texts) > MAX_EMBEDDED:
        raise InvalidInput(f"'embedding' learns from at most {MAX_EMBEDDED} examples, not {len(texts)}")
    heads: list[TextHead] = []
    models: list[str] = []
    if not by_vector:
        heads.append(await asyncio.to_thread(text_head.train, texts, labels, seed=payload.seed))
    if by_vector or (payload.features == "auto" and len(texts) <= MAX_EMBEDDED):
        vectors, _, model = await _embedded(texts, ctx, share=0.8)
        models.append(model)
        heads.append(await asyncio.to_thread(text_head.train, texts, labels, vectors=vectors, seed=payload.seed))
    head = min(heads, key=lambda h: h.cv_log_loss)
    asked, cut = None, [False] * len(payload.texts)
    if head.features == "embedding":
        asked, cut, _ = await _embedded(payload.texts, ctx, share=1.0)
    p = await asyncio.to_thread(head.predict, payload.texts, asked)
    warnings += _doubts(head)
    enough = head.heldout.n >= MIN_HELD_OUT
    answer = Output(
        method=f"logistic-{head.features}",
        models=models if head.features == "embedding" else [],
        results=_results(head.labels, p, cut, payload),
        calibrated=enough and head.heldout.ece <= HIGH_ECE,
        temperature=round(head.temperature, 4),
        holdout=_told(head),
        n_train=head.n_train,
        reliable=enough and head.heldout.accuracy > head.heldout.majority_accuracy,
        warnings=warnings,
    )
    if payload.keep_as is not None:
        answer.model_id = await _keep(payload.keep_as, head, answer, ctx)
    return answer


async def _keep(name: str, head: TextHead, answer: Output, ctx: EngineContext) -> UUID:
    told = answer.model_dump(mode="json", include={"method", "calibrated", "temperature", "holdout", "n_train"})
    card = {
        **told,
        "labels": list(head.labels),
        "embedding_model": answer.models[0],
        "reliable": answer.reliable,
        "warnings": answer.warnings,
    }
    graph = await asyncio.to_thread(text_head.exported, head)
    return (await ctx.trained.keep(name=name, kind=KIND, card=card, graph=graph)).id


async def _by_kept(model_id: UUID, payload: Input, ctx: EngineContext) -> Output:
    """By a head that an earlier call kept, over the vectors it was trained on."""
    model = await ctx.trained.get(model_id)
    if model.kind != KIND:
        raise InvalidInput(f"the model {model_id} does not classify texts: it is a {model.kind}")
    card: Mapping[str, Any] = model.card
    vectors, cut, encoder = await _embedded(payload.texts, ctx, share=1.0, encoder_id=card["embedding_model"])
    told = await ctx.trained.run(model, {"vectors": np.asarray(vectors, np.float32)})
    return Output(
        method=card["method"],
        models=[encoder, str(model.id)],
        results=_results(card["labels"], np.asarray(told["probabilities"], np.float64), cut, payload),
        calibrated=card["calibrated"],
        temperature=card["temperature"],
        holdout=HoldoutFigures.model_validate(card["holdout"]),
        model_id=model.id,
        n_train=card["n_train"],
        reliable=card["reliable"],
        warnings=[f"when trained: {warning}" for warning in card["warnings"]],
    )


def _distinct(examples: Sequence[LabelledText], warnings: list[str]) -> tuple[list[str], list[str]]:
    """Each text once: a repeated one would be learnt and held out at once."""
    first: dict[str, LabelledText] = {}
    contradicting = 0
    for example in examples:
        kept = first.setdefault(" ".join(example.text.casefold().split()), example)
        contradicting += kept.label != example.label
    if len(first) < len(examples):
        warnings.append(f"{len(examples) - len(first)} repeated examples left out")
    if contradicting:
        warnings.append(f"{contradicting} examples repeat a text with another label: the first label counts")
    return [example.text for example in first.values()], [example.label for example in first.values()]


def _check(labels: Sequence[str]) -> None:
    try:
        text_head.check_counts(labels)
    except TooFewExamples as error:
        problem = {"loc": ["body", "examples"], "msg": str(error), "type": "too_few_examples"}
        raise InvalidInput(str(error), hint="without examples give 'labels' for zero-shot", errors=[problem]) from error


def _doubts(head: TextHead) -> list[str]:
    found, held = [], head.heldout
    if held.n < MIN_HELD_OUT:
        found.append(f"only {held.n} examples held out: the figures say little below {MIN_HELD_OUT}")
    if held.accuracy <= held.majority_accuracy:
        found.append("no better on held-out examples than always answering the commonest label")
    if held.ece > HIGH_ECE:
        found.append(f"calibration error {held.ece:.2f} on held-out examples")
    return found


def _told(head: TextHead) -> HoldoutFigures:
    held = head.heldout
    return HoldoutFigures(
        n=held.n,
        accuracy=round(held.accuracy, 4),
        macro_f1=round(held.macro_f1, 4),
        log_loss_nats=round(held.log_loss, 4),
        ece=round(held.ece, 4),
        auc=round(held.auc, 4),
        majority_accuracy=round(held.majority_accuracy, 4),
    )


async def _embedded(
    texts: Sequence[str], ctx: EngineContext, *, share: float, encoder_id: str | None = None
) -> tuple[Floats, list[bool], str]:
    """Sentence vectors [n, dim], whether each text was cut, and the encoder; progress goes up to `share`."""
    vectors, cut = [], list[bool]()
    async with ctx.models.lease(TEXT_EMBEDDING.named(encoder_id)) as encoder:
        for at in range(0, len(texts), _BATCH):
            found = await encoder.encode(texts[at : at + _BATCH])
            vectors.append(found.vectors)
            cut += [tokens >= encoder.max_tokens for tokens in found.tokens]
            await ctx.progress("classification", share * min(1.0, (at + _BATCH) / len(texts)))
        return np.concatenate(vectors), cut, encoder.model_id


def _results(labels: Sequence[str], p: Doubles, cut: Sequence[bool], payload: Input) -> list[ClassifiedText]:
    found = []
    for row, truncated in zip(p, cut, strict=True):
        order = np.argsort(-row, kind="stable")[: payload.top]
        scores = [LabelScore(label=labels[i], p=round(float(row[i]), 4)) for i in order]
        abstained = float(row.max()) < payload.abstain_below
        found.append(
            ClassifiedText(
                label=None if abstained else scores[0].label,
                p=scores[0].p,
                abstained=abstained,
                scores=scores,
                truncated=truncated,
            )
        )
    return found
