"""An application over a platform that has engines and nothing else: no database, no cache, no models."""

from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter, FastAPI

from neuroedge.contract.engine import Engine
from neuroedge.executors.local import LocalExecutor
from neuroedge.http import engine_api, problems
from neuroedge.http.middleware import RequestEnvelope
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.services.engines import Registry
from neuroedge.services.run_engine import validate
from tests.fakes import SystemClock, make_context


class NoLimits:
    """Rate limits that are switched off."""

    async def spend(self, per_minute: int, *key: str) -> None:
        """Nothing is counted."""


class PlainRunner:
    """Validates and runs, as the real runner does, and accounts nothing."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._executor = LocalExecutor()

    async def run(self, name: str, payload: Any, **caller: Any) -> Any:
        """The engine's Output."""
        engine = self.registry.get(name)
        return await self._executor.run(engine, validate(engine, payload), engine.probe)


def make_app(router: APIRouter, *engines: type[Engine[Any, Any]], **more: Any) -> FastAPI:
    """The application; `more` goes to the platform."""
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(RequestEnvelope, max_body_bytes=10**7, max_upload_bytes=10**7)
    problems.install(app)
    engine_api.document(app)
    registry = Registry([cls(probe=make_context()) for cls in engines])
    tokens = AccessTokens("x" * 32)
    app.state.platform = SimpleNamespace(
        runner=PlainRunner(registry),
        tokens=tokens,
        api_keys=None,
        metrics=Metrics(),
        settings=SimpleNamespace(requests_per_minute=0),
        limits=NoLimits(),
        **more,
    )
    return app


def token(app: FastAPI, principal: Any) -> dict[str, str]:
    """Headers of a caller."""
    issued = app.state.platform.tokens.issue(principal, now=SystemClock().now(), ttl_s=600)
    return {"Authorization": f"Bearer {issued}"}
