"""One answer for one Idempotency-Key: a request that is sent twice is worked on once.

Kept in Valkey, sealed with the organisation's key, under a name that holds organisation, user and route: another
user's equal key is another key. While Valkey is away, requests with a key are refused: the promise could not be kept.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Conflict, InvalidInput, SealBroken, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.valkey_commands import ValkeyCommands
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)
T = TypeVar("T")
KEPT_S: Final = 600
_RUNNING: Final = b"running"
_ANSWER_S: Final = 2.0
_LONGEST_KEY: Final = 255
_MOST_BYTES: Final = 8 << 20
"""Of an answer; a longer one is given, but not kept."""


class Idempotency:
    """The answers of the last ten minutes, of requests that came with a key."""

    def __init__(self, *, db: Database, client: "valkey.asyncio.Valkey") -> None:
        self._db = db
        self._client = client
        self._commands = ValkeyCommands(timeout_s=_ANSWER_S)

    async def close(self) -> None:
        """Wait for commands whose callers have left; before the client is closed."""
        await self._commands.settled()

    async def once(
        self, principal: Principal, *, route: str, key: str, body: bytes, work: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """What `work` gives, or gave when it was asked the same before; and whether it is a repetition.

        An answer that fails is not kept. Raises Conflict while the first is being worked on, InvalidInput when the
        key came with another body, Unavailable without Valkey, what `work` raises.
        """
        name = _name(principal, route, key)
        if not await self.begin(principal, route=route, key=key):
            return await self._kept(principal, name, body), True
        try:
            answer = await work()
            await self._keep(principal, name, body, answer)
        except BaseException:
            await self._forget(name)
            raise
        return answer, False

    async def begin(self, principal: Principal, *, route: str, key: str) -> bool:
        """Take a key; False when it was taken. Raises InvalidInput for what can be none, Unavailable."""
        if not key.isprintable() or len(key) > _LONGEST_KEY:
            raise InvalidInput(f"an Idempotency-Key has at most {_LONGEST_KEY} printable characters")
        taken = self._client.set(_name(principal, route, key), _RUNNING, nx=True, ex=KEPT_S)
        return bool(await self._run(taken))

    async def end(self, principal: Principal, *, route: str, key: str) -> None:
        """Give a key back, after an answer that is not kept."""
        await self._forget(_name(principal, route, key))

    async def _kept(self, principal: Principal, name: str, body: bytes) -> bytes:
        value = await self._run(self._client.get(name))
        if value is None or value == _RUNNING:
            raise Conflict("a request with this Idempotency-Key is being worked on", hint="wait for its answer")
        cipher = (await self._db.known(principal.org_id)).cipher
        try:
            fingerprint, answer = cipher.open(value, name)
        except SealBroken as error:
            raise Conflict(
                "the answer to this key cannot be read any more", hint="use a new Idempotency-Key"
            ) from error
        if fingerprint != _fingerprint(body):
            raise InvalidInput("this Idempotency-Key came with another request", hint="use a new key for it")
        return str(answer).encode()

    async def _keep(self, principal: Principal, name: str, body: bytes, answer: bytes) -> None:
        if len(answer) > _MOST_BYTES:
            await self._forget(name)
            return
        cipher = (await self._db.known(principal.org_id)).cipher
        sealed = cipher.seal([_fingerprint(body), answer.decode()], name)
        try:
            await self._commands.run(self._client.set(name, sealed, ex=KEPT_S))
        except (ValkeyError, OSError) as error:
            # The answer is there and paid for: it is given, and a repetition is refused until the name runs out.
            log.warning("answer_not_kept", error=str(error))

    async def _forget(self, name: str) -> None:
        try:
            await asyncio.shield(self._commands.run(self._client.delete(name)))
        except (ValkeyError, OSError) as error:
            log.warning("idempotency_key_not_forgotten", error=str(error))

    async def _run(self, command: Awaitable[T]) -> T:
        try:
            return await self._commands.run(command)
        except (ValkeyError, OSError) as error:
            raise Unavailable(
                "an Idempotency-Key cannot be kept now", hint="try again, or send the request without one"
            ) from error


def _name(principal: Principal, route: str, key: str) -> str:
    place = json.dumps([str(principal.user_id), route, key]).encode()
    return f"neuroedge:{principal.org_id}:once:{hashlib.sha256(place).hexdigest()}"


def _fingerprint(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
