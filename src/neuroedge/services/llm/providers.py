"""Which language models an organisation may use: this machine's, its own providers', and the operator's."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from pydantic import ValidationError

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.hosts import Hosts
from neuroedge.services.llm.kept import Kept
from neuroedge.services.llm.offers import Offer, Preferences
from neuroedge.services.llm.provider_settings import ProviderSettings
from neuroedge.stores import ledgers, llm_providers
from neuroedge.stores.llm_providers import StoredPreferences, StoredProvider
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

_KEPT_S: Final = 5.0
_MOST_PROVIDERS: Final = 50
Source = Literal["local", "organisation", "operator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A provider as it may be shown; `stored` for those of the organisation."""

    name: str
    source: Source
    offers: Sequence[Offer]
    stored: StoredProvider | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of an organisation."""

    own: Sequence[Offer]
    preferences: Preferences
    readable: bool = True


_UNKNOWN: Final = _Known((), Preferences(local_only=True), readable=False)
"""Of an organisation that cannot be read: what it has settled may be that nothing leaves the machine."""


class Providers:
    """Offers for callers, and the providers an organisation sets up for itself.

    `local` tells the models of this machine, `operators` are those of providers.toml.
    """

    def __init__(
        self, *, db: Database, operators: Sequence[Offer], local: Callable[[], Sequence[Offer]], hosts: Hosts
    ) -> None:
        self._db = db
        self._operators = operators
        self._local = local
        self._hosts = hosts
        self._known = Kept(self._read, kept_s=_KEPT_S)

    async def offers(self, principal: Principal) -> list[Offer]:
        """All models the caller's organisation may use: this machine's, then its own, then the operator's.

        Changes made in another process are seen within seconds. While the database is away: those last known, and
        without any, this machine's.
        """
        known = await self._of(principal)
        if not known.readable:
            return list(self._local())
        names = {offer.provider for offer in known.own}
        return [
            *self._local(),
            *known.own,
            *(offer for offer in self._operators if offer.provider not in names),
        ]

    async def preferences(self, principal: Principal) -> Preferences:
        """What the organisation has settled; as `offers`, some seconds old at most."""
        return (await self._of(principal)).preferences

    async def list(self, principal: Principal) -> list[Listed]:
        """Every provider with its models, the organisation's as they are stored now."""
        async with self._db.tenant(principal) as conn:
            stored = await llm_providers.every(conn, principal.org_id)
        own = [await _listed(one) for one in stored]
        names = {one.name for one in own}
        return [
            *_grouped("local", self._local()),
            *own,
            *(one for one in _grouped("operator", self._operators) if one.name not in names),
        ]

    async def create(
        self, principal: Principal, *, name: str, settings: ProviderSettings, api_key: str | None, request_id: str
    ) -> Listed:
        """Set up a provider of the organisation's own; its key is sealed and never shown again.

        Raises InvalidInput for an address that may not be asked, Conflict when the name is taken or there are too many.
        """
        if name in {offer.provider for offer in self._operators}:
            raise Conflict(f"the operator has a provider {name}", hint="choose another name")
        await self._check(settings)
        async with self._db.tenant(principal) as conn:
            if len(await llm_providers.every(conn, principal.org_id)) >= _MOST_PROVIDERS:
                raise Conflict(f"there are {_MOST_PROVIDERS} providers already", hint="delete one first")
            made = await llm_providers.insert(
                conn, org_id=principal.org_id, name=name, settings=_kept(settings), api_key=api_key
            )
            await _audit(conn, principal, request_id, "llm.provider_created", made.id, name)
        self._known.forget(principal.org_id)
        return await _listed(made)

    async def update(
        self,
        principal: Principal,
        provider_id: UUID,
        *,
        changes: dict[str, Any],
        api_key: str | None,
        request_id: str,
    ) -> Listed:
        """Change settings by name, and the key unless it is None.

        Raises NotFound, Conflict; InvalidInput for settings that do not go together, for an address that may not be
        asked, and for another address without a new key: the old one was not given for that place.
        """
        async with self._db.tenant(principal) as conn:
            before = await self._found(conn, principal, provider_id)
        merged = {**before.settings, **changes}
        settings = _parsed({name: value for name, value in merged.items() if value is not None})
        if settings.address != _parsed(before.settings).address and before.key_end is not None and api_key is None:
            raise InvalidInput("another address needs the key anew", hint="give api_key with it")
        await self._check(settings)
        async with self._db.tenant(principal) as conn:
            if await self._found(conn, principal, provider_id) != before:
                raise Conflict("the provider was changed by somebody else meanwhile", hint="read it again")
            changed = await llm_providers.update(
                conn, org_id=principal.org_id, provider_id=provider_id, settings=_kept(settings), api_key=api_key
            )
            await _audit(conn, principal, request_id, "llm.provider_changed", provider_id, changed.name)
        self._known.forget(principal.org_id)
        return await _listed(changed)

    async def delete(self, principal: Principal, provider_id: UUID, *, request_id: str) -> None:
        """Delete a provider with its key. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            name = await llm_providers.delete(conn, org_id=principal.org_id, provider_id=provider_id)
            if name is None:
                raise _not_found(provider_id)
            await _audit(conn, principal, request_id, "llm.provider_deleted", provider_id, name)
        self._known.forget(principal.org_id)

    async def find(self, principal: Principal, provider_id: UUID) -> Listed:
        """One of the organisation's. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await self._found(conn, principal, provider_id)
        return await _listed(found)

    async def set_preferences(self, principal: Principal, wanted: Preferences, *, request_id: str) -> None:
        """Settle these. Raises InvalidInput when they name a model there is not, or that they forbid themselves."""
        self._known.forget(principal.org_id)
        offers = {offer.id: offer for offer in await self.offers(principal)}
        first = [wanted.default_model] if wanted.default_model else []
        for name in [*first, *wanted.fallback, *wanted.by_query_type.values()]:
            if name not in offers:
                raise InvalidInput(f"there is no model {name!r}", hint="GET /v1/providers lists them as provider/model")
            if wanted.local_only and not offers[name].private:
                raise InvalidInput(f"{name!r} is not private, which local_only asks for", hint="choose one that is")
        async with self._db.tenant(principal) as conn:
            await llm_providers.set_preferences(
                conn,
                principal.org_id,
                StoredPreferences(
                    default_model=wanted.default_model,
                    local_only=wanted.local_only,
                    fallback=list(wanted.fallback),
                    by_query_type=dict(wanted.by_query_type),
                ),
            )
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="llm.preferences_changed",
                target=f"organisation:{principal.org_id}",
                detail={"default_model": wanted.default_model, "local_only": wanted.local_only},
            )
        self._known.forget(principal.org_id)

    async def _of(self, principal: Principal) -> _Known:
        return _UNKNOWN if principal.org_id == PROBE.org_id else await self._known.get(principal.org_id)

    async def _read(self, org_id: UUID) -> _Known:
        try:
            return await self._load(org_id)
        except Unavailable as error:
            log.warning("providers_not_read", error=error.code)
            return self._known.last(org_id) or _UNKNOWN

    async def _load(self, org_id: UUID) -> _Known:
        async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
            stored = await llm_providers.every(conn, org_id)
            keys = await llm_providers.keys(conn, org_id) if stored else {}
            settled = await llm_providers.preferences(conn, org_id)
        preferences = Preferences()
        if settled is not None:
            preferences = Preferences(
                default_model=settled.default_model,
                local_only=settled.local_only,
                fallback=tuple(settled.fallback),
                by_query_type=settled.by_query_type,
            )
        return _Known(await _offers(stored, keys), preferences)

    async def _found(self, conn: Connection, principal: Principal, provider_id: UUID) -> StoredProvider:
        found = await llm_providers.find(conn, org_id=principal.org_id, provider_id=provider_id)
        if found is None:
            raise _not_found(provider_id)
        return found

    async def _check(self, settings: ProviderSettings) -> None:
        if settings.kind is None or settings.base_url is not None or settings.private:
            await self._hosts.check(settings.address, private=settings.private)


async def _offers(stored: Sequence[StoredProvider], keys: Mapping[UUID, str]) -> list[Offer]:
    """In a thread: the first look into the price table takes a moment."""

    def made() -> list[Offer]:
        return [
            offer
            for one in stored
            for offer in _parsed(one.settings).offers(one.name, api_key=keys.get(one.id), own=True)
        ]

    return await asyncio.to_thread(made) if stored else []


async def _listed(stored: StoredProvider) -> Listed:
    return Listed(name=stored.name, source="organisation", offers=await _offers([stored], {}), stored=stored)


def _grouped(source: Source, offers: Sequence[Offer]) -> list[Listed]:
    names = dict.fromkeys(offer.provider for offer in offers)
    return [
        Listed(name=name, source=source, offers=[offer for offer in offers if offer.provider == name]) for name in names
    ]


def _parsed(settings: dict[str, Any]) -> ProviderSettings:
    try:
        return ProviderSettings.model_validate(settings)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_context=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'provider'}: {one['msg']}" for one in problems[:5])
        raise InvalidInput(f"these settings do not go together: {told}", errors=problems) from None


def _kept(settings: ProviderSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_defaults=True)


def _not_found(provider_id: UUID) -> NotFound:
    return NotFound(f"no provider {provider_id}", hint="GET /v1/providers lists your organisation's")


async def _audit(
    conn: Connection, principal: Principal, request_id: str, action: str, provider_id: UUID, name: str
) -> None:
    await ledgers.add_audit(
        conn,
        org_id=principal.org_id,
        user_id=principal.user_id,
        request_id=request_id,
        action=action,
        target=f"provider:{provider_id}",
        detail={"name": name},
    )
