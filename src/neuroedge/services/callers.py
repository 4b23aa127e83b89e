"""What every way in asks of a caller, HTTP and gRPC alike: whom a token names, and whether there are calls left."""

from dataclasses import dataclass
from typing import Final

from neuroedge.contract.errors import Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.infra.limits import Quota, RateLimits
from neuroedge.infra.tokens import AccessTokens
from neuroedge.services.api_keys import MARK, ApiKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Calls of one kind that an organisation may make a minute."""

    key: str
    what: str
    setting: str
    """The environment's name of how many; 0: no limit."""


ENGINE_CALLS: Final = Allowance(key="engines", what="engine calls", setting="NEUROEDGE_REQUESTS_PER_MINUTE")
PREDICTIONS: Final = Allowance(key="ml", what="predictions", setting="NEUROEDGE_ML_REQUESTS_PER_MINUTE")


async def principal_of(token: str, *, tokens: AccessTokens, api_keys: ApiKeys, address: str) -> Principal:
    """Whom an access token or an API key names; `address`: where from.

    Raises Unauthenticated; for an API key also Overloaded after many wrong ones, and Unavailable.
    """
    if token.startswith(MARK):
        return await api_keys.principal(token, address=address)
    return tokens.read(token)


async def spend(limits: RateLimits, allowance: Allowance, per_minute: int, principal: Principal) -> Quota | None:
    """Take one of the organisation's calls: where it stands then, None without a limit."""
    return await limits.spend(per_minute, allowance.key, principal.org_id.hex)


def granted(quota: Quota | None, allowance: Allowance) -> None:
    """Raises Overloaded for a call that was not granted."""
    if quota is not None and not quota.granted:
        raise Overloaded(
            f"your organisation has made its {quota.limit} {allowance.what} a minute",
            hint=f"send fewer, or let the operator raise {allowance.setting}",
            retry_after_s=quota.reset_s,
        )
