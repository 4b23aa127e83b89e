"""The HTTP application: lifespan, middleware, routes, dialects."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http import anthropic, engine_api, mcp, openai, problems
from neuroedge.http.anthropic import messages
from neuroedge.http.dialects import (
    aivo_federated,
    aivo_ml,
    aivo_speech,
    localai,
    nemo,
    neuroedge,
    neuroedge_models,
    shikshasetu,
    shikshasetu_batch,
    shikshasetu_content,
    yourever,
)
from neuroedge.http.middleware import DirectRoute, RequestEnvelope
from neuroedge.http.openai import (
    audio,
    audio_speech,
    chat_completions,
    completions,
    embeddings,
    files,
    moderations,
    realtime,
    rerank,
    responses,
)
from neuroedge.http.openai import models as openai_models
from neuroedge.http.platform import Platform
from neuroedge.http.routes import (
    admin,
    api_keys,
    artifacts,
    auth,
    batches,
    chat,
    divisions,
    documents,
    engines,
    federations,
    images,
    index,
    keys,
    knowledge,
    learners,
    live,
    memories,
    models,
    privacy,
    providers,
    recommenders,
    recordings,
    reviews,
    safety,
    sessions,
    speech,
    system,
    tasks,
    trained,
    usage,
    voices,
)
from neuroedge.http.routes import settings as organisation_settings
from neuroedge.settings import Settings

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, text in {
        401: "No valid access token",
        402: "What may be spent on language models is spent",
        403: "The token lacks the permission",
        404: "No such thing in the caller's organisation",
        409: "Contradicts what is stored",
        408: "Not finished within its time limit",
        413: "Larger than the limit",
        415: "Not in a form this route takes",
        422: "The input breaks the contract",
        429: "Too many requests; Retry-After says when",
        502: "A provider of language models does not answer as it should",
        503: "A part NeuroEdge depends on does not answer",
    }.items()
}


_OURS: Final = (
    auth,
    recordings,
    voices,
    speech,
    tasks,
    batches,
    documents,
    artifacts,
    images,
    knowledge,
    learners,
    recommenders,
    federations,
    memories,
    sessions,
    chat,
    divisions,
    models,
    trained,
    nemo,
    localai,
    neuroedge,
    neuroedge_models,
    yourever,
    aivo_federated,
    aivo_ml,
    aivo_speech,
    privacy,
    safety,
    reviews,
    keys,
    index,
    providers,
    usage,
    organisation_settings,
    admin,
    mcp,
    api_keys,
)
"""Modules with a `router` whose errors are problems."""
_OTHERS: Final = (
    system,
    live,
    realtime,
    shikshasetu,
    shikshasetu_batch,
    shikshasetu_content,
    embeddings,
    moderations,
    rerank,
    audio,
    audio_speech,
    files,
    openai_models,
)
"""Those whose routes say themselves how they fail: in another API's form, over WebSockets, or not at all."""


def create_app(settings: Settings, open_platform: Callable[[], AbstractAsyncContextManager[Platform]]) -> FastAPI:
    """The application; building it starts nothing, its lifespan opens the platform."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.platform = await stack.enter_async_context(open_platform())
            except NeuroEdgeError as error:
                # The command shows it in two lines; uvicorn would log a stack trace.
                app.state.startup_error = error
                logging.getLogger("uvicorn.error").disabled = True
                raise
            if (on_ready := getattr(app.state, "on_ready", None)) is not None:
                on_ready()
            yield

    # Its API pages bring their scripts along: a server without internet shows them too.
    app = FastAPIOffline(
        title="NeuroEdge",
        version=version("neuroedge"),
        description="One self-hosted AI backend: it hears, remembers and answers, for many tenants.",
        lifespan=lifespan,
    )
    app.add_middleware(DirectRoute, path=engine_api.RUN_PATH, endpoint=engines.run)
    app.add_middleware(DirectRoute, path=chat_completions.PATH, endpoint=chat_completions.complete)
    app.add_middleware(
        RequestEnvelope,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        refusals={**openai.REFUSALS, **anthropic.REFUSALS, **shikshasetu.REFUSALS, **shikshasetu_content.REFUSALS},
    )
    problems.install(app)
    # First: routes are looked through in their order, and engine calls are the many.
    app.include_router(engines.build_router(), responses=_PROBLEMS)
    for ours in _OURS:
        app.include_router(ours.router, responses=_PROBLEMS)
    for theirs in _OTHERS:
        app.include_router(theirs.router)
    for built in (chat_completions, completions, responses, messages):
        app.include_router(built.build_router())
    engine_api.document(app)
    _document_problem(app)
    return app


def _document_problem(app: FastAPI) -> None:
    """Put the Problem schema, which no route returns by its type, into OpenAPI."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        schema["components"]["schemas"].setdefault("Problem", problems.Problem.model_json_schema())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
