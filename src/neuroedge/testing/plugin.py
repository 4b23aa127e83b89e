"""The pytest plugin: a server that has the package under test installed, and a caller of it."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

pytest.register_assert_rewrite("neuroedge.testing.contract")
_READY = "ready at "


def pytest_configure(config: pytest.Config) -> None:
    """Make the contract's marker known."""
    config.addinivalue_line("markers", "models: needs the default models (`neuroedge models pull`)")


@pytest.fixture(scope="session")
def neuroedge_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this environment on a free port, its data in a temporary folder."""
    folder = tmp_path_factory.mktemp("neuroedge")
    env = {**os.environ, "NEUROEDGE_DATA_DIR": str(folder / "data")}
    with (folder / "server.log").open("w") as log:
        command = [sys.executable, "-m", "neuroedge", "serve", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert _READY in line, (folder / "server.log").read_text()[-3000:]
        yield line.split(_READY)[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def neuroedge_client(neuroedge_url: str) -> Iterator["httpx.Client"]:
    """The owner of a fresh organisation on that server; define a fixture of this name to use another one."""
    import httpx

    name = f"contract-{secrets.token_hex(6)}"
    login = {"username": name, "password": secrets.token_urlsafe(24)}
    with httpx.Client(base_url=neuroedge_url, timeout=120) as client:
        client.post("/auth/register", json={**login, "email": f"{name}@example.org"}).raise_for_status()
        tokens = client.post("/auth/login", json=login).raise_for_status().json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client
