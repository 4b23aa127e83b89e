"""The same provider once more: for what a moment may mend, and only while the caller has heard nothing."""

import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

import stamina

from neuroedge.contract.chat import ChatDelta
from neuroedge.contract.errors import Overloaded, ProviderFailed
from neuroedge.services.llm.lanes import NoPlace

ATTEMPTS: Final = 3
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
"""A provider that asks for more patience than this is left to others, or to the caller."""
JITTER_S: Final = 0.2
Deltas = AsyncGenerator[ChatDelta, None]


async def begun(make: Callable[[], Deltas], *, until: float) -> tuple[ChatDelta, Deltas]:
    """The first piece and the iterator of the others, from the first attempt that begins.

    `make` starts an attempt; `until`, on the clock of `time.monotonic`, ends waiting. Raises what the last attempt
    raised.
    """

    def again(error: Exception) -> bool | float:
        wait_s = retry_wait_s(error)
        if wait_s is None or time.monotonic() + (wait_s or FIRST_WAIT_S) >= until:
            return False
        return wait_s or True

    failed: Exception | None = None
    try:
        deltas = make()
        return await anext(deltas), deltas
    except Exception as error:
        if not again(error):
            raise
        failed = error
    # The machinery costs a part of the first piece's time: calls that need no second attempt do without it.
    async for attempt in stamina.retry_context(
        on=again,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=FIRST_WAIT_S,
        wait_max=LONGEST_WAIT_S,
        wait_jitter=JITTER_S,
    ):
        with attempt:
            if failed is not None:  # the first one, that was made
                first, failed = failed, None
                raise first
            deltas = make()
            return await anext(deltas), deltas
    raise AssertionError("the last attempt either begins or raises")


def retry_wait_s(error: Exception) -> float | None:
    """Seconds the provider asks to wait, 0 when it does not say; None: another attempt is of no use."""
    if isinstance(error, NoPlace) or not isinstance(error, Overloaded | ProviderFailed):
        return None
    if isinstance(error, ProviderFailed) and not error.transient:
        return None
    wait_s = float(error.retry_after_s or 0)
    return wait_s if wait_s <= LONGEST_WAIT_S else None
