"""Keys: UUIDv7 (RFC 9562), so that rows made together lie together in an index."""

from datetime import datetime
from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return uuid_utils.compat.uuid7()


def first_id_of(at: datetime) -> UUID:
    """The least key that can be made at a time or later, for ranges of keys: the first 48 bits are milliseconds."""
    return UUID(int=int(at.timestamp() * 1000) << 80)
