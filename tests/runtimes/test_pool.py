"""The model pool: loaded once, never unloaded while held, honest about failures."""

import asyncio
import contextlib
import gc
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from neuroedge.contract.errors import Conflict, ModelFailed, ModelUnavailable
from neuroedge.contract.models import CHAT, VOICE_ACTIVITY, ModelRef
from neuroedge.runtimes import opening
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry, Source, WeightFile
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings

pytestmark = pytest.mark.anyio


class Loaded:
    """What the test's runtime makes."""

    def __init__(self) -> None:
        self.closed = False
        self.close_error: Exception | None = None

    def close(self) -> None:
        """Remember it."""
        self.closed = True
        if self.close_error:
            raise self.close_error


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A runtime module whose load counts, can wait and can fail; `made` holds what it loaded."""
    module: Any = types.ModuleType("test_runtime")
    module.loads = 0
    module.made = []
    module.fail = None
    module.gate = threading.Event()
    module.gate.set()

    def load(model_id: str, folder: Path, *, threads: int, options: dict[str, Any]) -> Loaded:
        module.loads += 1
        module.gate.wait(60)
        if module.fail:
            raise module.fail
        model = Loaded()
        module.made.append(model)
        return model

    module.load = load
    monkeypatch.setitem(sys.modules, "test_runtime", module)
    monkeypatch.setitem(opening.RUNTIMES, "test", "test_runtime")
    yield module
    module.gate.set()


def make_pool(store: Path, *, models: Mapping[str, str], **settings: Any) -> Pool:
    """A pool of models without files, by id with their roles."""
    entries = [
        ModelEntry(id=id_, role=role, runtime="test", licence="MIT", about="-", default=True)
        for id_, role in models.items()
    ]
    chosen = PoolSettings(**{"cores": 1, "threads": 1, "budget_bytes": {}, **settings})
    return Pool(Catalogue(entries, store=store, overrides={}), chosen, router=Router("cpu"))


@pytest.fixture
def pool(tmp_path: Path, runtime: Any) -> Pool:
    """A pool with one chat model without files."""
    return make_pool(tmp_path, models={"tiny": "chat"})


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


async def _hold(pool: Pool, ref: ModelRef[Any] = CHAT) -> Any:
    async with pool.lease(ref) as model:
        return model


async def _leave_while_loading(pool: Pool, runtime: Any) -> None:
    """A caller starts a load, which its gate holds up, and is cancelled."""
    runtime.gate.clear()
    leaving = asyncio.create_task(_hold(pool))
    await _until(lambda: runtime.loads > 0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is awaited is set by another thread
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("part", ["catalogue.require", "_router.place"])
async def test_an_error_before_the_load_is_told_and_tried_again(
    pool: Pool, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process has too many files open: the model is not lost until a restart."""

    def fails(*args: Any, **options: Any) -> Any:
        raise OSError(24, "Too many open files")

    owner, name = part.split(".")
    with monkeypatch.context() as broken:
        broken.setattr(getattr(pool, owner), name, fails)
        with pytest.raises(ModelFailed, match="Too many open files"):
            await pool.load("tiny")
    assert [slot.entry.id for slot in pool.failed()] == ["tiny"]
    assert (await pool.load("tiny")).state == "ready"
    assert pool.failed() == []


async def test_a_model_that_was_never_fetched_is_missing_not_failed(tmp_path: Path, runtime: Any) -> None:
    """Nobody can make a server look broken by asking for what it does not have; a damaged file is a failure."""
    file = WeightFile(name="model.bin", bytes=3, sha256="0" * 64, source=(Source(bundled="x"),))
    entry = ModelEntry(id="tiny", role="chat", runtime="test", licence="MIT", about="-", default=True, file=(file,))
    settings = PoolSettings(cores=1, threads=1, budget_bytes={})
    pool = Pool(Catalogue([entry], store=tmp_path, overrides={}), settings, router=Router("cpu"))
    with pytest.raises(ModelUnavailable, match="missing"):
        await pool.load("tiny")
    assert (pool.failed(), pool.status(CHAT).state) == ([], "missing")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.bin").write_bytes(b"a")
    with pytest.raises(ModelUnavailable, match="is changed"):
        await pool.load("tiny")
    assert [slot.entry.id for slot in pool.failed()] == ["tiny"]


async def test_unloading_beside_callers_takes_the_model_from_none(pool: Pool) -> None:
    """Between the end of one lease and the unloading another may begin."""
    ended, held = False, 0

    async def calls() -> None:
        nonlocal held
        while not ended:
            async with pool.lease(CHAT) as model:
                await asyncio.sleep(0.001)
                assert not model.closed
                held += 1
            await asyncio.sleep(0)

    callers = [asyncio.create_task(calls()) for _ in range(3)]
    for _ in range(20):
        with contextlib.suppress(Conflict):
            await pool.unload("tiny", timeout_s=0.05)
        await asyncio.sleep(0.005)
    ended = True
    await asyncio.gather(*callers)
    assert held


async def test_a_caller_that_leaves_while_loading_does_not_break_the_model(pool: Pool, runtime: Any) -> None:
    """The load it started serves the next caller: no second one runs beside it, nothing is left unclosed."""
    await _leave_while_loading(pool, runtime)
    waiting = [asyncio.create_task(_hold(pool)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert pool.status(CHAT).state == "loading"
    runtime.gate.set()
    models = await asyncio.gather(*waiting)
    assert runtime.loads == 1
    assert models == runtime.made * 3
    await pool.close()
    assert [model.closed for model in runtime.made] == [True]


async def test_a_load_whose_first_caller_left_fails_for_those_who_stayed(pool: Pool, runtime: Any) -> None:
    """One failure for all who wait for it, and the state does not change back once a later load succeeded."""
    await _leave_while_loading(pool, runtime)
    runtime.fail = RuntimeError("bad weights")
    waiting = [asyncio.create_task(_hold(pool)) for _ in range(2)]
    await asyncio.sleep(0.05)
    runtime.gate.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [ModelFailed] * 2
    assert runtime.loads == 1
    runtime.fail = None
    async with pool.lease(CHAT) as model:
        await asyncio.sleep(0.05)
        assert pool.status(CHAT).state == "ready"
        assert not model.closed  # type: ignore[attr-defined]
    assert runtime.loads == 2


async def test_a_load_that_fails_after_all_callers_left_is_told(pool: Pool, runtime: Any) -> None:
    """The state says why, the loop has no exception nobody retrieved, and the next lease tries again."""
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    await _leave_while_loading(pool, runtime)
    runtime.fail = RuntimeError("bad weights")
    runtime.gate.set()
    await _until(lambda: pool.status(CHAT).state == "failed")
    assert "bad weights" in (pool.status(CHAT).detail or "")
    await asyncio.sleep(0)
    gc.collect()
    assert unhandled == []
    runtime.fail = None
    assert not (await _hold(pool)).closed


async def test_closing_the_pool_waits_for_a_running_load(pool: Pool, runtime: Any) -> None:
    """What is loaded while the process ends is freed too; who waits for it is told, and nothing loads any more."""
    await _leave_while_loading(pool, runtime)
    waiting = asyncio.create_task(_hold(pool))
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    runtime.gate.set()
    await closing
    assert [model.closed for model in runtime.made] == [True]
    with pytest.raises(ModelUnavailable, match="ending"):
        await waiting
    with pytest.raises(ModelUnavailable, match="ending"):
        await _hold(pool)
    assert runtime.loads == 1


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


@contextlib.asynccontextmanager
async def _reaping(store: Path, *, roles: Sequence[str]) -> AsyncIterator[Pool]:
    """A pool with a model a role, which unloads what nobody used for a second."""
    pool = make_pool(store, models={f"tiny-{role}": role for role in roles}, idle_s=1)
    reaper = asyncio.create_task(pool.watch())
    yield pool
    assert not reaper.done()
    reaper.cancel()


async def test_an_idle_model_is_unloaded(tmp_path: Path, runtime: Any) -> None:
    """With idle_s set, a model leaves memory by itself once nobody uses it, not while it is held, and can come back."""
    async with _reaping(tmp_path, roles=["chat"]) as pool:
        async with pool.lease(CHAT) as model:
            await asyncio.sleep(2.2)
            assert not model.closed  # type: ignore[attr-defined]
            assert pool.status(CHAT).state == "ready"
        await _until(lambda: runtime.made[0].closed)
        assert pool.status(CHAT).state == "unloaded"
        assert await _hold(pool) is runtime.made[1]


async def test_a_model_nobody_waited_for_is_unloaded_too(tmp_path: Path, runtime: Any) -> None:
    """All callers left while it loaded, so it was never leased."""
    async with _reaping(tmp_path, roles=["chat"]) as pool:
        await _leave_while_loading(pool, runtime)
        runtime.gate.set()
        await _until(lambda: bool(runtime.made) and runtime.made[0].closed)
        assert pool.status(CHAT).state == "unloaded"


async def test_a_model_that_does_not_close_is_logged_and_the_others_still_leave(tmp_path: Path, runtime: Any) -> None:
    """Neither the task that unloads idle models nor the end of the process stops at it."""
    async with _reaping(tmp_path, roles=["chat", "voice_activity"]) as pool:
        broken = await _hold(pool)
        broken.close_error = RuntimeError("device lost")
        with structlog.testing.capture_logs() as logs:
            other = await _hold(pool, VOICE_ACTIVITY)
            await _until(lambda: bool(other.closed))
        failures = [(log["event"], log["model"]) for log in logs if log["log_level"] == "error"]
        assert failures == [("model_not_closed", "tiny-chat")]
        broken, last = await _hold(pool), await _hold(pool, VOICE_ACTIVITY)
        broken.close_error = RuntimeError("device lost")
        await pool.close()
        assert broken.closed
        assert last.closed
