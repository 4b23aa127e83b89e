"""The database of the stores' tests, for services whose promises are kept by transactions."""

import pytest

from neuroedge.services import usage
from neuroedge.services.llm import ledger
from neuroedge.stores import connection, postgres
from tests.stores.conftest import db, migrated

__all__ = ["db", "migrated"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for some seconds is no database that is away."""
    monkeypatch.setattr(connection, "CONNECT_S", 60)
    monkeypatch.setattr(postgres, "_ACQUIRE_TIMEOUT_S", 60.0)
    for module, limit in ((ledger, "_BEGIN_S"), (ledger, "_LAST_FLUSH_S"), (usage, "_LAST_FLUSH_S")):
        monkeypatch.setattr(module, limit, 60.0)
