"""Live transcription from a real browser: the code of docs/live.md in Chromium, with a call as its microphone."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from benchmarks.peer_whisper import wer

from tests.conftest import SampleCall, Server, running_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
DOC = Path(__file__).parents[2] / "docs" / "live.md"
BEGIN_S, SPOKEN_S = 6.3, 7.9
"""Of the sample call: from its first word to the end of "This is Diane in New Jersey"."""
PAGE = """<!doctype html><title>live</title><script type="module">
const tell = (what) => fetch("/told", {method: "POST", body: JSON.stringify(what)});
const accessToken = ACCESS_TOKEN, shown = {}, partials = [], warned = [];
const show = (utterance, stable, unstable) => {
  shown[utterance] = stable + unstable;
  if (unstable) partials.push(stable + unstable);
};
console.warn = (...words) => warned.push(words);
const supported = MediaRecorder.isTypeSupported.bind(MediaRecorder);
MediaRecorder.isTypeSupported = (type) => type.startsWith(RECORD) && supported(type);
try {
  EXAMPLE
  setTimeout(stop, LISTEN_MS);
  socket.onclose = (end) => tell({shown, partials, warned, mimeType, code: end.code});
} catch (error) { tell({error: String(error)}); }
</script>"""


class Site(ThreadingHTTPServer):
    """Serves one page, and takes what it tells."""

    def __init__(self, page: str) -> None:
        self.page = page.encode()
        self.told: Queue[dict[str, Any]] = Queue()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: ClassVar[Site]  # type: ignore[misc]

    def do_GET(self) -> None:
        """The page."""
        self._answer(self.server.page if self.path == "/" else b"")

    def do_POST(self) -> None:
        """What the page tells."""
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with the fast model."""
    settings = {"NEUROEDGE_MODELS": "speech_to_text=whisper-tiny-en"}
    with running_server(tmp_path_factory.mktemp("browser") / "data", models_dir, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory, sample_call: SampleCall) -> Path:
    """What the browser hears: the call from its first word on, then silence."""
    samples, rate_hz = soundfile.read(sample_call.wav, dtype="int16")
    path = tmp_path_factory.mktemp("microphone") / "call.wav"
    spoken = samples[int(BEGIN_S * rate_hz) : int((BEGIN_S + SPOKEN_S) * rate_hz)]
    with soundfile.SoundFile(path, "w", rate_hz, 1, subtype="PCM_16") as file:
        file.write(spoken)
        file.write(np.zeros(60 * rate_hz, np.int16))
    return path


def example(url: str) -> str:
    """The browser's code in docs/live.md, for this server."""
    found = re.search(r"```js\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert found
    code, places = re.subn(r"wss://HOST", url.replace("http", "ws"), found[1])
    assert places == 1
    return code


@contextmanager
def browsing(url: str, profile: Path, microphone: Path) -> Iterator[None]:
    """Chromium on a page, without a screen; it may use the microphone, which plays a file once."""
    assert CHROMIUM
    with (profile.parent / f"{profile.name}.log").open("w") as log:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}%noloop",
                f"--user-data-dir={profile}",
                url,
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.parametrize("record", ["audio/webm", "audio/mp4"])
def test_a_browser_transcribes_its_microphone(
    live: Server, microphone: Path, sample_call: SampleCall, tmp_path: Path, record: str
) -> None:
    """The documented code as it stands: partials while somebody speaks, the words of the call, a clean end."""
    with live.new_account() as client:
        page = PAGE.replace("EXAMPLE", example(live.url)).replace("LISTEN_MS", str(int((SPOKEN_S + 3) * 1000)))
        token = client.headers["Authorization"].removeprefix("Bearer ")
        site = Site(page.replace("ACCESS_TOKEN", json.dumps(token)).replace("RECORD", json.dumps(record)))
        serving = threading.Thread(target=site.serve_forever)
        serving.start()
        try:
            with browsing(f"http://127.0.0.1:{site.server_port}/", tmp_path / "profile", microphone):
                told = site.told.get(timeout=90)
        finally:
            site.shutdown()
            site.server_close()
            serving.join()
    assert "error" not in told, told
    assert told["mimeType"].startswith(record)
    assert (told["code"], told["warned"]) == (1000, [])
    assert told["partials"]
    words = " ".join(text for _, text in sorted(told["shown"].items(), key=lambda one: int(one[0])))
    assert len(words.split()) >= 8
    assert wer(_said(sample_call.stm, until_s=BEGIN_S + SPOKEN_S), words) < 0.5, words


def _said(stm: Path, *, until_s: float) -> str:
    """The words of the lines that begin before a time."""
    rows = [line.split(None, 5) for line in stm.read_text().splitlines() if line.strip()]
    return " ".join(row[5].strip() for row in rows if float(row[3]) < until_s)
