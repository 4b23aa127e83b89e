"""What callers from outside come with: API keys, and keys that make a repeated request one."""

from typing import Final

from neuroedge.bootstrap.core import Core
from neuroedge.services.api_keys import ApiKeys
from neuroedge.services.idempotency import Idempotency

_KEYS_PER_ADDRESS: Final = 10
"""An address may fail so many times as often with API keys as one user with passwords: gateways have many users."""


def api_keys_of(core: Core) -> ApiKeys:
    """API keys; whoever opens the platform closes them."""
    failures = core.settings.login_attempts_per_minute * _KEYS_PER_ADDRESS
    return ApiKeys(db=core.db, clock=core.clock, limits=core.limits, failures_per_minute=failures)


def idempotency_of(core: Core) -> Idempotency:
    """Answers kept for repeated requests; whoever opens the platform closes it."""
    return Idempotency(db=core.db, client=core.valkey)
