"""The model pool: loaded once, never unloaded while held, honest about failures."""

import asyncio
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import Conflict, ModelUnavailable
from neuroedge.contract.models import CHAT, VOICE_ACTIVITY
from neuroedge.runtimes import pool as pool_module
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry
from neuroedge.runtimes.pool import Pool

pytestmark = pytest.mark.anyio


class Loaded:
    """What the test's runtime makes."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A runtime module whose load counts, can wait and can fail."""
    module: Any = types.ModuleType("test_runtime")
    module.loads = 0
    module.fail = None
    module.gate = threading.Event()
    module.gate.set()

    def load(model_id: str, folder: Path, *, threads: int, options: dict[str, Any]) -> Loaded:
        module.loads += 1
        module.gate.wait(10)
        if module.fail:
            raise module.fail
        return Loaded()

    module.load = load
    monkeypatch.setitem(sys.modules, "test_runtime", module)
    monkeypatch.setitem(pool_module.RUNTIMES, "test", "test_runtime")
    yield module
    module.gate.set()


@pytest.fixture
def pool(tmp_path: Path, runtime: Any) -> Pool:
    """A pool with one chat model without files."""
    entry = ModelEntry(id="tiny", role="chat", runtime="test", licence="MIT", about="-", default=True)
    return Pool(Catalogue([entry], store=tmp_path, overrides={}), threads=1, device=lambda: "cpu")


async def test_many_leases_at_once_load_once(pool: Pool, runtime: Any) -> None:
    """Fifty callers get the same object."""

    async def hold() -> Any:
        async with pool.lease(CHAT) as model:
            await asyncio.sleep(0.01)
            return model

    models = await asyncio.gather(*(hold() for _ in range(50)))
    assert len({id(model) for model in models}) == 1
    assert runtime.loads == 1
    assert pool.status(CHAT).state == "ready"


async def test_a_model_in_use_is_not_unloaded(pool: Pool) -> None:
    """Unload waits for the lease, then frees; a lease that never ends is a conflict."""
    async with pool.lease(CHAT) as model:
        with pytest.raises(Conflict):
            await pool.unload("tiny", timeout_s=0.05)
        assert not model.closed  # type: ignore[attr-defined]
    await pool.unload("tiny")
    assert model.closed  # type: ignore[attr-defined]
    assert pool.status(CHAT).state == "unloaded"


async def test_a_model_loads_again_after_unload(pool: Pool, runtime: Any) -> None:
    """Unloading is no end."""
    for _ in range(3):
        async with pool.lease(CHAT):
            pass
        await pool.unload("tiny")
    assert runtime.loads == 3


async def test_a_failed_load_is_told_and_tried_again(pool: Pool, runtime: Any) -> None:
    """The error names the model and remedy; when the cause is gone, the next lease works."""
    runtime.fail = RuntimeError("bad weights")
    with pytest.raises(ModelUnavailable, match="bad weights") as caught:
        async with pool.lease(CHAT):
            pass
    assert "models verify tiny" in (caught.value.hint or "")
    assert pool.status(CHAT).state == "failed"
    runtime.fail = None
    async with pool.lease(CHAT):
        assert pool.status(CHAT).state == "ready"


async def test_a_caller_that_leaves_while_loading_does_not_break_the_model(pool: Pool, runtime: Any) -> None:
    """The load it started still serves the next caller."""
    runtime.gate.clear()

    async def hold() -> None:
        async with pool.lease(CHAT):
            pass

    leaving = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    runtime.gate.set()
    async with pool.lease(CHAT) as model:
        assert not model.closed  # type: ignore[attr-defined]


async def test_a_role_without_model_says_what_to_set(pool: Pool) -> None:
    """No model for a role: unavailable, with the setting's name."""
    with pytest.raises(ModelUnavailable) as caught:
        async with pool.lease(VOICE_ACTIVITY):
            pass
    assert "NEUROEDGE_MODELS" in (caught.value.hint or "")
    assert pool.status(VOICE_ACTIVITY).state == "missing"


async def test_closing_the_pool_frees_everything(pool: Pool) -> None:
    """Nothing stays in memory."""
    async with pool.lease(CHAT) as model:
        pass
    await pool.close()
    assert model.closed  # type: ignore[attr-defined]


async def test_an_idle_model_is_unloaded(tmp_path: Path, runtime: Any) -> None:
    """With idle_s set, a model nobody uses leaves memory by itself."""
    entry = ModelEntry(id="tiny", role="chat", runtime="test", licence="MIT", about="-", default=True)
    pool = Pool(Catalogue([entry], store=tmp_path, overrides={}), threads=1, device=lambda: "cpu", idle_s=1)
    reaper = asyncio.create_task(pool.reap_idle())
    async with pool.lease(CHAT):
        pass
    async with asyncio.timeout(10):
        while pool.status(CHAT).state == "ready":
            await asyncio.sleep(0.1)
    reaper.cancel()
