"""Fixtures all tests share: model store, the sample call, one real server, accounts on it."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from hypothesis import settings as hypothesis_settings

from neuroedge.infra.cancellation import keep_cancellations
from neuroedge.settings import default_data_dir

# Speed is measured in benchmarks/; a busy machine fails no test.
hypothesis_settings.register_profile("neuroedge", deadline=None)
hypothesis_settings.load_profile("neuroedge")

# As every process of the product does.
keep_cancellations()

# The many processes that tests start run as a user's do: what Python compiled is kept for the next one.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class SampleCall:
    """The real two-speaker telephone call with its references."""

    wav: Path
    rttm: Path
    stm: Path


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The model store with the default set pulled (`make setup`)."""
    return Path(os.environ.get("NEUROEDGE_MODELS_DIR") or default_data_dir() / "models")


@pytest.fixture(scope="session")
def sample_call(models_dir: Path) -> SampleCall:
    """A 30 s two-speaker telephone call with who-spoke-when (RTTM) and words (STM)."""
    folder = models_dir / "sample-call"
    return SampleCall(wav=folder / "sample.wav", rttm=folder / "sample.rttm", stm=folder / "sample.stm")


@dataclass
class Server:
    """A `neuroedge serve` process started for the tests."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str]
    env: dict[str, str]

    def new_account(self) -> httpx.Client:
        """A client logged in as the owner of an organisation of its own."""
        name = f"user-{secrets.token_hex(6)}"
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        with httpx.Client(base_url=self.url, timeout=60) as client:
            assert client.post("/auth/register", json=body).status_code == 201
        return self.log_in(name)

    def new_operator(self) -> httpx.Client:
        """A client logged in as an operator of the installation."""
        name = f"operator-{secrets.token_hex(6)}"
        command = [sys.executable, "-m", "neuroedge", "users", "create", name, f"{name}@example.org", "--admin"]
        subprocess.run(command, env={**self.env, "NEUROEDGE_PASSWORD": PASSWORD}, check=True, capture_output=True)
        return self.log_in(name)

    def metric(self, line: str) -> float | None:
        """The value of a line of /metrics, by its name and labels as they stand there; None without it."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def log_in(self, name: str) -> httpx.Client:
        """A client with a user's token."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            tokens = client.post("/auth/login", json={"username": name, "password": PASSWORD}).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        return httpx.Client(base_url=self.url, timeout=300, headers=headers)


StartServer = Callable[..., contextlib.AbstractContextManager[Server]]


def environment(data_dir: Path, models_dir: Path, **more: str) -> dict[str, str]:
    """The environment of a NeuroEdge process on a data directory of its own."""
    return {
        **os.environ,
        "NEUROEDGE_DATA_DIR": str(data_dir),
        "NEUROEDGE_MODELS_DIR": str(models_dir),
        "NEUROEDGE_LOGIN_ATTEMPTS_PER_MINUTE": "100000",
        "NEUROEDGE_ARGON2_MEMORY_MIB": "19",
        "NEUROEDGE_JOB_HEARTBEAT_S": "0.5",
        "NEUROEDGE_JOB_STALLED_S": "5",
        **more,
    }


_TEMPLATE = Path()


@pytest.fixture(scope="session", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the data directory lies that new servers begin with; all workers of a run share it."""
    global _TEMPLATE
    root = tmp_path_factory.getbasetemp()
    _TEMPLATE = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "template"


def begin_data_dir(data_dir: Path) -> None:
    """A data directory as a first start leaves it: secrets, an empty migrated database. Made once a run, then copied:
    that takes a fraction of a second instead of some."""
    with FileLock(_TEMPLATE.with_suffix(".lock")):
        if not _TEMPLATE.exists():
            made = _TEMPLATE.with_suffix(".new")
            made.mkdir(mode=0o755)
            env = {**os.environ, "NEUROEDGE_DATA_DIR": str(made / "data")}
            command = [sys.executable, "-m", "neuroedge", "db", "upgrade"]
            subprocess.run(command, env=env, check=True, capture_output=True, timeout=250)
            made.rename(_TEMPLATE)
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", _TEMPLATE / "data", data_dir], check=True)


@contextlib.contextmanager
def running_server(data_dir: Path, models_dir: Path, **more: str) -> Iterator[Server]:
    """Serve on a free port until the block ends."""
    env = environment(data_dir, models_dir, **more)
    if not data_dir.exists() and not env.keys() & {"POSTGRES_URL", "NEUROEDGE_POSTGRES_URL"}:
        begin_data_dir(data_dir)
    with (data_dir.parent / f"{data_dir.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "neuroedge", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=env,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ready at" in line, Path(log.name).read_text()[-3000:]
        yield Server(url=line.split("ready at ")[1].split()[0], data_dir=data_dir, process=process, env=env)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """One server for all tests; each test uses organisations of its own."""
    with running_server(tmp_path_factory.mktemp("server") / "data", models_dir) as running:
        yield running


@pytest.fixture
def account(server: Server) -> Iterator[httpx.Client]:
    """The owner of a fresh organisation."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def refused(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation for requests that are all refused: as nothing of them is kept, tests share it."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="session")
def operator(server: Server) -> Iterator[httpx.Client]:
    """An operator of the installation."""
    with server.new_operator() as client:
        yield client


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    """The owner of another organisation."""
    with server.new_account() as client:
        yield client
