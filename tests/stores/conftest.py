"""A database of its own for tests of the stores: embedded, migrated, thrown away."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from pydantic import SecretStr

from neuroedge.bootstrap import Servers, app_password, open_servers
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.infra.vault import Vault, new_master_key
from neuroedge.settings import Settings
from neuroedge.stores import accounts, schema
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database


@dataclass(frozen=True)
class Migrated:
    """A migrated database: as its owner and as the application."""

    owner_url: str
    app_url: str


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrated]:
    """Servers on a data directory of their own, or the external ones of the environment."""
    external = os.environ.get("POSTGRES_URL")
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("stores"), postgres_url=SecretStr(external) if external else None
    )
    context = open_servers(settings)
    loop = asyncio.new_event_loop()
    servers: Servers = loop.run_until_complete(context.__aenter__())
    try:
        schema.upgrade(servers.postgres_owner, app_password=app_password(settings, servers.secrets))
        yield Migrated(owner_url=servers.postgres_owner, app_url=servers.postgres_app)
    finally:
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.close()


@pytest.fixture
async def db(migrated: Migrated) -> AsyncIterator[Database]:
    """The application's connection pool."""
    database = Database(migrated.app_url, max_size=4, keys=KEYS)
    await database.open()
    yield database
    await database.close()


KEYS = Vault(new_master_key())
"""Of all tests on this database."""


async def new_principal(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    name = f"u{new_id().hex}"
    async with db.unbound() as conn:
        login = await accounts.create_user_with_organisation(
            conn, username=name, email=f"{name}@example.org", password_hash="-", organisation=name, admin=False
        )
    return Principal(
        user_id=UUID(str(login.user_id)),
        org_id=UUID(str(login.org_id)),
        username=name,
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )


def colleague(of: Principal, role: Role | None = None) -> Principal:
    """Somebody else of the same organisation, without a row; of the same role unless another is given."""
    other = replace(of, user_id=new_id())
    return other if role is None else replace(other, role=role, permissions=ROLE_PERMISSIONS[role])
