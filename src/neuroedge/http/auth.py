"""Who may call a route: the parameter's type is the access rule.

Reader   any member of an organisation
Writer   a member who may change things
Runner   a member who may run engines
Operator the operator of the whole installation

Dependencies are coroutines though they wait for nothing: FastAPI would run a plain function in a thread, each time.
"""

from typing import Annotated

from fastapi import Depends, Request, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from neuroedge.contract.errors import Forbidden, NeuroEdgeError, Unauthenticated
from neuroedge.contract.principal import READ, RUN_ENGINES, WRITE, Principal
from neuroedge.http.platform import Platform
from neuroedge.services import callers
from neuroedge.services.callers import ENGINE_CALLS

bearer = HTTPBearer(auto_error=False, description="Access token of POST /auth/login, or an API key (sk-ne-…).")


def platform_of(request: HTTPConnection) -> Platform:
    """The platform the application runs on."""
    platform: Platform = request.app.state.platform
    return platform


def request_id_of(request: HTTPConnection) -> str:
    """The id of this request, as X-Request-ID gives it back."""
    return str(request.scope["request_id"])


async def _platform(request: Request) -> Platform:
    return platform_of(request)


async def _request_id(request: Request) -> str:
    return request_id_of(request)


ThePlatform = Annotated[Platform, Depends(_platform)]
RequestId = Annotated[str, Depends(_request_id)]


async def current_principal(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Principal:
    """The caller of the bearer token or API key. Raises Unauthenticated, Overloaded, Unavailable."""
    return caller(request)


async def principal_of(platform: Platform, token: str, *, address: str) -> Principal:
    """Whom an access token or an API key names; see `callers.principal_of`."""
    return await callers.principal_of(token, tokens=platform.tokens, api_keys=platform.api_keys, address=address)


def caller(request: HTTPConnection) -> Principal:
    """The caller of the bearer token or API key, for code without dependencies.

    Raises Unauthenticated; for an API key also Overloaded after many wrong ones, and Unavailable.
    """
    # The middleware (http/middleware.py) has read it already.
    principal: Principal | None = request.scope.get("principal")
    if principal is not None:
        return principal
    error: NeuroEdgeError | None = request.scope.get("caller_error")
    raise error or Unauthenticated(
        "this route needs an access token or an API key", hint="send 'Authorization: Bearer <token>'"
    )


class Requires:
    """A dependency that gives the caller when it holds a permission. Raises Forbidden."""

    def __init__(self, permission: str) -> None:
        self._permission = permission

    async def __call__(self, principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
        """The caller."""
        return self.granted(principal)

    def granted(self, principal: Principal) -> Principal:
        """The caller, for code without dependencies."""
        if not principal.may(self._permission):
            raise Forbidden(f"this needs the permission {self._permission}")
        return principal


class RequiresCall(Requires):
    """`Requires` for engine calls, each of which counts against the organisation's rate limit. Raises Overloaded."""

    async def __call__(  # type: ignore[override]
        self, request: Request, principal: Annotated[Principal, Depends(current_principal)]
    ) -> Principal:
        """The caller."""
        self.granted(principal)
        await _count_call(request, principal)
        return principal


async def _count_call(request: HTTPConnection, principal: Principal) -> None:
    """Take one of the organisation's calls; the middleware puts its standing on the answer."""
    platform = platform_of(request)
    per_minute = platform.settings.requests_per_minute
    quota = await callers.spend(platform.limits, ENGINE_CALLS, per_minute, principal)
    request.scope["quota"] = quota
    callers.granted(quota, ENGINE_CALLS)


_runner = RequiresCall(RUN_ENGINES)
Reader = Annotated[Principal, Depends(Requires(READ))]
Writer = Annotated[Principal, Depends(Requires(WRITE))]
Runner = Annotated[Principal, Depends(_runner)]


async def engine_caller(request: Request) -> Principal:
    """What the parameter type Runner gives, for a route without dependencies.

    Raises Unauthenticated, Forbidden, Overloaded.
    """
    return await _runner(request, caller(request))


async def socket_caller(websocket: WebSocket, token: str | None = None) -> Principal:
    """What the parameter type Runner gives, for a WebSocket: by its headers, or by a token that came another way.

    Raises Unauthenticated, Forbidden, Overloaded, Unavailable.
    """
    if token is None:
        principal = caller(websocket)
    else:
        client = websocket.client
        principal = await principal_of(platform_of(websocket), token, address=client.host if client else "unknown")
    _runner.granted(principal)
    await _count_call(websocket, principal)
    return principal


async def operator(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
    """The caller when it is the operator of the installation; an organisation's own admin is not. Raises Forbidden."""
    if not principal.admin:
        raise Forbidden("this is for operators of the installation", hint="neuroedge users create --admin makes one")
    return principal


Operator = Annotated[Principal, Depends(operator)]
