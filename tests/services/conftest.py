"""The database of the stores' tests, for services whose promises are kept by transactions."""

from tests.stores.conftest import db, migrated

__all__ = ["db", "migrated"]
