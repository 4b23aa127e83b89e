"""Who may call a route: the parameter's type is the access rule.

Reader   any member of an organisation
Writer   a member who may change things
Runner   a member who may run engines
Operator the operator of the whole installation

Dependencies are coroutines though they wait for nothing: FastAPI would run a plain function in a thread, each time.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from neuroedge.contract.errors import Forbidden, Unauthenticated
from neuroedge.contract.principal import READ, RUN_ENGINES, WRITE, Principal
from neuroedge.http.platform import Platform

_bearer = HTTPBearer(auto_error=False, description="Access token of POST /auth/login.")


def platform_of(request: Request) -> Platform:
    """The platform the application runs on."""
    platform: Platform = request.app.state.platform
    return platform


def request_id_of(request: Request) -> str:
    """The id of this request, as X-Request-ID gives it back."""
    return str(request.scope["request_id"])


async def _platform(request: Request) -> Platform:
    return platform_of(request)


async def _request_id(request: Request) -> str:
    return request_id_of(request)


ThePlatform = Annotated[Platform, Depends(_platform)]
RequestId = Annotated[str, Depends(_request_id)]


async def current_principal(
    request: Request,
    platform: ThePlatform,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """The caller of the bearer token. Raises Unauthenticated."""
    if credentials is None:
        raise Unauthenticated("this route needs an access token", hint="send 'Authorization: Bearer <token>'")
    principal = platform.tokens.read(credentials.credentials)
    request.scope["tenant_id"] = str(principal.org_id)
    return principal


class Requires:
    """A dependency that gives the caller when it holds a permission. Raises Forbidden."""

    def __init__(self, permission: str) -> None:
        self._permission = permission

    async def __call__(self, principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
        """The caller."""
        if not principal.may(self._permission):
            raise Forbidden(f"this needs the permission {self._permission}")
        return principal


Reader = Annotated[Principal, Depends(Requires(READ))]
Writer = Annotated[Principal, Depends(Requires(WRITE))]
Runner = Annotated[Principal, Depends(Requires(RUN_ENGINES))]


async def operator(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
    """The caller when it is the operator of the installation; an organisation's own admin is not. Raises Forbidden."""
    if not principal.admin:
        raise Forbidden("this is for operators of the installation", hint="neuroedge users create --admin makes one")
    return principal


Operator = Annotated[Principal, Depends(operator)]
