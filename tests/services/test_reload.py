"""Hot reload in one process: what takes over, what is thrown away, and that nothing stays behind."""

import asyncio
import gc
import importlib
import json
import os
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from uuid import uuid4

import pytest
from pydantic import BaseModel

from neuroedge.contract.engine import Engine
from neuroedge.contract.errors import Conflict, NotFound
from neuroedge.executors.local import LocalExecutor
from neuroedge.infra.events import Event
from neuroedge.infra.telemetry import Metrics
from neuroedge.services import engine_proof
from neuroedge.services.engines import Registry
from neuroedge.services.reload import EngineReloader
from tests.fakes import make_context, make_principal

pytestmark = pytest.mark.anyio

SOURCE = '''
"""A third party's engine."""
from __future__ import annotations
import asyncio
from dataclasses import dataclass
from typing import Literal
from pydantic import Field
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput, Health
{top}

class Part(EngineInput):
    parts: list[Part] = []

class Input(EngineInput):
    text: str = "hello"
    wait: bool = False
    part: Part | None = None
    kinds: list[Literal["a", "b"]] = []

class Output(EngineOutput):
    version: str
    part: Part | None = None

@dataclass
class Held:
    part: Part

class PluginEngine(Engine[Input, Output]):
    """Answers with its version."""
    name = "{name}"
    version = "{version}"
    title = "A plugin"
    method = "plugin"
    example = Input()
    {cls}

    async def run(self, payload: Input, ctx) -> Output:
        if payload.wait:
            await self.gate.wait()
        return Output(method=self.method, version=self.version, part=payload.part)
'''


def source(version: str = "2", *, name: str = "plugin", top: str = "", cls: str = "") -> str:
    """A version of the plugin; `top` goes to the module, `cls` into the class."""
    return SOURCE.format(name=name, version=version, top=top, cls=cls)


class FakeEvents:
    """Keeps what is published; hands out what is broadcast."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, dict[str, Any]]] = []
        self.channel: asyncio.Queue[Event] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []

    async def publish(self, org_id: Any, topic: str, name: str, data: dict[str, Any]) -> None:
        """Keep it; what is no JSON fails here as it does with Valkey."""
        self.published.append((topic, name, json.loads(json.dumps(data))))

    async def broadcast(self, channel: str, name: str, data: dict[str, Any]) -> None:
        """To all who listen."""
        self.sent.append(data)
        self.channel.put_nowait(Event(id="1-0", name=name, data=json.loads(json.dumps(data))))

    async def listen(self, channel: str) -> AsyncIterator[Event]:
        """What is broadcast."""
        while True:
            yield await self.channel.get()


class FakeDatabase:
    """Keeps the values of every INSERT."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.away = False

    @asynccontextmanager
    async def unbound(self) -> AsyncIterator["FakeDatabase"]:
        """A transaction."""
        if self.away:
            raise OSError("the database is away")
        yield self

    async def execute(self, statement: str, values: list[Any]) -> None:
        """Keep rows; binding a tenant makes none."""
        if statement.startswith("INSERT INTO audit"):
            self.rows.append(values)


class Process:
    """One process with one engine, the plugin."""

    def __init__(self, module: str, *, proof_s: float = 60.0, drain_s: float = 60.0) -> None:
        self.probe = make_context()
        engine = importlib.import_module(module).PluginEngine(probe=self.probe)
        self.registry = Registry([engine])
        self.executor = LocalExecutor()
        self.metrics = Metrics()
        self.events = FakeEvents()
        self.db = FakeDatabase()
        self.reloader = EngineReloader(
            registry=self.registry,
            executor=self.executor,
            probe=self.probe,
            db=self.db,  # type: ignore[arg-type]
            events=self.events,  # type: ignore[arg-type]
            metrics=self.metrics,
            proof_s=proof_s,
            drain_s=drain_s,
        )

    @property
    def engine(self) -> Engine[Any, Any]:
        """Who answers now."""
        return self.registry.get("plugin")

    async def reload(self) -> Any:
        """Reload the plugin."""
        return await self.reloader.reload("plugin", principal=make_principal(), request_id="r-1")

    async def answer(self, **payload: Any) -> BaseModel:
        """Call the plugin as requests do."""
        engine = self.engine
        return await self.executor.run(engine, engine.Input.model_validate(payload), self.probe)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a third party with version 1; its name is new to the process."""
    # Two versions of one size within one second: Python would take what it compiled of the first for the second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"acme_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(source("1"))
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def write(tmp_path: Path, module: str) -> Callable[[str], None]:
    """Puts a new version on disk."""

    def put(text: str) -> None:
        (tmp_path / f"{module}.py").write_text(text)

    return put


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_good_version_takes_over_and_is_told_of(module: str, write: Callable[[str], None]) -> None:
    """Outcome, event, audit row and metric name both versions; the live module is the new one."""
    process = Process(module)
    old = sys.modules[module]
    write(source("2"))
    outcome = await process.reload()
    assert (outcome.outcome, outcome.version_before, outcome.version_after) == ("swapped", "1", "2")
    assert (outcome.generation, outcome.stage, outcome.drained) == (2, None, True)
    assert (await process.answer()).model_dump()["version"] == "2"
    assert sys.modules[module] is not old
    assert process.engine.__class__ is sys.modules[module].PluginEngine  # type: ignore[attr-defined]
    [(topic, name, event)] = process.events.published
    assert (topic, name) == ("admin-events", "engine.reload")
    assert (event["outcome"], event["version_before"], event["version_after"]) == ("swapped", "1", "2")
    [row] = process.db.rows
    assert row[3:6] == ["r-1", "engine.reloaded", "engine:plugin"]
    labels = {"engine": "plugin", "outcome": "swapped", "version": "2"}
    assert process.metrics.registry.get_sample_value("neuroedge_engine_reloads_total", labels) == 1


async def test_the_new_module_looks_like_an_imported_one(module: str, write: Callable[[str], None]) -> None:
    """No alias is left: classes, module and spec have the module's own name, and imports find it."""
    process = Process(module)
    write(source("2"))
    before = set(sys.modules)
    await process.reload()
    assert set(sys.modules) == before
    found = importlib.import_module(module)
    assert found.__name__ == found.__spec__.name == module  # type: ignore[union-attr]
    for cls in (found.PluginEngine, found.Part, found.Held, found.Input):
        assert cls.__module__ == module
    assert found.PluginEngine.run.__module__ == module
    assert importlib.reload(found).PluginEngine.version == "2"


async def test_names_in_annotations_are_the_new_modules_own(module: str, write: Callable[[str], None]) -> None:
    """Forward references and self-reference resolve inside the copy, not in the version in use."""
    process = Process(module)
    write(source("2").replace("parts: list[Part] = []", "parts: list[Part] = []\n    more: list[Part] = []"))
    await process.reload()
    payload = {"part": {"parts": [{"more": [{}]}]}}
    answer = await process.answer(**payload)
    assert isinstance(answer.part, sys.modules[module].Part)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="other"):
        await process.answer(part={"other": 1})


async def test_same_size_and_time_stamp_do_not_hide_a_change(module: str, tmp_path: Path) -> None:
    """The source is read, not a .pyc that looks as new."""
    process = Process(module)
    path = tmp_path / f"{module}.py"
    stamp = path.stat()
    path.write_text(source("2"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    assert (await process.reload()).version_after == "2"


def answering(body: str) -> str:
    """A version whose health does this."""
    return source(cls=f"async def health(self): {body}")


def checking(body: str) -> str:
    """A version whose self-test does this."""
    return source(cls=f"async def post_swap_test(self): {body}")


HANGS = "async def post_swap_test(self):\n        await asyncio.sleep(1000)"
STUBBORN = """async def post_swap_test(self):
        while True:
            try:
                await asyncio.sleep(1000)
            except BaseException:
                if self.left: raise
                self.left = True
    left = False"""
BROKEN: list[tuple[str, str, str, str]] = [
    ("syntax error", "def broken(:", "import", "SyntaxError"),
    ("zero bytes", "\x00", "import", ""),
    ("no text", "x = '\udcff'", "import", "SyntaxError"),
    ("import error", source(top="import no_such_module_at_all"), "import", "ModuleNotFoundError: No module named"),
    ("raises at import", source(top="raise RuntimeError('boom')"), "import", "RuntimeError: boom (acme_"),
    ("stop iteration", source(top="raise StopIteration"), "import", "StopIteration"),
    ("exits", source(top="import sys; sys.exit(3)"), "import", "SystemExit: 3"),
    ("interrupts", source(top="raise KeyboardInterrupt"), "import", "KeyboardInterrupt"),
    ("base exception", source(top="raise BaseException('odd')"), "import", "BaseException: odd"),
    ("sleeps at import", source(top="import time; time.sleep(30)"), "import", "time limit"),
    ("loops at import", source(top="while True: pass"), "import", "time limit"),
    ("empty", "", "contract", "it holds 0"),
    ("renamed", source(name="plugged"), "contract", "must hold one engine named plugin"),
    ("another base", source().replace("Engine[Input, Output]", "object"), "contract", "it holds 0"),
    ("abstract", source().replace("async def run", "async def walk"), "contract", "is no engine"),
    ("no example", source().replace("example = Input()", ""), "contract", "lacks example"),
    ("no method", source().replace('method = "plugin"', ""), "contract", "lacks method"),
    ("odd example", source().replace("example = Input()", "example = Part()"), "contract", "not of its Input"),
    ("example no model", source().replace("example = Input()", "example = 7"), "contract", "example of"),
    ("version no text", source().replace('version = "2"', "version = 2"), "contract", "version of"),
    ("no time", source(cls="timeout_s = 0"), "contract", "timeout_s"),
    ("odd needs", source(cls='needs = ("chat",)'), "contract", "needs"),
    ("schema", source(cls="class Odd: pass").replace("kinds:", "odd: type = int\n    kinds:"), "contract", "Schema"),
    ("constructor", source(cls="def __init__(self, *, probe): raise OSError('no')"), "build", "OSError: no"),
    ("constructor hangs", source(cls="def __init__(self, *, probe): __import__('time').sleep(30)"), "build", "limit"),
    ("no probe", source(cls="def __init__(self): pass"), "build", "TypeError"),
    ("unavailable", answering("return Health(status='unavailable', method='m', detail='gone')"),
     "health", "gone"),
    ("health raises", answering("raise ValueError('ill')"), "health", "ValueError: ill"),
    ("health is none", answering("return None"), "health", "NoneType"),
    ("health is no coroutine", source(cls="def health(self): return 1"), "health", "TypeError"),
    ("health exits", answering("raise SystemExit"), "health", "SystemExit"),
    ("test raises", checking("raise AssertionError('wrong')"), "post_swap_test", "wrong"),
    ("test exits", checking("raise SystemExit(1)"), "post_swap_test", "SystemExit"),
    ("test interrupts", checking("raise KeyboardInterrupt"), "post_swap_test", "Keyb"),
    ("test cancels", checking("raise asyncio.CancelledError"), "post_swap_test", "Canc"),
    ("test hangs", source(cls=HANGS), "post_swap_test", "time limit"),
    ("test hangs on", source(cls=STUBBORN), "post_swap_test", "time limit"),
    ("run raises", source().replace("if payload.wait", "if [][0]"), "post_swap_test", "IndexError"),
    ("run lies", source().replace("return Output(", "return dict("), "post_swap_test", "AttributeError"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "stage", "detail"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN])
async def test_a_broken_version_changes_nothing(
    module: str,
    write: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    stage: str,
    detail: str,
) -> None:
    """The old one stays with its module; outcome, event, row and metric tell the stage and the reason."""
    process = Process(module)
    if "limit" in detail:
        process.reloader._proof_s = _hurried(monkeypatch, stage)
    old, live, before = process.engine, sys.modules[module], set(sys.modules)
    (tmp_path / f"{module}.py").write_bytes(text.encode("utf-8", "surrogateescape"))
    outcome = await process.reload()
    assert (outcome.outcome, outcome.stage) == ("rolled_back", stage), outcome
    assert detail in outcome.detail
    assert (outcome.version_before, outcome.version_after, outcome.generation) == ("1", "1", 1)
    assert process.engine is old
    assert sys.modules[module] is live
    assert set(sys.modules) == before
    assert (await process.answer()).model_dump()["version"] == "1"
    assert process.events.published[0][2]["stage"] == stage
    assert process.events.sent == []
    assert process.db.rows[0][4] == "engine.reload_rolled_back"
    labels = {"engine": "plugin", "outcome": "rolled_back", "version": "1"}
    assert process.metrics.registry.get_sample_value("neuroedge_engine_reloads_total", labels) == 1
    # A reload after the repair goes through, however slow the machine.
    process.reloader._proof_s = 60.0
    write(source("3"))
    assert (await process.reload()).version_after == "3"


def _hurried(monkeypatch: pytest.MonkeyPatch, stage: str) -> float:
    """The limit of a proof that has time for all stages before this one, and half a second left for it."""
    stages = get_args(engine_proof.Stage)
    if stage == stages[0]:
        return 0.5
    before, attempt, now = stages[stages.index(stage) - 1], engine_proof._attempt, [0.0]

    async def attempted(at: engine_proof.Stage, *asked: Any, **more: Any) -> Any:
        try:
            return await attempt(at, *asked, **more)
        finally:
            if at == before:
                now[0] = 59.5

    monkeypatch.setattr(engine_proof, "_attempt", attempted)
    monkeypatch.setattr(engine_proof, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return 60.0


async def test_a_file_that_is_gone_changes_nothing(module: str, tmp_path: Path) -> None:
    """Deleted while it was served."""
    process = Process(module)
    (tmp_path / f"{module}.py").unlink()
    outcome = await process.reload()
    assert (outcome.stage, outcome.version_after) == ("import", "1")
    assert "FileNotFoundError" in outcome.detail


async def test_an_engine_of_a_package_reloads_with_its_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An __init__.py is re-executed alone: its siblings are those already loaded."""
    name = f"acme_{uuid4().hex}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "words.py").write_text("WORD = 'sibling'")
    init = tmp_path / name / "__init__.py"
    init.write_text(source("1", top="from .words import WORD"))
    monkeypatch.syspath_prepend(tmp_path)
    process = Process(name)
    init.write_text(source("2", top="from .words import WORD\nfrom . import words"))
    before = set(sys.modules)
    outcome = await process.reload()
    assert (outcome.detail, outcome.version_after) == (None, "2")
    assert set(sys.modules) == before
    package = sys.modules[name]
    assert package.__path__ == [str(tmp_path / name)]
    assert package.words is sys.modules[f"{name}.words"]
    for key in (name, f"{name}.words"):
        del sys.modules[key]


async def test_calls_in_flight_finish_on_the_old_version(module: str, write: Callable[[str], None]) -> None:
    """The reload waits for them; new calls are answered by the new version meanwhile."""
    write(source("1", cls="gate = asyncio.Event()"))
    process = Process(module)
    old = process.engine
    calls = [asyncio.create_task(process.answer(wait=True)) for _ in range(20)]
    await asyncio.sleep(0)
    write(source("2"))
    reload = asyncio.create_task(process.reload())
    await until(lambda: process.engine is not old)
    assert (await process.answer()).model_dump()["version"] == "2"
    assert not reload.done()
    old.gate.set()  # type: ignore[attr-defined]
    assert [answer.model_dump()["version"] for answer in await asyncio.gather(*calls)] == ["1"] * 20
    assert (await reload).drained


async def test_an_old_call_that_does_not_end_is_not_waited_for_for_ever(
    module: str, write: Callable[[str], None]
) -> None:
    """After the limit the reload says that it is not drained; the call still gets its answer later."""
    write(source("1", cls="gate = asyncio.Event()"))
    process = Process(module, drain_s=0.05)
    old = process.engine
    call = asyncio.create_task(process.answer(wait=True))
    await asyncio.sleep(0)
    write(source("2"))
    outcome = await process.reload()
    assert (outcome.outcome, outcome.drained) == ("swapped", False)
    old.gate.set()  # type: ignore[attr-defined]
    assert (await call).model_dump()["version"] == "1"


async def test_a_second_reload_of_the_same_engine_is_refused(module: str, write: Callable[[str], None]) -> None:
    """Conflict while one runs; afterwards it is open again."""
    process = Process(module)
    write(source("2"))
    first, second = await asyncio.gather(process.reload(), process.reload(), return_exceptions=True)
    assert isinstance(second, Conflict)
    assert first.outcome == "swapped"  # type: ignore[union-attr]
    assert (await process.reload()).generation == 3


async def test_an_unknown_engine_is_not_found(module: str) -> None:
    """Before anything is loaded."""
    process = Process(module)
    with pytest.raises(NotFound):
        await process.reloader.reload("nothing", principal=make_principal(), request_id="r")


async def test_a_reload_goes_on_when_its_caller_leaves(module: str, write: Callable[[str], None]) -> None:
    """The swap does not stop half-way."""
    process = Process(module)
    write(source("2"))
    caller = asyncio.create_task(process.reload())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    await until(lambda: process.engine.version == "2")
    await process.reloader.close()


async def test_closing_ends_a_reload_that_runs(module: str, write: Callable[[str], None]) -> None:
    """The platform stops within moments; the old version stays."""
    process = Process(module, proof_s=1000)
    write(source("2", cls=HANGS))
    caller = asyncio.create_task(process.reload())
    await asyncio.sleep(0.1)
    await process.reloader.close()
    await asyncio.wait([caller], timeout=60)
    assert caller.cancelled()
    assert process.engine.version == "1"


async def test_an_audit_row_that_cannot_be_written_does_not_undo_the_swap(
    module: str, write: Callable[[str], None]
) -> None:
    """What is done is done, and logged."""
    process = Process(module)
    process.db.away = True
    write(source("2"))
    assert (await process.reload()).outcome == "swapped"


async def test_another_process_follows_through_the_same_proof(
    module: str, tmp_path: Path, write: Callable[[str], None]
) -> None:
    """It reloads once, tells its own outcome, and does not broadcast in turn; the origin does not follow itself."""
    here, there = Process(module), Process(module)
    there.events.channel = here.events.channel
    write(source("2"))
    await here.reload()
    following = asyncio.create_task(there.reloader.follow())
    await until(lambda: there.events.published)
    assert there.engine.version == "2"
    assert there.events.published[0][2]["process"] != here.events.published[0][2]["process"]
    assert there.events.sent == []
    assert there.db.rows[0][:1] == here.db.rows[0][:1]
    own = here.events.sent[0]
    for odd in ({}, {**own, "engine": "nothing"}, {**own, "org_id": 7}, own):
        here.events.channel.put_nowait(Event(id="2-0", name="engine.reload", data={"process": "other", **odd}))
    await until(lambda: there.registry.generation("plugin") == 3)
    following.cancel()
    await asyncio.wait([following])


async def test_fifty_reloads_leave_nothing_behind(module: str, write: Callable[[str], None]) -> None:
    """Old classes are collected, sys.modules is as long as before, also when every second version is rejected."""
    process = Process(module)
    await process.reload()
    modules, generations = len(sys.modules), []
    for n in range(50):
        broken = "async def post_swap_test(self): raise ValueError" if n % 2 else ""
        write(source(str(n), cls=broken))
        for cls in (type(process.engine), process.engine.Input, process.engine.Output):
            generations.append(weakref.ref(cls))
        await process.reload()
        await process.answer(kinds=["a"], part={})
    del cls
    assert len(sys.modules) == modules

    def left() -> list[str]:
        gc.collect()
        return sorted(c.__name__ for c in gc.get_objects() if isinstance(c, type) and _is_of(c, module))

    # Polled: the thread that built the last version may have its last step to do.
    await until(lambda: left() == ["Held", "Input", "Output", "Part", "PluginEngine"])
    assert {ref() for ref in generations} <= {None, type(process.engine), process.engine.Input, process.engine.Output}


def _is_of(cls: type, module: str) -> bool:
    return str(cls.__module__).startswith(module)
