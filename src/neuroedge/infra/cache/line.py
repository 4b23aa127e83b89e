"""One connection to Valkey for one caller at a time, kept open.

What valkey-py's client does around each command (a visit to its pool, a time-out and a task for sending, another
time-out for the answer) takes longer than the command itself, and every miss of the cache waits for one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import valkey.asyncio
import valkey.exceptions

Command = Sequence[str | bytes | int]


class Line:
    """Connects when it is first used, and again after an error."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        pool = valkey.asyncio.ConnectionPool.from_url(url, socket_connect_timeout=timeout_s)
        self._new_connection: Callable[[], Any] = pool.make_connection
        self._timeout_s = timeout_s
        self._connection: Any = None

    async def ask(self, *commands: Command) -> list[Any]:
        """The server's answer to each command, which it may get twice. Raises ValkeyError, OSError."""
        kept = self._connection is not None
        try:
            return await self._ask(commands)
        except (valkey.exceptions.ConnectionError, OSError) as error:
            if not kept or isinstance(error, TimeoutError):
                raise
            # A server that was started again has closed it, which only shows now.
            return await self._ask(commands)

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if self._connection is None:
            self._connection = self._new_connection()
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await connection.read_response() for _ in commands]
        except BaseException:
            # Answers may be on their way that would be taken for those of the next commands.
            self._connection = None
            await connection.disconnect(nowait=True)
            raise
