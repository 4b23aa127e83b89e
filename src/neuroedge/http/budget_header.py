"""Soft budgets that are reached, told with every answer that language models had a part in."""

from typing import Final

from starlette.requests import HTTPConnection

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import platform_of
from neuroedge.services.llm.budgets import Standing

SCOPE: Final = "budget"
"""Under this name http/middleware.py finds the header's value, as `bytes`."""


async def tell_budget(request: HTTPConnection, principal: Principal) -> None:
    """Put `x-neuroedge-budget` on the answer, with each soft limit that is reached; before the answer begins.

    What is spent is what was known some seconds ago at most. While it cannot be read, nothing is told: an answer that
    is there is not lost for a header.
    """
    try:
        reached = await platform_of(request).budgets.reached(principal)
    except NeuroEdgeError:
        return
    if reached:
        request.scope[SCOPE] = ", ".join(map(_line, reached)).encode()


def _line(one: Standing) -> str:
    used = one.cost_usd + one.reserved_usd
    return f"soft-limit-reached; scope={one.scope}; period={one.period}; used={used:f}; limit={one.soft_usd:f}"
