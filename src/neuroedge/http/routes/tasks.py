"""/v1/tasks: any engine as a durable background task: submit, list, follow, read, cancel, run anew, delete."""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.models import Priority
from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.schemas import Failure
from neuroedge.services.tasks import MAX_DELAY_S, Order
from neuroedge.stores.tasks import State, Task

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


def _text(value: object) -> object:
    """Only text: a bare number would be read as seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("give an ISO 8601 time with its offset, for example 2030-01-31T08:00:00Z")
    return value


class TaskIn(BaseModel):
    """An engine call to run in the background."""

    model_config = ConfigDict(extra="forbid")

    engine: str = Field(description="Name of the engine.", examples=["embedding"])
    payload: dict[str, Any] = Field(description="The engine's input, at most 1 MiB of JSON.")
    priority: Priority = Field(default="normal", description="Who goes first when several tasks wait.")
    run_at: Annotated[AwareDatetime, BeforeValidator(_text)] | None = Field(
        default=None, description="Start no sooner than this (ISO 8601 with offset); now when not given."
    )
    delay_s: float | None = Field(
        default=None, ge=0, le=MAX_DELAY_S, allow_inf_nan=False, description="In place of run_at: seconds from now."
    )
    max_attempts: int = Field(default=3, ge=1, le=10, description="Runs that may fail before the task is dead.")
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Longest run in seconds, where that is less than the engine's own.",
    )


class TaskOut(BaseModel):
    """A task and where it stands."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    engine: str
    state: State = Field(
        description="failed: a mistake of the caller's, not tried again; dead: tried in vain as often as allowed."
    )
    priority: Priority
    attempts: int = Field(description="Runs begun.")
    errors: int = Field(description="Runs that failed, of max_attempts.")
    max_attempts: int
    interrupted: int = Field(description="Runs cut off by a stop or crash of the worker; these are resumed.")
    stage: str | None = Field(default=None, description="What the engine does now, in its own words.")
    fraction: float | None = Field(default=None, description="How much of the stage is done, 0 to 1.")
    error: Failure | None = Field(default=None, description="Of the last run that failed.")
    timeout_s: float | None = None
    created_at: datetime
    next_run_at: datetime | None = Field(default=None, description="When a waiting task may start.")
    started_at: datetime | None = Field(default=None, description="Begin of the last run.")
    finished_at: datetime | None = None

    @classmethod
    def of(cls, task: Task) -> "TaskOut":
        """From the stored row."""
        out = cls.model_validate(task)
        if task.error_code is not None:
            out.error = Failure(code=task.error_code, detail=task.error_detail or "", hint=task.error_hint)
        return out


class TaskPage(BaseModel):
    """Tasks, newest first."""

    tasks: list[TaskOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class TaskResult(BaseModel):
    """What the engine answered."""

    id: UUID
    engine: str
    result: dict[str, Any] = Field(description="The engine's output.")


IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="A name of your choice for this request: sent again, it gives the task made the first time.",
    ),
]


@router.post("", status_code=202, summary="Run an engine in the background")
async def submit(
    body: TaskIn,
    response: Response,
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> TaskOut:
    """Check the payload, keep the task, and run it as soon as a worker is free; it survives restarts and crashes."""
    task = await platform.tasks.submit(
        Order(**dict(body)), principal=principal, request_id=request_id, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/v1/tasks/{task.id}"
    return TaskOut.of(task)


@router.get("", summary="List tasks")
async def list_tasks(
    principal: Reader,
    platform: ThePlatform,
    state: Annotated[State | None, Query(description="`dead`: the dead letter list.")] = None,
    engine: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> TaskPage:
    """The organisation's tasks, newest first."""
    found = await platform.tasks.list(principal, limit=limit + 1, before=before, state=state, engine=engine)
    page = found[:limit]
    return TaskPage(tasks=[TaskOut.of(task) for task in page], next=page[-1].id if len(found) > limit else None)


@router.get("/{task_id}", summary="Read a task")
async def read(task_id: UUID, principal: Reader, platform: ThePlatform) -> TaskOut:
    """A task's state, attempts, progress and last error."""
    return TaskOut.of(await platform.tasks.get(principal, task_id))


@router.get(
    "/{task_id}/result",
    summary="Read a task's result",
    response_model=TaskResult,
    responses={409: {"description": "Not finished, or cancelled"}},
)
async def result(task_id: UUID, principal: Reader, platform: ThePlatform) -> Response:
    """The engine's output; 409 while there is none; of a failed or dead task the error it ended with."""
    task, data = await platform.tasks.result(principal, task_id)
    head = json.dumps({"id": str(task.id), "engine": task.engine})
    # The stored JSON goes out as it is: megabytes of it need no parsing on the way.
    return Response(head[:-1].encode() + b', "result": ' + data + b"}", media_type="application/json")


@router.post("/{task_id}/cancel", summary="Cancel a task")
async def cancel(task_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> TaskOut:
    """End a task that waits or runs; what a cancelled run still brings is dropped."""
    return TaskOut.of(await platform.tasks.cancel(principal, task_id, request_id=request_id))


@router.post("/{task_id}/retry", status_code=202, summary="Run a failed task anew")
async def retry(task_id: UUID, principal: Runner, platform: ThePlatform, request_id: RequestId) -> TaskOut:
    """Queue a failed, dead or cancelled task again, with all its attempts."""
    return TaskOut.of(await platform.tasks.retry(principal, task_id, request_id=request_id))


@router.delete("/{task_id}", status_code=204, summary="Delete a task")
async def delete(task_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete a finished task with its result."""
    await platform.tasks.delete(principal, task_id, request_id=request_id)
    return Response(status_code=204)


@router.get("/{task_id}/events", summary="Follow a task's progress (SSE)", response_class=EventSourceResponse)
async def events(
    task_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events: `queued`, `started`, `progress`, `retrying`, `interrupted`, then `succeeded`, `failed`,
    `dead`, `cancelled` or `deleted`; earlier ones are sent first."""
    followed = await platform.task_progress.follow(principal, task_id, after=last_event_id)
    return sse.answer(followed, request)
