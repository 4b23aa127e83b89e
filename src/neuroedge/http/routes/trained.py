"""/v1/models/train, /v1/trained-models, /v1/ml/predict: models that an organisation trains on its own tables."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Priority
from neuroedge.contract.principal import Principal
from neuroedge.contract.trained import TrainedModel
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.platform import Platform
from neuroedge.http.routes.tasks import TaskOut
from neuroedge.services.tasks import Order

router = APIRouter(tags=["trained models"])
_ENGINE = "deep_learning"


class TrainModelIn(BaseModel):
    """What to train, as a background task."""

    model_config = ConfigDict(extra="forbid")

    train: dict[str, Any] = Field(
        description="As `train` of the engine deep_learning's input; without `table` where `file_id` names it.",
        examples=[{"name": "churn", "task": "classification", "target": "left"}],
    )
    file_id: UUID | None = Field(default=None, description="Your file (POST /v1/files) that holds the table.")
    format: Literal["csv", "parquet"] = Field(default="csv", description="Of the file.")
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="Between the cells of CSV.")
    priority: Priority = Field(default="normal", description="Who goes first when several tasks wait.")


class TrainedModelOut(BaseModel):
    """A model that the organisation trained."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    kind: str = Field(description="classification, regression or clusters.")
    bytes: int = Field(description="Of its ONNX graph.")
    sha256: str = Field(description="Of its ONNX graph.")
    created_at: datetime


class TrainedModelCard(TrainedModelOut):
    """The same with all that is known of it."""

    card: dict[str, Any] = Field(description="Columns it reads, figures on held-out rows, learning curve, warnings.")


class TrainedModelPage(BaseModel):
    """Models, newest first."""

    models: list[TrainedModelOut]
    next: UUID | None = Field(default=None, description="Give it as `after` to get the next page.")


class MlPredictIn(BaseModel):
    """Rows for a trained model."""

    model_config = ConfigDict(extra="forbid")

    model: UUID = Field(description="Id of the trained model.")
    rows: list[dict[str, Any]] = Field(min_length=1, max_length=1000, description="Cells by column; null is missing.")


class MlPredictOut(BaseModel):
    """What the model says of each row."""

    model: UUID
    method: str
    predictions: list[dict[str, Any]] = Field(description="label and p; or value; or cluster: a row each, in order.")
    reliable: bool
    warnings: list[str]


@router.post("/v1/models/train", status_code=202, summary="Train a model on a table")
async def train(
    body: TrainModelIn, response: Response, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> TaskOut:
    """Check the order, keep it as a task, train as soon as a worker is free: follow /v1/tasks/{task_id}/events for the
    learning curve. The result names the stored model."""
    order = dict(body.train)
    if body.file_id is not None:
        if "table" in order:
            raise InvalidInput("the table is given twice", hint="either `file_id` or `train.table`")
        await platform.files.get(principal, body.file_id)  # a file is its user's alone
        blob = f"files/{body.file_id}/content"
        order["table"] = {"blob": blob, "format": body.format, "delimiter": body.delimiter}
    task = await platform.tasks.submit(
        Order(engine=_ENGINE, payload={"train": order}, priority=body.priority),
        principal=principal,
        request_id=request_id,
    )
    response.headers["Location"] = f"/v1/tasks/{task.id}"
    return TaskOut.of(task)


@router.get("/v1/trained-models", summary="List trained models")
async def list_trained(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: UUID | None = None,
) -> TrainedModelPage:
    """The organisation's, newest first."""
    found = await platform.trained.page(principal, limit=limit + 1, after=after)
    page = found[:limit]
    return TrainedModelPage(
        models=[TrainedModelOut.model_validate(model) for model in page],
        next=page[-1].id if len(found) > limit else None,
    )


@router.get("/v1/trained-models/{trained_id}", summary="Read a trained model's card")
async def read_trained(trained_id: UUID, principal: Reader, platform: ThePlatform) -> TrainedModelCard:
    """What it reads, what it was trained on, how good it is."""
    return _card(await platform.trained.get(principal, trained_id))


@router.delete("/v1/trained-models/{trained_id}", status_code=204, summary="Delete a trained model")
async def delete_trained(trained_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete it with its graph."""
    await platform.trained.delete(principal, trained_id, request_id=request_id)
    return Response(status_code=204)


@router.post("/v1/ml/predict", summary="Run a trained model")
async def predict(body: MlPredictIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> MlPredictOut:
    """The model's answer for each row."""
    return await _predicted(body, principal, platform, request_id)


@router.post("/ml/predict", tags=["NeuroEdge dialect"], summary="Run a trained model (first NeuroEdge)")
async def predict_contract(
    body: MlPredictIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> MlPredictOut:
    """As /v1/ml/predict."""
    return await _predicted(body, principal, platform, request_id)


async def _predicted(body: MlPredictIn, principal: Principal, platform: Platform, request_id: str) -> MlPredictOut:
    answer = await platform.runner.run(
        _ENGINE,
        {"predict": {"model": body.model, "rows": body.rows}},
        principal=principal,
        request_id=request_id,
    )
    told = answer.model_dump(mode="json", exclude_none=True)
    return MlPredictOut(
        model=body.model,
        method=told["method"],
        predictions=told["predictions"],
        reliable=told["reliable"],
        warnings=told["warnings"],
    )


def _card(model: TrainedModel) -> TrainedModelCard:
    return TrainedModelCard.model_validate(model)
