"""neuroedge demo: a running server, a recording, its transcript and emotions, and questions, all over HTTP."""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from neuroedge.bootstrap import catalogue_of
from neuroedge.cli.output import readable_errors, settings_or_exit
from neuroedge.contract.errors import NeuroEdgeError, NotFound, Unavailable
from neuroedge.settings import Settings

SAMPLE_QUESTIONS = (
    "Where is Sheila originally from?",
    "Where is Diane now?",
    "How much does the car cost?",
)
"""Two that the sample call answers, and one that it does not."""
ANY_QUESTIONS = ("What is this recording about?",)
_STEPS = {
    "analyse": "decoded and measured",
    "transcribe": "transcribed",
    "diarize": "told speakers apart",
    "identify": "named speakers",
    "emotion": "heard emotions",
    "remember": "remembered",
}
console = Console(highlight=False)


def demo(*, audio: str | None, questions: list[str], port: int | None, keep: bool | None) -> int:
    """Run the demo; the exit status."""
    settings = settings_or_exit()
    serving = sys.stdin.isatty() and sys.stdout.isatty() if keep is None else keep
    with readable_errors(), _server(settings, _free_port(settings) if port is None else port) as url:
        path = _recording(settings, audio)
        asked = questions or list(SAMPLE_QUESTIONS if audio is None else ANY_QUESTIONS)
        with httpx.Client(base_url=url, timeout=600) as client:
            token, user, password = _log_in(client, settings)
            client.headers["Authorization"] = f"Bearer {token}"
            recording = _hear(client, path)
            _show(recording)
            for question in asked:
                _ask(client, question, recording["id"])
        _where_to_go_on(settings, url, token, user, password, serving=serving)
        if serving:
            _serve_until_interrupted()
    return 0


def _free_port(settings: Settings) -> int:
    """The configured port, so that the addresses the demo prints stay good for `make run`; 0 when it is taken."""
    with socket.socket() as probe:
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return 0
    return settings.port


@contextmanager
def _server(settings: Settings, port: int) -> Iterator[str]:
    """`neuroedge serve` as a process of its own; its log goes to a file in the data directory."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    log = settings.data_dir / "demo-server.log"
    console.print(f"[bold]Starting NeuroEdge[/bold] (data: {settings.data_dir})", soft_wrap=True)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "neuroedge", "serve", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the demo, which then stops the server in order
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "ready at" not in line:
            raise Unavailable("the server did not start: " + log.read_text()[-1500:], hint="run `neuroedge doctor`")
        yield line.split("ready at ", 1)[1].split()[0]
    finally:
        process.terminate()
        process.wait(timeout=60)


def _recording(settings: Settings, audio: str | None) -> Path:
    if audio is not None:
        path = Path(audio).expanduser()
        if not path.is_file():
            raise NotFound(f"there is no file {path}", hint="make demo AUDIO=path/to/recording.wav")
        return path
    catalogue = catalogue_of(settings)
    return catalogue.require(catalogue.entry("sample-call")) / "sample.wav"


def _log_in(client: httpx.Client, settings: Settings) -> tuple[str, str, str]:
    """The demo's own user; its password is made once and kept in the data directory, mode 0600."""
    file = settings.data_dir / "demo-user.json"
    if not file.exists():
        user = {"username": f"demo-{secrets.token_hex(3)}", "password": secrets.token_urlsafe(12)}
        email = f"{user['username']}@example.org"
        _checked(client.post("/auth/register", json={**user, "email": email}))
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(user, out)
    user = json.loads(file.read_text())
    answer = client.post("/auth/login", json=user)
    if answer.status_code == httpx.codes.UNAUTHORIZED:  # another database than the one the user was made in
        file.unlink()
        return _log_in(client, settings)
    return _checked(answer)["access_token"], user["username"], user["password"]


def _hear(client: httpx.Client, path: Path) -> dict[str, Any]:
    console.print(f"\n[bold]Listening to[/bold] {path.name}", soft_wrap=True)
    with path.open("rb") as file:
        created = _checked(client.post("/v1/recordings", files={"file": (path.name, file)}))
    with client.stream("GET", f"/v1/recordings/{created['id']}/events") as response:
        for name, data in _events(response):
            if name == "step":
                facts = _facts(data)
                console.print(f"  [green]✓[/green] {_STEPS[data['step']]} in {data['seconds']:.1f} s: {facts}")
            elif name == "progress" and 0 < data["fraction"] < 1:
                console.print(f"    {data['step']} {data['fraction']:.0%}", style="dim")
            elif name == "failed":
                raise NeuroEdgeError(data["detail"], hint=data.get("hint"))
    recording: dict[str, Any] = _checked(client.get(f"/v1/recordings/{created['id']}"))
    return recording


def _events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    from httpx_sse import EventSource

    for event in EventSource(response).iter_sse():
        if event.data:
            yield event.event, json.loads(event.data)


def _facts(data: dict[str, Any]) -> str:
    match data["step"]:
        case "analyse":
            lufs = "too short to tell" if data["loudness_lufs"] is None else f"{data['loudness_lufs']:.1f} LUFS"
            return (
                f"{data['duration_s']:.1f} s, {data['speech_s']:.1f} s of speech, loudness {lufs}, "
                f"{data['codec']} {data['source_rate_hz']} Hz, {data['source_channels']} channel(s)"
            )
        case "transcribe":
            return f"{data['words']} words, language {data['language']}"
        case "diarize":
            return f"{data['num_speakers']} speaker(s) in {data['turns']} turns"
        case "identify":
            return f"{data['identified']} of them, among {data['voices']} enrolled voices"
        case "emotion":
            return f"{data['segments']} segments"
        case _:
            return f"{data['memories']} memories with embedding and keywords"


def _show(recording: dict[str, Any]) -> None:
    table = Table("time", "speaker", "text", "words feel", "conf.", title="Who said what, and how")
    for s in recording["segments"]:
        emotion = s["emotion"] or {}
        labels = ", ".join(f"{e['label']} {e['p']:.2f}" for e in emotion.get("labels", [])[:2])
        table.add_row(
            f"{s['start_s']:.1f}–{s['end_s']:.1f}",
            s["speaker"],
            s["text"].strip(),
            "uncertain" if emotion.get("abstained") else labels,
            f"{s['confidence']:.2f}",
        )
    console.print(table)
    if recording["segments"] and (emotion := recording["segments"][0]["emotion"]):
        console.print(
            f"  emotion of words: {emotion.get('text_method')}; of voices only where an administrator allows it",
            style="dim",
        )


def _ask(client: httpx.Client, question: str, recording_id: str) -> None:
    console.print(f"\n[bold]?[/bold] {question}")
    answer = _checked(client.post("/v1/engines/chat/run", json={"message": question, "recording_id": recording_id}))[
        "result"
    ]
    console.print(f"[bold]→[/bold] {answer['message']}")
    for citation in answer["citations"]:
        console.print(
            f"   [{citation['n']}] {citation['speaker']} at {citation['start_s']:.1f} s: “{citation['quote'].strip()}”",
            markup=False,
        )
    if not answer["answered"]:
        console.print(f"   ({answer['reason']})", style="dim")
    console.print(f"   answered by {', '.join(answer['models'])} ({answer['method']})", style="dim")


def _where_to_go_on(settings: Settings, url: str, token: str, user: str, password: str, *, serving: bool) -> None:
    if not serving:
        url = f"http://{settings.host}:{settings.port}"
        console.print("\n[bold]Where to go on[/bold]: `make run` serves this again, with what it remembers, at")
    else:
        console.print("\n[bold]Where to go on[/bold]: the server runs until you press Ctrl-C, at")
    console.print(f"  API      {url}")
    console.print(f"  OpenAPI  {url}/docs")
    console.print(f"  user     {user}  password {password}  (POST /auth/login)")
    console.print(f"  token    {token}  (good for {settings.access_token_ttl_s // 60} minutes)", soft_wrap=True)


def _serve_until_interrupted() -> None:
    import signal

    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("\nStopping.")


def _checked(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json() if response.content else None
    body = response.json()
    raise NeuroEdgeError(body.get("detail", response.text), hint=body.get("hint"))
