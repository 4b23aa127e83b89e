"""A connection kept for one purpose: what is written often must not cost a visit to the pool each time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from neuroedge.contract.errors import InvalidInput, Unavailable
from neuroedge.stores.connection import AnsweringConnection
from neuroedge.stores.postgres import Database


class KeptConnection:
    """One connection of a database's pool, given to one caller at a time; made anew when it is lost."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._conn: AnsweringConnection | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[AnsweringConnection]:
        """The connection, for whole statements.

        Raises Unavailable when it should be tried again, InvalidInput when the database refuses a statement.
        """
        async with self._turn:
            try:
                if self._conn is None:
                    self._conn = await self._db.pool.getconn()
                yield self._conn
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                await self._discard()
                raise Unavailable("the database does not answer", retry_after_s=2) from error
            except psycopg.Error as error:
                raise InvalidInput("the database refuses a row") from error
            except asyncio.CancelledError:
                await self._discard()  # in the middle of a statement
                raise

    async def close(self) -> None:
        """Give it back; the next use takes another."""
        async with self._turn:
            if self._conn is None:
                return
            await self._db.pool.putconn(self._conn)
            self._conn = None

    async def _discard(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()
            await self._db.pool.putconn(conn)  # which makes room for another
