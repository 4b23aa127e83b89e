"""The way of an answer's pieces to the event loop: the first at once, quick ones together, the end at once."""

import asyncio

import pytest

from neuroedge.runtimes import llama_answer
from neuroedge.runtimes.llama_answer import Chunk, Mailbox

pytestmark = pytest.mark.anyio
A, B, C = ({"choices": [{"delta": {"content": text}}]} for text in "abc")


async def _put(mailbox: Mailbox, *chunks: Chunk | None) -> None:
    """From another thread, as llama.cpp does."""
    for chunk in chunks:
        assert await asyncio.to_thread(mailbox.put, chunk)


async def _soon(mailbox: Mailbox) -> list[Chunk | None]:
    async with asyncio.timeout(60):
        return await mailbox.get()


async def test_the_first_is_handed_on_at_once_and_so_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long quick ones would be gathered, and whatever has been gathered comes with the end."""
    monkeypatch.setattr(llama_answer, "REST_S", 600.0)
    mailbox = Mailbox(asyncio.get_running_loop())
    await _put(mailbox, A)
    assert await _soon(mailbox) == [A]
    await _put(mailbox, B)
    gathering = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0.05)
    await _put(mailbox, C)
    await asyncio.sleep(0.05)
    assert not gathering.done()
    await _put(mailbox, None)
    async with asyncio.timeout(60):
        assert await gathering == [B, C, None]


async def test_quick_ones_come_together_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a new one and without the end."""
    monkeypatch.setattr(llama_answer, "REST_S", 0.2)
    mailbox = Mailbox(asyncio.get_running_loop())
    await _put(mailbox, A)
    assert await _soon(mailbox) == [A]
    await _put(mailbox, B, C)
    assert await _soon(mailbox) == [B, C]


async def test_a_wake_up_from_before_does_not_end_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was ordered when the reader was not resting yet."""
    monkeypatch.setattr(llama_answer, "REST_S", 600.0)
    mailbox = Mailbox(asyncio.get_running_loop())
    await _put(mailbox, A)
    await _soon(mailbox)
    mailbox.put(B)  # orders a wake-up, which comes when the reader rests already
    resting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0.05)
    assert not resting.done()
    await _put(mailbox, None)
    async with asyncio.timeout(60):
        assert await resting == [B, None]


async def test_slow_ones_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each when it is there."""
    monkeypatch.setattr(llama_answer, "REST_S", 0.0)
    mailbox = Mailbox(asyncio.get_running_loop())
    for chunk in (A, B, C, None):
        reading = asyncio.create_task(_soon(mailbox))
        await asyncio.sleep(0)
        await _put(mailbox, chunk)
        assert await reading == [chunk]


async def test_a_reader_that_leaves_while_it_rests_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes afterwards is still taken."""
    monkeypatch.setattr(llama_answer, "REST_S", 600.0)
    mailbox = Mailbox(asyncio.get_running_loop())
    await _put(mailbox, A)
    await _soon(mailbox)
    await _put(mailbox, B)
    resting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0.05)
    resting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resting
    await _put(mailbox, C, None)
    assert await _soon(mailbox) == [B, C, None]


async def test_nobody_listens_when_the_loop_is_closed() -> None:
    """The answer is then ended."""
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    assert not mailbox.put(A)
    assert not mailbox.put(B)
