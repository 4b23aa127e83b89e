"""The state of a device that all processes share, in Valkey; every change is one script, so none is half done.

A lease lives as long as its holder's sign of life (`alive`, some seconds) and itself (`lease`, its TTL) both do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from valkey.commands.core import AsyncScript

from neuroedge.contract.models import Priority
from neuroedge.infra.accelerator.commands import Commands

_RANK: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}

_COMMON = """
local base = KEYS[1]
local function held()
  local token = redis.call('GET', base .. ':alive')
  if token and redis.call('HGET', base .. ':lease', 'token') == token then return token end
  return nil
end
local function participants()
  local found = {}
  for _, id in ipairs(redis.call('SMEMBERS', base .. ':participants')) do
    local mark = redis.call('GET', base .. ':participant:' .. id)
    if mark then
      table.insert(found, id)
      table.insert(found, mark)
    else
      redis.call('SREM', base .. ':participants', id)
    end
  end
  return found
end
"""

_TAKE = """
local ticket, rank, owner, spared, seen, alive_ms, ttl_ms = unpack(ARGV)
redis.call('SET', base .. ':waiter:' .. ticket, 1, 'PX', alive_ms)
if not redis.call('ZSCORE', base .. ':queue', ticket) then
  local arrival = redis.call('INCR', base .. ':arrivals')
  redis.call('ZADD', base .. ':queue', string.format('%.0f', rank * 2 ^ 40 + arrival), ticket)
end
local first = redis.call('ZRANGE', base .. ':queue', 0, 0)[1]
while first ~= ticket and redis.call('EXISTS', base .. ':waiter:' .. first) == 0 do
  redis.call('ZREM', base .. ':queue', first)
  first = redis.call('ZRANGE', base .. ':queue', 0, 0)[1]
end
if first ~= ticket or held() then
  return {0, redis.call('HGET', base .. ':lease', 'owner') or ''}
end
local token = redis.call('INCR', base .. ':token')
if token <= tonumber(seen) then
  token = tonumber(seen) + 1
  redis.call('SET', base .. ':token', token)
end
redis.call('ZREM', base .. ':queue', ticket)
redis.call('DEL', base .. ':waiter:' .. ticket, base .. ':lease')
redis.call('HSET', base .. ':lease', 'token', token, 'ticket', ticket, 'owner', owner, 'spared', spared)
redis.call('PEXPIRE', base .. ':lease', ttl_ms)
redis.call('SET', base .. ':alive', token, 'PX', alive_ms)
return {token, owner}
"""

_RENEW = """
local token, alive_ms, ttl_ms = unpack(ARGV)
if held() ~= token then return false end
redis.call('PEXPIRE', base .. ':lease', ttl_ms)
redis.call('PEXPIRE', base .. ':alive', alive_ms)
return participants()
"""

_LEAVE = """
local ticket = ARGV[1]
redis.call('ZREM', base .. ':queue', ticket)
redis.call('DEL', base .. ':waiter:' .. ticket)
if redis.call('HGET', base .. ':lease', 'ticket') ~= ticket then return 0 end
local token = redis.call('HGET', base .. ':lease', 'token')
redis.call('DEL', base .. ':lease', base .. ':alive')
return tonumber(token)
"""

_BEAT = """
local id, mark, alive_ms = unpack(ARGV)
redis.call('SADD', base .. ':participants', id)
redis.call('SET', base .. ':participant:' .. id, mark, 'PX', alive_ms)
local token = held()
if not token or redis.call('HGET', base .. ':lease', 'spared') == id then return 0 end
return tonumber(token)
"""

_WITHDRAW = """
redis.call('SREM', base .. ':participants', ARGV[1])
return redis.call('DEL', base .. ':participant:' .. ARGV[1])
"""

_CLAIM = """
local task, id, ttl_ms = unpack(ARGV)
local key = base .. ':foreign:' .. task
local claimant = redis.call('GET', key)
if claimant and claimant ~= id and redis.call('EXISTS', base .. ':participant:' .. claimant) == 1 then return 0 end
redis.call('SET', key, id, 'PX', ttl_ms)
return 1
"""

_DISCLAIM = """
local task, id = unpack(ARGV)
local key = base .. ':foreign:' .. task
if redis.call('GET', key) == id then return redis.call('DEL', key) end
return 0
"""

_HOLDER = "return tonumber(held() or 0)"
_PARTICIPANTS = "return participants()"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a participant has told of itself: paused (or failed to) for the lease of a token, or running (token 0)."""

    token: int = 0
    failed: bool = False

    def encode(self) -> str:
        """As kept in Valkey."""
        return f"{'!' if self.failed else ''}{self.token}"

    @classmethod
    def decode(cls, text: bytes) -> "Mark":
        """Of what Valkey keeps."""
        return cls(token=int(text.removeprefix(b"!")), failed=text.startswith(b"!"))


class DeviceState:
    """Lease, queue and participants of one device. Every method raises Unavailable when Valkey does not answer."""

    def __init__(self, commands: Commands, *, device: str, ttl_s: float, alive_s: float) -> None:
        self._commands = commands
        self._base = f"neuroedge:accelerator:{{{device}}}"
        self._ttl_ms, self._alive_ms = _ms(ttl_s), _ms(alive_s)
        self._seen = 0
        script = commands.client.register_script
        self._take = script(_COMMON + _TAKE)
        self._renew = script(_COMMON + _RENEW)
        self._leave = script(_COMMON + _LEAVE)
        self._beat = script(_COMMON + _BEAT)
        self._withdraw = script(_COMMON + _WITHDRAW)
        self._claim = script(_COMMON + _CLAIM)
        self._disclaim = script(_COMMON + _DISCLAIM)
        self._holder = script(_COMMON + _HOLDER)
        self._participants = script(_COMMON + _PARTICIPANTS)

    @property
    def answers(self) -> str:
        """The channel on which this device's participants answer holders of its lease."""
        return f"{self._base}:answers"

    async def _run(self, script: AsyncScript, *args: str | int) -> Any:
        return await self._commands.run(script(keys=[self._base], args=list(args)))

    def _saw(self, token: int) -> int:
        self._seen = max(self._seen, token)
        return token

    async def publish(self, channel: str, body: bytes) -> None:
        """Send a message to whoever listens now."""
        await self._commands.run(self._commands.client.publish(channel, body))

    async def take(self, ticket: str, *, priority: Priority, owner: str, spared: str) -> tuple[int, str]:
        """Queue the ticket, or keep it queued, and take the lease if it is first and the device free.

        The new fencing token, or 0 with the owner of the lease that is in the way. The token is greater than all this
        process has seen, even if Valkey lost its memory. `spared` is the participant that need not pause.
        """
        rank = _RANK[priority]
        token, by = await self._run(self._take, ticket, rank, owner, spared, self._seen, self._alive_ms, self._ttl_ms)
        return self._saw(int(token)), by.decode(errors="replace")

    async def renew(self, token: int) -> dict[str, Mark] | None:
        """Keep the lease; what each live participant told of itself. None when the lease is another's or gone."""
        answer = await self._run(self._renew, token, self._alive_ms, self._ttl_ms)
        return None if answer is None else _marks(answer)

    async def leave(self, ticket: str) -> int:
        """Take the ticket out of the queue and end its lease; the lease's token, 0 if it held none."""
        return int(await self._run(self._leave, ticket))

    async def holder(self) -> int:
        """The token of the lease that is held now, 0 for none."""
        return int(await self._run(self._holder))

    async def beat(self, participant: str, mark: Mark) -> int:
        """Register the participant for some seconds more; the token of the lease it must pause for, 0 for none."""
        return self._saw(int(await self._run(self._beat, participant, mark.encode(), self._alive_ms)))

    async def withdraw(self, participant: str) -> None:
        """Forget the participant: no holder waits for it any more."""
        await self._run(self._withdraw, participant)

    async def participants(self) -> dict[str, Mark]:
        """What each live participant told of itself."""
        return _marks(await self._run(self._participants))

    async def claim(self, task_id: str, participant: str) -> bool:
        """Whether this participant is the one to answer a foreign request; a dead claimant's claim does not count."""
        return bool(await self._run(self._claim, task_id, participant, self._ttl_ms))

    async def disclaim(self, task_id: str, participant: str) -> None:
        """The foreign request is over."""
        await self._run(self._disclaim, task_id, participant)


def _marks(flat: Sequence[bytes]) -> dict[str, Mark]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name.decode(): Mark.decode(mark) for name, mark in pairs}


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)
