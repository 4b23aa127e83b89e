"""The database of the stores' tests, for what a tenant may do to it by SQL."""

from tests.stores.conftest import db, migrated

__all__ = ["db", "migrated"]
