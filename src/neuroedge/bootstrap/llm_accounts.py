"""Who provides language models, what calls of them cost, and what may be spent."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from neuroedge.bootstrap.ending import ended
from neuroedge.contract.models import CHAT
from neuroedge.contract.ports import Clock
from neuroedge.infra.events import Events
from neuroedge.runtimes.catalogue import Catalogue
from neuroedge.runtimes.llama import DEFAULT_CONTEXT_TOKENS
from neuroedge.services.llm.budgets import Budgets
from neuroedge.services.llm.hosts import Hosts
from neuroedge.services.llm.ledger import CallLedger
from neuroedge.services.llm.offers import LOCAL, Offer, Price
from neuroedge.services.llm.provider_file import read_providers
from neuroedge.services.llm.providers import Providers
from neuroedge.settings import Settings
from neuroedge.stores.llm_calls import CallTable
from neuroedge.stores.postgres import Database

_INSTALLED_KEPT_S: Final = 1.0
"""Which models are installed is looked up on disk: not for every call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMAccounts:
    """What the gateway asks before and after it asks a model."""

    providers: Providers
    budgets: Budgets
    ledger: CallLedger
    hosts: Hosts


async def open_llm_accounts(
    settings: Settings, *, db: Database, events: Events, catalogue: Catalogue, clock: Clock, stack: AsyncExitStack
) -> LLMAccounts:
    """Open them; the stack closes the ledger. Raises InvalidInput for a providers.toml that cannot be used."""
    path = settings.llm_providers or settings.data_dir / "providers.toml"
    operators = await asyncio.to_thread(read_providers, path)
    budgets = Budgets(db=db, events=events, clock=clock, day_usd=settings.llm_day_usd, month_usd=settings.llm_month_usd)
    ledger = CallLedger(table=CallTable(db, to_disk=settings.usage_to_disk), budgets=budgets, clock=clock)
    stack.push_async_callback(ledger.close)
    stack.push_async_callback(ended, asyncio.create_task(ledger.keep()))
    hosts = Hosts(own=settings.llm_private_hosts)
    providers = Providers(db=db, operators=operators, local=LocalOffers(catalogue), hosts=hosts)
    return LLMAccounts(providers=providers, budgets=budgets, ledger=ledger, hosts=hosts)


@dataclass(slots=True)
class LocalOffers:
    """The chat models that are installed, as they were a second ago at most."""

    catalogue: Catalogue
    _found: Sequence[Offer] = ()
    _until: float = 0.0

    def __call__(self) -> Sequence[Offer]:
        """As `local_offers`."""
        if time.monotonic() >= self._until:
            self._found = local_offers(self.catalogue)
            self._until = time.monotonic() + _INSTALLED_KEPT_S
        return self._found


def local_offers(catalogue: Catalogue) -> Sequence[Offer]:
    """The chat models that are installed, the configured one first. Where none is, the configured one: asking it tells
    how to install it."""
    price = Price(
        prompt_usd_per_million=Decimal(0),
        completion_usd_per_million=Decimal(0),
        source="this machine",
        as_of=datetime.now(UTC).date().isoformat(),
    )
    entries = sorted(
        (entry for entry in catalogue if entry.role == CHAT.role), key=lambda entry: not catalogue.active(entry)
    )
    installed = [entry for entry in entries if catalogue.present(entry)]
    return [
        Offer(
            provider=LOCAL,
            wire="local",
            model=entry.id,
            private=True,
            context_tokens=int(entry.options.get("n_ctx", DEFAULT_CONTEXT_TOKENS)),
            price=price,
            quality=1 if catalogue.active(entry) else 0,
        )
        for entry in installed or [entry for entry in entries if catalogue.active(entry)]
    ]
