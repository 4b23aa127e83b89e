"""Commands to Valkey that end: with an answer, an error of ours, or the caller's cancellation."""

from collections.abc import Awaitable
from typing import TypeVar

import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.valkey_commands import ValkeyCommands

T = TypeVar("T")


class Commands(ValkeyCommands):
    """Runs commands of a client, each in a task of its own and for a limited time."""

    def __init__(self, client: "valkey.asyncio.Valkey", *, timeout_s: float) -> None:
        super().__init__(timeout_s=timeout_s)
        self.client = client

    async def run(self, command: Awaitable[T]) -> T:
        """The command's answer; Unavailable when there is none. A command that was left may still take effect."""
        try:
            return await super().run(command)
        except (ValkeyError, OSError) as error:
            raise Unavailable("Valkey does not answer", hint="check REDIS_URL and the server") from error
