"""Connections bound to one tenant: the only way to the tables.

Every unit of work is a transaction that first sets `app.current_org_id` for itself (`SET LOCAL`: it cannot outlive the
transaction, so a pooled connection never carries a tenant into the next request). Row level security does the rest.

A server that is away or hangs is Unavailable within seconds; when it is back, connections are made anew.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any
from uuid import UUID

import psycopg
import psycopg_pool
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from neuroedge.contract.errors import InvalidInput, NotFound, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher, Keys
from neuroedge.stores import indexes, tenant_keys
from neuroedge.stores.connection import OPTIONS, AnsweringConnection, with_limits
from neuroedge.stores.derived import Underived

Connection = AnsweringConnection
_ACQUIRE_TIMEOUT_S = 5.0
_CHECK_S = 2.0
_TRUSTED_S = 1.0
_RECONNECT_S = 4.0
"""Attempts to connect come ever more seldom; ended so soon, the next request makes one at once."""
_PING_S = 2.5
TENANT_KEPT_S = 30.0
"""What is known of an organisation is read again after so long: each process knows a new key before any seals with it,
and searches with a new embedding model while the old one's vectors are still there."""


class UnsafeRole(Unavailable):
    """The application's database role could see past row level security."""

    code = "unsafe_database_role"


@dataclass(frozen=True, slots=True)
class Tenant:
    """What is known of an organisation between its transactions."""

    cipher: Cipher
    embedding_model: str | None
    read_at: float
    """time.monotonic."""


class Database:
    """The application's connection pool."""

    def __init__(self, app_url: str, *, max_size: int, keys: Keys, underived: Underived | None = None) -> None:
        self._keys = keys
        self._underived = underived or Underived()
        self._tenants: dict[UUID, Tenant] = {}
        self._index_kinds: dict[int, tuple[indexes.Kind, float]] = {}
        self._pings: set[asyncio.Task[None]] = set()
        self.pool: psycopg_pool.AsyncConnectionPool[AnsweringConnection] = psycopg_pool.AsyncConnectionPool(
            with_limits(app_url),
            connection_class=AnsweringConnection,
            min_size=2,
            max_size=max_size,
            open=False,
            timeout=_ACQUIRE_TIMEOUT_S,
            reconnect_timeout=_RECONNECT_S,
            check=_check,
            configure=_configure,
            kwargs={"row_factory": dict_row, "options": f"-c search_path=public,queue {OPTIONS}"},
        )

    async def open(self) -> None:
        """Connect, and refuse a role that row level security would not bind. Raises Unavailable, UnsafeRole."""
        try:
            await self.pool.open(wait=True, timeout=_ACQUIRE_TIMEOUT_S)
        except psycopg_pool.PoolTimeout as error:
            raise Unavailable("PostgreSQL does not answer", hint="check POSTGRES_URL and the server") from error
        async with self.pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT rolsuper OR rolbypassrls OR EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = 'public'"
                " AND tableowner = current_user) AS unsafe FROM pg_roles WHERE rolname = current_user"
            )
            row = await cursor.fetchone()
        if row is None or row["unsafe"]:
            await self.close()
            raise UnsafeRole(
                "the application's database role is a superuser, bypasses row level security or owns tables",
                hint="let NEUROEDGE_POSTGRES_APP_URL name a role with neither, as docs/operations.md shows",
            )

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*self._pings, return_exceptions=True)
        await self.pool.close()

    async def ping(self) -> None:
        """Raise Unavailable unless the database answers at once."""
        # In a task of its own: psycopg needs up to 10 s to cancel a statement of a server that hangs.
        task = asyncio.create_task(self._select())
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)
        done, _ = await asyncio.wait([task], timeout=_PING_S)
        if not done:
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Unavailable("the database does not answer", retry_after_s=2)
        task.result()

    async def _select(self) -> None:
        async with self._connection() as conn:
            await conn.execute("SELECT 1")

    @asynccontextmanager
    async def tenant(self, principal: Principal, *, sees_all: bool = False) -> AsyncIterator[Connection]:
        """A transaction that sees the principal's organisation and nothing else; commits on leaving.

        Of its memories it sees those of the organisation, of the principal's division and the principal's own; all of
        them with `sees_all`, for what concerns the organisation as a whole: erasing, exporting, re-embedding.
        """
        cipher = (await self.known(principal.org_id)).cipher
        async with self._connection() as conn, conn.transaction():
            await bind(conn, principal.org_id, user_id=principal.user_id, sees_all=sees_all)
            with self._unsealing(conn, cipher):
                yield conn

    @asynccontextmanager
    async def reading(
        self, principal: Principal, *, options: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Connection]:
        """What `tenant` gives, for statements that only read: they are sent before the answers of those before them
        are there. Their rows can also be fetched after leaving, by when all are there.

        A pipeline is one transaction, which ends with it: there is no BEGIN and no COMMIT to be sent and answered. What
        `bind` set ends with it too, so that a statement too late would see no tenant's rows. `options`: settings of
        PostgreSQL for these statements.
        """
        cipher = (await self.known(principal.org_id)).cipher
        async with self._connection() as conn, conn.pipeline():
            options = {"transaction_read_only": "on", **options}
            await bind(conn, principal.org_id, user_id=principal.user_id, options=options)
            with self._unsealing(conn, cipher):
                yield conn

    @contextmanager
    def _unsealing(self, conn: Connection, cipher: Cipher) -> Iterator[None]:
        conn.cipher, conn.underived = cipher, self._underived
        try:
            yield
        finally:
            conn.cipher = None

    async def known(self, org_id: UUID) -> "Tenant":
        """What every call of an organisation needs; keys are made when it has none. Raises VaultLocked, Unavailable."""
        tenant = self._tenants.get(org_id)
        if tenant is None or time.monotonic() - tenant.read_at > TENANT_KEPT_S:
            tenant = await self._read(org_id)
        return tenant

    def forget(self, org_id: UUID) -> None:
        """Read what is known of an organisation anew when it is next needed."""
        self._tenants.pop(org_id, None)

    async def _read(self, org_id: UUID) -> "Tenant":
        place = f"tenant_keys/{org_id}"
        async with self._connection() as conn, conn.transaction():
            await bind(conn, org_id)
            kept = await tenant_keys.find(conn, org_id)
            if kept is None:
                made = await asyncio.to_thread(self._keys.new, place)
                kept = await tenant_keys.insert(conn, org_id, made)
                if kept is None:
                    # Nothing of an organisation that does not exist can be stored, so these keys are for nothing.
                    return Tenant(await asyncio.to_thread(self._keys.cipher, made, place), None, 0.0)
        cipher = await asyncio.to_thread(self._keys.cipher, kept.wrapped, place)
        tenant = self._tenants[org_id] = Tenant(cipher, kept.embedding_model, time.monotonic())
        return tenant

    async def index_kind(self, dim: int) -> indexes.Kind:
        """What vectors of this size are searched with; read again after TENANT_KEPT_S."""
        kind, read_at = self._index_kinds.get(dim, ("hnsw", 0.0))
        if not read_at or time.monotonic() - read_at > TENANT_KEPT_S:
            async with self._connection() as conn:
                kind = await indexes.kind_of(conn, dim) or "hnsw"
            self._index_kinds[dim] = kind, time.monotonic()
        return kind

    @asynccontextmanager
    async def unbound(self) -> AsyncIterator[Connection]:
        """A transaction without tenant, for login and registration: sees no tenant's rows until `bind`."""
        async with self._connection() as conn, conn.transaction():
            yield conn

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self.pool.connection() as conn:
                yield conn
        except psycopg_pool.PoolTimeout as error:
            raise Unavailable(
                "no database connection became free",
                hint="check the server; if it is well, raise NEUROEDGE_POSTGRES_POOL_SIZE",
                retry_after_s=2,
            ) from error
        except psycopg.OperationalError as error:
            raise Unavailable("the database does not answer", retry_after_s=2) from error
        except psycopg.errors.ForeignKeyViolation as error:
            raise NotFound("what this refers to is not in your organisation", hint="check the ids") from error
        except psycopg.DataError as error:
            # Zero bytes, NaN in JSON, numbers out of range: what a text or number column cannot hold.
            raise InvalidInput(
                "a value cannot be stored", hint="leave out zero characters, NaN and Infinity"
            ) from error


async def bind(
    conn: Connection,
    org_id: UUID,
    *,
    user_id: UUID | None = None,
    sees_all: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Let the rest of this transaction see one organisation, and of its memories what this user may see.

    `options` are other settings of the transaction.
    """
    await conn.execute(
        "SELECT set_config('app.current_org_id', %s, true), set_config('app.current_user_id', %s, true),"
        " set_config('app.sees_all', %s, true)" + ", set_config(%s, %s, true)" * len(options),
        [str(org_id), str(user_id or ""), "on" if sees_all else "", *chain.from_iterable(options.items())],
    )


async def _configure(conn: AsyncConnection[Any]) -> None:
    # Transactions are begun where they are wanted: `tenant`, `unbound`. Not in the pool's `kwargs`: the job queue takes
    # these for a connection of its own, and says there itself that it commits by itself.
    await conn.set_autocommit(True)
    await register_vector_async(conn)
    for name, value in indexes.SEARCH_OPTIONS.items():
        await conn.execute("SELECT set_config(%s, %s, false)", [name, str(value)])


async def _check(conn: AnsweringConnection) -> None:
    """Raise psycopg.OperationalError unless a connection still answers; one that hangs is severed.

    One that answered a moment ago is not asked again: that would add a round trip to every transaction.
    """
    if time.monotonic() - conn.answered_at < _TRUSTED_S:
        return
    silent = asyncio.get_running_loop().call_later(_CHECK_S, conn.sever)
    try:
        await psycopg_pool.AsyncConnectionPool.check_connection(conn)
    finally:
        silent.cancel()
    conn.answered_at = time.monotonic()
