"""A provider of voices for tests: a real HTTP server on 127.0.0.1 that speaks OpenAI's `POST /v1/audio/speech`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from neuroedge.kit.speech_audio import pcm16, wav_header

RATE_HZ = 24_000


class VoiceUpstream:
    """Its address, what it was asked, and how it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.status = 200
        self.body: bytes | None = None
        """Instead of sound."""
        self.may_answer = threading.Event()
        """While it is not set, whoever asks waits."""
        self.may_answer.set()
        self.broken_after: int | None = None
        """Answers that are well before each fails."""

    def forget(self) -> None:
        """As new."""
        self.asked, self.keys = [], []
        self.status, self.body, self.broken_after = 200, None, None
        self.may_answer.set()

    def answer(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body: a tenth of a second of tone for each letter."""
        self.asked.append(asked)
        self.may_answer.wait()
        if self.broken_after is not None and len(self.asked) > self.broken_after:
            return 500, b'{"error": {"message": "broken"}}'
        if self.status != 200:
            return self.status, b'{"error": {"message": "told to fail", "type": "x"}}'
        if self.body is not None:
            return 200, self.body
        seconds = 0.1 * len(asked["input"]) / asked.get("speed", 1.0)
        tone = 0.2 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
        return 200, wav_header(rate_hz=RATE_HZ, data_bytes=None) + pcm16(tone.astype(np.float32))


@contextmanager
def running_voice_upstream() -> Iterator[VoiceUpstream]:
    """Serve until the block ends."""
    upstream = VoiceUpstream()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            upstream.keys.append(self.headers.get("authorization", ""))
            status, body = upstream.answer(asked)
            self.send_response(status)
            self.send_header("content-type", "audio/wav" if status == 200 else "application/json")
            self.send_header("content-length", str(len(body)))
            with suppress(ConnectionError):  # the caller has left
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    upstream.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield upstream
    finally:
        upstream.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()
