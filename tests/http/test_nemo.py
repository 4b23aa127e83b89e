"""NeMo's upload, which answers when the transcript is ready: how long it waits."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import anyio
import pytest
from starlette.testclient import TestClient

from neuroedge.http.dialects.nemo import router
from neuroedge.services.progress import PING, ProgressEvent
from neuroedge.services.recording_progress import RecordingProgress
from tests.fakes import make_principal
from tests.http.plain_platform import make_app, token

RECORDING = UUID(int=7)


class Recordings:
    """Takes every file."""

    async def add(self, upload: Any, **order: Any) -> Any:
        """Kept, and being worked on."""
        return SimpleNamespace(id=RECORDING)


class Endless(RecordingProgress):
    """The work never ends."""

    def __init__(self) -> None:
        """Neither database nor events."""

    async def follow(self, principal: Any, recording_id: UUID, *, after: str | None = None) -> Any:
        """Signs of life only."""

        async def events() -> AsyncIterator[ProgressEvent]:
            while True:
                await anyio.sleep(0.01)
                yield PING

        return events()


@pytest.mark.parametrize(("patience", "limit_s"), [("0.2", 600.0), (None, 0.2), ("600", 0.2)])
def test_the_upload_waits_as_long_as_the_caller_and_the_server_will(
    tmp_path: Path, patience: str | None, limit_s: float
) -> None:
    """X-Request-Timeout, or NEUROEDGE_REQUEST_TIMEOUT_S where that is less: then 408, and the work goes on."""
    app = make_app(router, recordings=Recordings(), recording_progress=Endless())
    app.state.platform.settings = SimpleNamespace(data_dir=tmp_path, max_upload_bytes=1000, request_timeout_s=limit_s)
    (tmp_path / "tmp").mkdir()
    headers = token(app, make_principal()) | ({"X-Request-Timeout": patience} if patience else {})
    began = time.monotonic()
    answer = TestClient(app).post("/transcription/upload", files={"file": ("a.wav", b"x")}, headers=headers)
    assert time.monotonic() - began < 60
    assert answer.status_code == 408
    assert answer.json()["code"] == "deadline_exceeded"
    assert str(RECORDING) in answer.json()["hint"]
