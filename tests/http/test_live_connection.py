"""A live session's connection that ends: who has left ends the session, and who was cut off may come back."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from neuroedge.http import live_connection
from neuroedge.http.routes.live import _Taking, _written
from neuroedge.services.live.session import LiveSession
from tests.http.scripted_socket import ScriptedSocket
from tests.services.live.scripted import pcm16, silence, spoken
from tests.services.live.test_sessions import Live

pytestmark = pytest.mark.anyio
TWO = pcm16(np.concatenate([spoken(0.1, 0.2), silence(0.8), spoken(0.3)]))
"""Two utterances; the second one goes on."""


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """Sessions whose recogniser takes its time."""
    found = Live()
    found.stt.delay_s = 0.1
    yield found
    await found.sessions.close()


async def served(live: Live, socket: ScriptedSocket, *commands: str, leaves: int | None) -> LiveSession:
    """A session whose client sends two utterances and commands, and is gone before any text; after its connection."""
    connection = socket.connection()
    live.holder = connection.lost
    session = await live.start()
    serving = asyncio.create_task(
        connection.serve(session, after=0, written=_written, take=_Taking(connection, session))
    )
    socket.say(TWO)
    for command in commands:
        socket.ask(type=command)
    await live.stt.called.wait()
    if leaves is None:
        socket.break_off()
    else:
        socket.leave(leaves)
    await serving
    return session


@pytest.mark.parametrize("code", [1000, 1001])
@pytest.mark.parametrize(
    ("commands", "reason"), [((), "left"), (("flush",), "left"), (("stop",), "stopped"), (("flush", "stop"), "left")]
)
async def test_who_leaves_while_texts_are_pending_has_left(
    live: Live, code: int, commands: tuple[str, ...], reason: str
) -> None:
    """The session ends at once, though the first text finds the connection gone before its close code is read."""
    session = await served(live, ScriptedSocket(live.sessions), *commands, leaves=code)
    assert session.reason == reason
    assert not live.sessions.held(session, live.holder)


@pytest.mark.parametrize("leaves", [1006, 1005, None], ids=["cut off", "without a code", "silent"])
async def test_a_connection_that_broke_while_texts_are_pending_is_waited_for(
    live: Live, monkeypatch: pytest.MonkeyPatch, leaves: int | None
) -> None:
    """Whatever was asked for; where nothing tells why it is gone, that is found out soon."""
    monkeypatch.setattr(live_connection, "_WHY_GONE_S", 0.05)
    began = time.monotonic()
    session = await served(live, ScriptedSocket(live.sessions), "stop", leaves=leaves)
    assert time.monotonic() - began < 60
    assert session.reason is None
    again = await live.sessions.resume(live.me, session.id, asyncio.Event())
    await again.finish()
    assert [event.data["text"] for event in again.events.after(0) if event.type == "final"] == ["w10 w20", "w30"]


async def test_a_session_that_was_taken_over_meanwhile_goes_on(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old connection's end, whatever its code, is no concern of the new one's."""
    monkeypatch.setattr(live_connection, "_WHY_GONE_S", 60.0)
    socket = ScriptedSocket(live.sessions)
    connection = socket.connection()
    live.holder = connection.lost
    session = await live.start()
    serving = asyncio.create_task(
        connection.serve(session, after=0, written=_written, take=_Taking(connection, session))
    )
    socket.say(TWO)
    socket.ask(type="flush")
    await live.stt.called.wait()
    socket.break_off()
    await asyncio.sleep(0.25)
    resumed = await live.sessions.resume(live.me, session.id, asyncio.Event())
    socket.leave(1000)
    await serving
    assert resumed.reason is None
    await resumed.finish()
