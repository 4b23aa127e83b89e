"""Models that organisations train on their own tables: what is told of them, and the ports that keep and run them.

A stored model's card is a `TrainedOut` with its holdout figures and warnings.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import NotFound, Unavailable

MAX_TABLE_BYTES: Final = 16 << 20
TableTask = Literal["classification", "regression", "clusters", "topics"]


class TableSource(BaseModel):
    """Where the table lies: exactly one of csv, base64 and blob."""

    model_config = ConfigDict(extra="forbid")

    csv: str | None = Field(
        default=None, max_length=MAX_TABLE_BYTES, description="A CSV text; its first line names the columns."
    )
    base64: str | None = Field(
        default=None, max_length=MAX_TABLE_BYTES * 4 // 3 + 4, description="The file's bytes in base64."
    )
    blob: str | None = Field(
        default=None, max_length=512, description="Key of an object in the caller's blob storage, files/<id>/content."
    )
    format: Literal["csv", "parquet"] = Field(default="csv", description="Of base64 and blob. CSV is UTF-8.")
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="Between the cells of CSV.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "TableSource":
        if sum(given is not None for given in (self.csv, self.base64, self.blob)) != 1:
            raise ValueError("give exactly one of 'csv', 'base64' and 'blob'")
        return self


class HoldoutFigure(BaseModel):
    """A figure on held-out rows with its 95 % bootstrap interval, beside the baseline's on the same rows."""

    name: str = Field(description="accuracy, macro_f1, log_loss (nats); r2, mae (the target's unit); silhouette.")
    value: float = Field(description="On all held-out rows.")
    low: float = Field(description="Lower end of the interval.")
    high: float = Field(description="Upper end of the interval.")
    baseline: float = Field(description="The baseline's value.")


class Holdout(BaseModel):
    """How good the model is on rows it never saw."""

    rows: int = Field(description="Rows held out.")
    baseline: str = Field(description="What the figures are compared with.")
    figures: list[HoldoutFigure] = Field(description="The first one decides.")
    better_low: float = Field(description="How much better than the baseline by the first figure: lower 95 % bound.")
    better_high: float = Field(description="Likewise, upper bound.")


class CurvePoint(BaseModel):
    """A pass over the training rows."""

    epoch: int = Field(description="From 1.")
    train_loss: float = Field(description="Mean loss over the training rows during the pass.")
    validation_loss: float = Field(description="Loss on the validation part after it.")


class FeatureOut(BaseModel):
    """A column the model reads."""

    name: str = Field(description="The column.")
    kind: Literal["number", "text"] = Field(description="How it is read.")
    values: list[str] = Field(description="Of a text column: the values that are told apart.")


class TopicOut(BaseModel):
    """A topic of the texts."""

    words: list[str] = Field(description="Its strongest words.")
    share: float = Field(description="Share of the texts of which it is the strongest topic.")
    npmi: float = Field(description="How often its words stand in the same texts, -1 to 1.")


class TrainedOut(BaseModel):
    """What was trained."""

    task: TableTask = Field(description="As ordered.")
    rows: int = Field(description="Rows of the table.")
    used_rows: int = Field(description="Rows with a target.")
    features: list[FeatureOut] = Field(description="Columns the model reads.")
    classes: list[str] = Field(default_factory=list, description="Of a classification.")
    curve: list[CurvePoint] = Field(default_factory=list, description="The learning curve, at most 100 points.")
    best_epoch: int | None = Field(default=None, description="The pass whose weights the model has.")
    clusters: list[int] = Field(default_factory=list, description="Training rows of each cluster.")
    topics: list[TopicOut] = Field(default_factory=list, description="By share.")
    onnx_parity: float | None = Field(default=None, description="Largest difference of the ONNX graph's answers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that the caller's organisation trained."""

    id: UUID
    name: str
    kind: str
    card: Mapping[str, Any]
    """What it reads and gives, what it was trained on, how good it was on rows it had not seen."""
    bytes: int
    sha256: str
    """Of its ONNX graph."""
    created_at: datetime


class OnnxGraphs(Protocol):
    """Runs graphs of organisations' own models."""

    async def run(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a graph that is not kept. Raises ModelFailed, Overloaded."""
        ...

    async def run_kept(
        self, key: str, graph: Callable[[], Awaitable[bytes]], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Likewise, of the graph of a key, asked for where no session of it is open."""
        ...

    def forget(self, key: str) -> None:
        """Close the session of a key; none is fine."""
        ...


class TrainedModels(Protocol):
    """Models that the caller's organisation trained, kept and run."""

    async def keep(self, *, name: str, kind: str, card: Mapping[str, Any], graph: bytes) -> TrainedModel:
        """Store a model. Raises Conflict when the organisation has too many."""
        ...

    async def get(self, model_id: UUID) -> TrainedModel:
        """One of the organisation's. Raises NotFound."""
        ...

    async def run(self, model: TrainedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a stored model. Raises NotFound, ModelFailed, Overloaded."""
        ...

    async def try_out(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a graph that is not stored. Raises ModelFailed, Overloaded."""
        ...


class NoTrainedModels:
    """The TrainedModels of nobody in particular."""

    async def keep(self, *, name: str, kind: str, card: Mapping[str, Any], graph: bytes) -> TrainedModel:
        """Nowhere to keep it."""
        raise Unavailable("models cannot be kept here")

    async def get(self, model_id: UUID) -> TrainedModel:
        """None."""
        raise NotFound(f"there is no trained model {model_id}")

    async def run(self, model: TrainedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Nothing to run it with."""
        raise Unavailable("models cannot be run here")

    async def try_out(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Nothing to run it with."""
        raise Unavailable("models cannot be run here")
