"""API keys: made, listed, revoked, and read at every request.

A key is `sk-ne-<prefix>-<secret>`: twelve characters to find it by and 256 random bits, of which only the SHA-256 is
kept (a fast hash is enough: there is nothing to guess). What was found is kept in the process for `KEPT_S` seconds, so
a revoked key, one whose user left the organisation, or whose role changed, works that long at most.
"""

import asyncio
import hashlib
import hmac
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from cachetools import LRUCache

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NeuroEdgeError, NotFound, Unauthenticated
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import MANAGE_ORG, ROLE_PERMISSIONS, Principal
from neuroedge.infra.limits import RateLimits
from neuroedge.stores import api_keys, ledgers
from neuroedge.stores.api_keys import ApiKey, KeyHolder
from neuroedge.stores.postgres import Connection, Database, bind

log = structlog.get_logger(__name__)
MARK: Final = "sk-ne-"
KEPT_S: Final = 5.0
_KNOWN: Final = 4096
_TOUCH_S: Final = 60.0
_MOST_OF_A_USER: Final = 100
_PREFIX: Final = 12
_ALPHABET: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key just made: the only time its text is there."""

    key: ApiKey
    text: str


class ApiKeys:
    """The keys of all organisations."""

    def __init__(self, *, db: Database, clock: Clock, limits: RateLimits, failures_per_minute: int) -> None:
        self._db = db
        self._clock = clock
        self._limits = limits
        self._failures = f"{failures_per_minute}/minute"
        self._known: LRUCache[str, tuple[KeyHolder, float]] = LRUCache(_KNOWN)
        self._touched: LRUCache[UUID, float] = LRUCache(_KNOWN)
        self._touching: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for what is still being written."""
        await asyncio.gather(*self._touching, return_exceptions=True)

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        scopes: Sequence[str] | None,
        models: Sequence[str] | None,
        engines: Sequence[str] | None,
        expires_at: datetime | None,
        request_id: str,
    ) -> NewKey:
        """A key of the caller; without `scopes` it may what the caller may.

        Raises Forbidden for a scope the caller has not and for a caller that is itself a key, InvalidInput, Conflict.
        """
        _no_key(principal)
        wanted = sorted(principal.permissions if scopes is None else set(scopes))
        if missing := [scope for scope in wanted if not principal.may(scope)]:
            raise Forbidden(f"you do not hold {', '.join(missing)} yourself", hint="GET /auth/me shows what you hold")
        if expires_at is not None and expires_at <= self._clock.now():
            raise InvalidInput("the key would have expired already", hint="give a later 'expires_at'")
        prefix = "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX))
        secret = secrets.token_urlsafe(32)
        async with self._db.tenant(principal) as conn:
            if await api_keys.count(conn, user_id=principal.user_id) >= _MOST_OF_A_USER:
                raise Conflict(f"you have {_MOST_OF_A_USER} keys already", hint="revoke those you do not need")
            key = await api_keys.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                name=name,
                prefix=prefix,
                secret_hash=_hash(secret),
                scopes=wanted,
                models=None if models is None else list(models),
                engines=None if engines is None else list(engines),
                expires_at=expires_at,
            )
            await self._audit(conn, principal, "api_key.created", key.id, request_id)
        return NewKey(key=key, text=f"{MARK}{prefix}-{secret}")

    async def mine(self, principal: Principal) -> list[ApiKey]:
        """The caller's keys, newest first."""
        async with self._db.tenant(principal) as conn:
            return await api_keys.listed(conn, user_id=principal.user_id)

    async def revoke(self, principal: Principal, key_id: UUID, *, request_id: str) -> None:
        """End a key of the caller, or of anyone in the organisation for who manages it. Raises NotFound, Forbidden."""
        _no_key(principal)
        async with self._db.tenant(principal) as conn:
            whose = None if principal.may(MANAGE_ORG) else principal.user_id
            if not await api_keys.revoke(conn, key_id, user_id=whose):
                raise NotFound("no such API key", hint="GET /v1/api-keys lists yours")
            await self._audit(conn, principal, "api_key.revoked", key_id, request_id)
        for prefix, (holder, _) in list(self._known.items()):
            if holder.id == key_id:
                del self._known[prefix]

    async def principal(self, text: str, *, address: str) -> Principal:
        """Whom a key stands for. Raises Unauthenticated, Overloaded for an address that fails often, Unavailable."""
        prefix, dash, secret = text.removeprefix(MARK).partition("-")
        if dash and len(prefix) == _PREFIX and prefix.isascii() and prefix.isalnum():
            holder = await self._holder(prefix)
            expected = holder.secret_hash if holder else _hash("")
            if hmac.compare_digest(_hash(secret), expected) and holder is not None and self._lives(holder):
                self._used(holder)
                return _principal(holder)
        await self._limits.hit(self._failures, "api-key", address)
        raise Unauthenticated("the API key is not valid, has expired or was revoked", hint="POST /v1/api-keys")

    def _lives(self, holder: KeyHolder) -> bool:
        return holder.expires_at is None or holder.expires_at > self._clock.now()

    async def _holder(self, prefix: str) -> KeyHolder | None:
        known = self._known.get(prefix)
        if known is not None and time.monotonic() - known[1] < KEPT_S:
            return known[0]
        # Taken before the query: what was true then may have changed while the answer was on its way.
        asked = time.monotonic()
        async with self._db.unbound() as conn:
            holder = await api_keys.find(conn, prefix)
        if holder is None:
            self._known.pop(prefix, None)
        else:
            self._known[prefix] = holder, asked
        return holder

    def _used(self, holder: KeyHolder) -> None:
        now = time.monotonic()
        if now - self._touched.get(holder.id, -_TOUCH_S) < _TOUCH_S:
            return
        self._touched[holder.id] = now
        task = asyncio.create_task(self._touch(holder))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _touch(self, holder: KeyHolder) -> None:
        try:
            async with self._db.unbound() as conn:
                await bind(conn, holder.org_id)
                await api_keys.touch(conn, holder.id)
        except NeuroEdgeError as error:
            log.warning("api_key_use_not_noted", key=str(holder.id), error=error.detail)

    async def _audit(self, conn: Connection, principal: Principal, action: str, key_id: UUID, request_id: str) -> None:
        await ledgers.add_audit(
            conn,
            org_id=principal.org_id,
            user_id=principal.user_id,
            request_id=request_id,
            action=action,
            target=f"api_key:{key_id}",
        )


def _no_key(principal: Principal) -> None:
    """Who has found a key must not be able to make more of them, or to end those of others."""
    if principal.api_key_id is not None:
        raise Forbidden("an API key cannot manage API keys", hint="log in, and use the access token")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _principal(holder: KeyHolder) -> Principal:
    return Principal(
        user_id=holder.user_id,
        org_id=holder.org_id,
        username=holder.username,
        role=holder.role,
        permissions=frozenset(holder.scopes) & ROLE_PERMISSIONS[holder.role],
        api_key_id=holder.id,
        models=None if holder.models is None else tuple(holder.models),
        engines=None if holder.engines is None else frozenset(holder.engines),
    )
