"""Housekeeping goes round all organisations."""

from uuid import UUID, uuid4

import pytest

from neuroedge.contract.errors import Unavailable, VaultLocked
from neuroedge.services.housekeeping import in_each

pytestmark = pytest.mark.anyio


async def test_locked_keys_of_one_hold_up_no_other() -> None:
    """It is left out; the others are counted."""
    first, locked, last = uuid4(), uuid4(), uuid4()
    met: list[UUID] = []

    async def act(org_id: UUID) -> int:
        met.append(org_id)
        if org_id == locked:
            raise VaultLocked("the master key is another one")
        return 2

    assert await in_each([first, locked, last], act) == 4
    assert met == [first, locked, last]


async def test_a_database_that_is_away_ends_the_round() -> None:
    """The next round makes up for it."""

    async def act(_: UUID) -> int:
        raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        await in_each([uuid4()], act)
