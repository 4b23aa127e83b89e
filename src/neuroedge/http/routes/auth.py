"""/auth: register, login, refresh, logout."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, EmailStr, Field, StringConstraints

from neuroedge.http.auth import Reader, RequestId, ThePlatform
from neuroedge.services.accounts import TokenPair

router = APIRouter(prefix="/auth", tags=["auth"])

Username = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9._-]{3,64}$")]
Password = Annotated[str, StringConstraints(min_length=8, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RegisterIn(_Body):
    """A new account."""

    username: Username = Field(description="3 to 64 letters, digits, '.', '_' or '-'.")
    email: EmailStr
    password: Password = Field(description="8 to 256 characters.")


class UserOut(BaseModel):
    """A user in an organisation."""

    user_id: UUID
    tenant: UUID = Field(description="The organisation the user acts in.")
    username: str
    role: str


class MeOut(UserOut):
    """The caller as its token says."""

    permissions: list[str]
    admin: bool


class LoginIn(_Body):
    """A user name or email, and the password."""

    username: str = Field(min_length=1, max_length=320)
    password: str = Field(min_length=1, max_length=256)


class RefreshIn(_Body):
    """A refresh token; it works once."""

    refresh_token: str = Field(min_length=1, max_length=512)


class TokensOut(BaseModel):
    """Access and refresh token."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Life of the access token, seconds.")
    user: UserOut

    @classmethod
    def of(cls, pair: TokenPair) -> "TokensOut":
        """From what a login hands out."""
        caller = pair.principal
        return cls(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in=pair.expires_in_s,
            user=UserOut(user_id=caller.user_id, tenant=caller.org_id, username=caller.username, role=caller.role),
        )


_NAMES_PER_ADDRESS = 10
"""An address may try that many names' worth of logins: gateways have many users, sprayers try many names."""


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


@router.post("/register", status_code=201, summary="Register a user with an organisation of their own")
async def register(body: RegisterIn, request: Request, platform: ThePlatform, request_id: RequestId) -> UserOut:
    """Make a user who owns a new organisation; 403 when the operator has switched self-registration off."""
    await platform.limits.hit(f"{platform.settings.login_attempts_per_minute}/minute", "register", _address(request))
    caller = await platform.accounts.register(
        username=body.username, email=body.email, password=body.password, request_id=request_id
    )
    return UserOut(user_id=caller.user_id, tenant=caller.org_id, username=caller.username, role=caller.role)


@router.post("/login", summary="Log in")
async def login(body: LoginIn, request: Request, platform: ThePlatform, request_id: RequestId) -> TokensOut:
    """Exchange user name (or email) and password for tokens."""
    allowed = platform.settings.login_attempts_per_minute
    await platform.limits.hit(f"{allowed * _NAMES_PER_ADDRESS}/minute", "login", _address(request))
    await platform.limits.hit(f"{allowed}/minute", "login", body.username.lower(), _address(request))
    pair = await platform.accounts.login(login=body.username, password=body.password, request_id=request_id)
    return TokensOut.of(pair)


@router.post("/refresh", summary="Exchange a refresh token")
async def refresh(body: RefreshIn, platform: ThePlatform, request_id: RequestId) -> TokensOut:
    """New tokens for a refresh token, once: using it again ends the whole login."""
    return TokensOut.of(await platform.accounts.refresh(body.refresh_token, request_id=request_id))


@router.post("/logout", status_code=204, summary="End a login")
async def logout(body: RefreshIn, platform: ThePlatform, request_id: RequestId) -> Response:
    """End every refresh token of this login; access tokens run out by themselves."""
    await platform.accounts.logout(body.refresh_token, request_id=request_id)
    return Response(status_code=204)


@router.get("/me", summary="Who am I")
async def me(principal: Reader) -> MeOut:
    """The caller as the token says."""
    return MeOut(
        user_id=principal.user_id,
        tenant=principal.org_id,
        username=principal.username,
        role=principal.role,
        permissions=sorted(principal.permissions),
        admin=principal.admin,
    )
