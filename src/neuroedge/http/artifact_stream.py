"""An artifact that is made while its caller listens: progress as server-sent events, the artifact as the last one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from fastapi import Request
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.ports import Progress
from neuroedge.http.artifact_schemas import ArtifactFull
from neuroedge.http.schemas import Failure
from neuroedge.services.artifact_versions import Detail

log = structlog.get_logger(__name__)
Work = Callable[[Progress], Awaitable[Detail]]


def wants_events(request: Request) -> bool:
    """Whether the caller asked for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


def streamed(work: Work) -> EventSourceResponse:
    """`progress` events, then `ready` with the artifact or `failed` with the error; leaving cancels the work."""
    return EventSourceResponse(_events(work), ping=15)


async def _events(work: Work) -> AsyncIterator[dict[str, Any]]:
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def tell(stage: str, fraction: float, **data: Any) -> None:
        told.put_nowait({"stage": stage, "fraction": round(fraction, 3), "characters": data.get("characters", 0)})

    async def run() -> Detail:
        try:
            return await work(tell)
        finally:
            told.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (data := await told.get()) is not None:
            yield {"event": "progress", "data": json.dumps(data)}
        yield await _end(task)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _end(task: "asyncio.Task[Detail]") -> dict[str, Any]:
    try:
        return {"event": "ready", "data": ArtifactFull.of_detail(await task).model_dump_json()}
    except NeuroEdgeError as error:
        failure = Failure(code=error.code, detail=error.detail, hint=error.hint)
    except Exception:
        # The answer has begun: this is the only place left to tell.
        log.exception("artifact_stream_failed")
        failure = Failure(code="internal", detail="an unexpected error; its log line has the request's id")
    return {"event": "failed", "data": failure.model_dump_json()}
