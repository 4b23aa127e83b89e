"""A `neuroedge serve` process for a benchmark, on a data directory of its own, with its resident memory."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from neuroedge.settings import load_settings


@dataclass
class Served:
    """The running server."""

    url: str
    process: subprocess.Popen[str]
    ready_s: float
    """Seconds from starting the process until GET /ready answered 200."""

    def resident_mb(self) -> float:
        """Resident memory of the server process alone, MB; the embedded servers are processes of their own."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def log_in(self) -> httpx.Client:
        """A client of a fresh organisation."""
        name, password = f"bench-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        body = {"username": name, "email": f"{name}@example.org", "password": password}
        with httpx.Client(base_url=self.url) as client:
            client.post("/auth/register", json=body).raise_for_status()
            tokens = client.post("/auth/login", json={"username": name, "password": password}).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=600)


@contextlib.contextmanager
def serve(data_dir: Path, **env: str) -> Iterator[Served]:
    """Serve until the block ends."""
    started = time.perf_counter()
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "bench.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "neuroedge", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                "NEUROEDGE_MODELS_DIR": str(load_settings().model_store),
                **os.environ,
                "NEUROEDGE_DATA_DIR": str(data_dir),
                **env,
            },
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "ready at" not in line:
            raise SystemExit((data_dir / "bench.log").read_text()[-2000:])
        url = line.split("ready at ")[1].split()[0]
        while httpx.get(f"{url}/ready").status_code != httpx.codes.OK:
            time.sleep(0.02)
        yield Served(url=url, process=process, ready_s=time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()
