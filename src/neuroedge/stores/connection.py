"""Database connections that do not wait for a server that hangs.

A server that died closes its connections and whoever waits sees it. One that is stopped, swaps, or is behind a broken
network keeps them open: nothing tells a slow statement from one that will never be answered. So whoever waits for long
tries whether the server still takes connections.
"""

import asyncio
import contextlib
import os
import socket
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow

from neuroedge.contract.vault import Cipher
from neuroedge.stores.derived import Underived

CONNECT_S = 3
_SILENT_S = 3.0
"""A statement that takes longer makes us ask whether the server lives."""
_ALIVE_S = 2
"""How long it has for that; less is not possible with libpq."""
_STATEMENT_S = 60
"""Longest a statement may run; the server ends it."""
_LOST_S = _STATEMENT_S + 5.0
"""After this, though the server lives, the process behind this connection does not."""


def with_limits(conninfo: str) -> str:
    """A connection string with time limits, where it has none of its own."""
    limits: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,  # ms
    }
    return make_conninfo(**{**limits, **conninfo_to_dict(conninfo)})


OPTIONS = f"-c statement_timeout={_STATEMENT_S}s"
"""Server settings of a connection, for libpq's `options`."""


class AnsweringConnection(AsyncConnection[DictRow]):
    """Raises psycopg.OperationalError some seconds after the server stopped to answer, instead of waiting."""

    cipher: Cipher | None = None
    """Of the organisation the present transaction is bound to."""
    underived = Underived()
    """Types of memories nothing is derived from to find them by; the same for every connection of a database."""

    answered_at = 0.0
    """time.monotonic of its last proof of life."""

    @property
    def vault(self) -> Cipher:
        """Seals and opens content of the organisation this transaction is bound to."""
        if self.cipher is None:
            raise RuntimeError("this transaction is bound to no organisation whose content it may read")
        return self.cipher

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """What psycopg waits for, unless the server hangs. Waiting for notifications is not limited."""
        loop = asyncio.get_running_loop()
        watching: list[asyncio.Task[None]] = []
        doubt = loop.call_later(_SILENT_S, lambda: watching.append(loop.create_task(self._watch())))
        try:
            return await super().wait(gen, interval, timeout)
        finally:
            doubt.cancel()
            for task in watching:
                task.cancel()

    def sever(self) -> None:
        """Cut the connection off, so that whoever waits on it gets an error at once."""
        with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)

    async def _watch(self) -> None:
        """Sever the connection once nothing can be hoped for any more."""
        loop = asyncio.get_running_loop()
        given_up_at = loop.time() + _LOST_S - _SILENT_S
        while True:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE and (
                loop.time() > given_up_at or not await _takes_connections(self.info.dsn)
            ):
                self.sever()
                return
            await asyncio.sleep(_SILENT_S)


async def _takes_connections(dsn: str) -> bool:
    """Whether the server says anything to a new connection, be it that a password is missing."""
    try:
        conn = await AsyncConnection.connect(make_conninfo(dsn, connect_timeout=_ALIVE_S))
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True
    await conn.close()
    return True
