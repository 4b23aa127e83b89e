"""Passwords (Argon2id; bcrypt hashes still verify) and access tokens (JWT, HS256)."""

import asyncio
import hashlib
import secrets
import time
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from cachetools import LRUCache
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher

from neuroedge.contract.errors import Unauthenticated
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role

_ISSUER = "neuroedge"
_LEEWAY_S = 5
_KNOWN_TOKENS = 4096
_HASHES_AT_ONCE = 2
"""An Argon2id hash takes `memory_mib`: a burst of logins must not take the machine's memory."""


class Passwords:
    """Hashes and verifies off the event loop."""

    def __init__(self, *, memory_mib: int) -> None:
        self._hash = PasswordHash((Argon2Hasher(memory_cost=memory_mib * 1024), BcryptHasher()))
        self._slots = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """An Argon2id hash."""
        async with self._slots:
            return await asyncio.to_thread(self._hash.hash, password)

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether it matches, and a new hash when the old one's parameters are outdated.

        `hashed` None (no such user) costs the same time, so that answers don't tell which users exist.
        """
        async with self._slots:
            if hashed is None:
                if self._nobody is None:
                    self._nobody = await asyncio.to_thread(self._hash.hash, secrets.token_urlsafe())
                await asyncio.to_thread(self._hash.verify, password, self._nobody)
                return False, None
            return await asyncio.to_thread(self._hash.verify_and_update, password, hashed)


class AccessTokens:
    """Signs and reads access tokens: tenant, role, permissions, admin flag, expiry.

    A token is true until it expires, nothing ends it sooner; so one that was verified need not be verified again.
    """

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(secret)
        self._verified: LRUCache[str, tuple[Principal, int]] = LRUCache(_KNOWN_TOKENS)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": _ISSUER},
            exp={"essential": True},
            sub={"essential": True},
        )

    def issue(self, principal: Principal, *, now: datetime, ttl_s: int) -> str:
        """A token that lives `ttl_s` seconds."""
        issued = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": _ISSUER,
            "sub": str(principal.user_id),
            "tenant": str(principal.org_id),
            "username": principal.username,
            "role": principal.role,
            "permissions": sorted(principal.permissions),
            "admin": principal.admin,
            "iat": issued,
            "exp": issued + ttl_s,
        }
        return jwt.encode({"alg": "HS256"}, claims, self._key)

    def read(self, token: str) -> Principal:
        """The caller a token names. Raises Unauthenticated when it is forged, broken or expired."""
        known = self._verified.get(token)
        if known is not None and known[1] > int(time.time()) - _LEEWAY_S:  # as joserfc judges it
            return known[0]
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"]).claims
            self._claims.validate(claims)
            principal, expires_at = _principal(claims), int(claims["exp"])
        except (JoseError, ValueError, KeyError, TypeError) as error:
            self._verified.pop(token, None)
            raise Unauthenticated(
                "the access token is not valid or has expired", hint="log in, or POST /auth/refresh"
            ) from error
        self._verified[token] = principal, expires_at
        return principal


def _principal(claims: dict[str, Any]) -> Principal:
    role = cast(Role, claims["role"])
    return Principal(
        user_id=UUID(claims["sub"]),
        org_id=UUID(claims["tenant"]),
        username=claims["username"],
        role=role,
        permissions=frozenset(claims["permissions"]) & ROLE_PERMISSIONS[role],
        admin=claims["admin"] is True,
    )


def new_refresh_token(org_id: UUID) -> str:
    """`<organisation>.<random>`: the prefix tells under which tenant to look it up, the rest is the secret."""
    return f"{org_id.hex}.{secrets.token_urlsafe(32)}"


def parse_refresh_token(token: str) -> tuple[UUID, bytes]:
    """Organisation and hash of a refresh token. Raises Unauthenticated when it has another form."""
    org, dot, secret = token.partition(".")
    try:
        if not dot or not secret:
            raise ValueError
        return UUID(hex=org), hashlib.sha256(token.encode()).digest()
    except ValueError as error:
        raise Unauthenticated("the refresh token is not valid", hint="log in again") from error
