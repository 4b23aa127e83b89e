"""Commands to Valkey, apart from the tasks that ask for them."""

import asyncio

import pytest
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from neuroedge.infra.valkey_commands import ValkeyCommands

pytestmark = pytest.mark.anyio


class Server:
    """Answers when told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.done = False

    async def command(self) -> str:
        """One command."""
        self.asked.set()
        await self.go.wait()
        self.done = True
        return "OK"


async def test_an_answer_and_an_error_come_back_as_they_are() -> None:
    """The caller sees what the client gave."""
    commands, server = ValkeyCommands(timeout_s=10), Server()
    server.go.set()
    assert await commands.run(server.command()) == "OK"

    async def fail() -> None:
        raise ValkeyConnectionError("away")

    with pytest.raises(ValkeyConnectionError, match="away"):
        await commands.run(fail())
    await commands.settled()


async def test_a_caller_that_leaves_is_cancelled_and_its_command_ends_by_itself() -> None:
    """Settling waits for it."""
    commands, server = ValkeyCommands(), Server()
    caller = asyncio.create_task(commands.run(server.command()))
    await server.asked.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert not server.done
    settling = asyncio.create_task(commands.settled())
    await asyncio.sleep(0)
    assert not settling.done()
    server.go.set()
    await settling
    assert server.done


async def test_a_server_that_never_answers_is_given_up() -> None:
    """The caller hears of it in time; settling cancels the command."""
    commands, server = ValkeyCommands(timeout_s=0.05), Server()
    with pytest.raises(ValkeyTimeoutError):
        await commands.run(server.command())
    await commands.settled()
    server.go.set()
    await asyncio.sleep(0)
    assert not server.done


async def test_an_error_nobody_waits_for_is_not_reported_as_forgotten() -> None:
    """asyncio complains of exceptions that were never retrieved."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    commands = ValkeyCommands()

    async def fail() -> None:
        raise ValkeyConnectionError("away")

    begun = commands.begin(fail())
    await asyncio.wait([begun])
    del begun
    await commands.settled()
    assert complaints == []
