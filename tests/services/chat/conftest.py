"""An assistant, who asks it, and where; a module that needs more of the bench makes its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.postgres import Database
from tests.services.chat.assistant_bench import AssistantBench
from tests.stores.conftest import new_principal


@pytest.fixture
async def bench(db: Database, tmp_path: Path) -> AsyncIterator[AssistantBench]:
    """An assistant without memories."""
    queue = JobQueue(db.pool)
    await queue.open()
    made = AssistantBench(db, queue, tmp_path)
    yield made
    await made.assistant.settled()


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


@pytest.fixture
async def session(bench: AssistantBench, caller: Principal) -> Session:
    """An empty session."""
    return await bench.chats.create(caller, request_id="r")
