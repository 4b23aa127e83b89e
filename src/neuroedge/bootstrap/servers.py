"""The servers a process works with, embedded or external, and the keys to what they hold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from neuroedge.bootstrap.ending import ended
from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir
from neuroedge.infra.cancellation import keep_cancellations
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.vault import Vault
from neuroedge.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where database and cache are, embedded or external."""

    postgres_owner: str
    postgres_app: str
    valkey: str
    secrets: datadir.Secrets


@asynccontextmanager
async def open_servers(settings: Settings, *, metrics: Metrics | None = None) -> AsyncIterator[Servers]:
    """Data directory ready, embedded servers running (unless external ones are configured).

    With `metrics` they are kept running: one that dies is started again, and counted.
    """
    keep_cancellations()
    secrets = await asyncio.to_thread(datadir.prepare, settings)
    embedded = EmbeddedServers(
        settings.data_dir, secrets, postgres=settings.postgres_url is None, valkey=settings.redis_url is None
    )
    addresses = await asyncio.to_thread(embedded.start)
    keeping = metrics and asyncio.create_task(embedded.keep_running(restarts=metrics.embedded_restarts))
    try:
        yield Servers(
            postgres_owner=addresses.postgres_owner or _secret(settings.postgres_url),
            postgres_app=addresses.postgres_app or _external_app_url(settings, secrets),
            valkey=addresses.valkey or _secret(settings.redis_url),
            secrets=secrets,
        )
    finally:
        if keeping:
            await ended(keeping)
        await asyncio.to_thread(embedded.stop)


def app_password(settings: Settings, secrets: datadir.Secrets) -> str | None:
    """The password `db upgrade` gives the application's role; None when the operator made the role."""
    return None if settings.postgres_app_url is not None else secrets.postgres_app_password


def open_vault(settings: Settings, secrets: datadir.Secrets) -> Vault:
    """What wraps every organisation's keys. Raises VaultLocked."""
    master = settings.master_key.get_secret_value() if settings.master_key else secrets.master_key
    return Vault(master, former=[key.get_secret_value() for key in settings.master_keys_former])


def _secret(value: object) -> str:
    if value is None:
        raise Unavailable("no address for a server that is not embedded")
    return str(value.get_secret_value())  # type: ignore[attr-defined]


def _external_app_url(settings: Settings, secrets: datadir.Secrets) -> str:
    if settings.postgres_app_url is not None:
        return settings.postgres_app_url.get_secret_value()
    from psycopg.conninfo import make_conninfo

    return make_conninfo(_secret(settings.postgres_url), user="neuroedge_app", password=secrets.postgres_app_password)
