"""Live transcription over real WebSockets and real models: words, resume, bad input, two tenants, the end."""

import base64
import contextlib
import json
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soxr
from benchmarks.peer_whisper import stm_text, wer
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from neuroedge.contract.models import Floats
from neuroedge.infra.media import decode
from tests.conftest import SampleCall, Server, running_server
from tests.infra.test_media_stream import encoded

pytestmark = pytest.mark.models
STREAM, REALTIME = "/v1/audio/stream", "/v1/realtime?intent=transcription"
STEP = 3_200
MODEL = "whisper-tiny-en"
PATIENT: dict[str, Any] = {"open_timeout": 60, "ping_interval": None}
"""How to connect: an answer to a ping waits behind the sound that was sent before it."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with the fast model, three sessions an organisation and a short wait for lost connections."""
    settings = {
        "NEUROEDGE_MODELS": f"speech_to_text={MODEL}",
        "NEUROEDGE_LIVE_SESSIONS": "3",
        "NEUROEDGE_LIVE_RESUME_S": "20",
    }
    with running_server(tmp_path_factory.mktemp("live") / "data", models_dir, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def caller(live: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation."""
    with live.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def call(sample_call: SampleCall) -> Floats:
    """The first half of the sample call."""
    return decode(sample_call.wav, max_duration_s=60).samples[: 16 * 16_000]


def pcm16(samples: Floats) -> bytes:
    """As sent."""
    return (samples * 32_767).astype("<i2").tobytes()


def music(seconds: float) -> Floats:
    """Plucked chords over a beat, two a second."""
    chance, size = np.random.default_rng(3), 8_000
    time_s = np.arange(size) / 16_000
    bars = []
    for n in range(round(seconds * 2)):
        root = 220 * 2 ** ((0, 5, 7, 0)[n // 4 % 4] / 12)
        harmonics = [(root * ratio * k, 1 / k) for ratio in (1, 1.26, 1.5) for k in (1, 2, 3)]
        chord = sum(level * np.sin(2 * np.pi * hz * time_s) for hz, level in harmonics) * np.exp(-4 * time_s)
        bars.append(0.08 * chord + 0.1 * chance.normal(size=size) * np.exp(-40 * time_s))
    return np.concatenate(bars).astype(np.float32)


def token_of(client: httpx.Client) -> str:
    """The caller's access token."""
    return client.headers["Authorization"].removeprefix("Bearer ")


@contextlib.contextmanager
def opened(client: httpx.Client, path: str = STREAM, **more: Any) -> Iterator[ClientConnection]:
    """A WebSocket that names its caller by a header."""
    url = str(client.base_url).replace("http", "ws").rstrip("/") + path
    headers = {"Authorization": client.headers["Authorization"]}
    with connect(url, additional_headers=headers, max_size=None, **PATIENT, **more) as socket:
        yield socket


def send(socket: ClientConnection, **message: Any) -> None:
    """A JSON message."""
    socket.send(json.dumps(message))


def next_event(socket: ClientConnection) -> dict[str, Any]:
    """The next JSON message."""
    event: dict[str, Any] = json.loads(socket.recv(timeout=60))
    return event


def until(socket: ClientConnection, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Events up to the first that is `done`."""
    events = [next_event(socket)]
    while not done(events[-1]):
        events.append(next_event(socket))
    return events


def closed(event: dict[str, Any]) -> bool:
    """The last event of a session."""
    return bool(event["type"] == "closed")


def text_of(events: list[dict[str, Any]]) -> str:
    """What was said, by the finals."""
    return " ".join(event["text"] for event in events if event["type"] == "final")


def started(socket: ClientConnection, **options: Any) -> dict[str, Any]:
    """Begin a session; its greeting."""
    send(socket, type="start", **options)
    event = next_event(socket)
    assert event["type"] == "session", event
    return event


def stream(socket: ClientConnection, data: bytes, *, step: int = STEP) -> None:
    """Send sound in messages, as fast as the server takes it."""
    for start in range(0, len(data), step):
        socket.send(data[start : start + step])


def overwhelm(socket: ClientConnection) -> None:
    """One message of more than 1 MiB, and wait for what becomes of it.

    In two parts, so that the server has read all of it when it closes: what waits unread makes the system cut the
    connection, and the close code may be lost with it.
    """
    socket.send([bytes(1 << 20), b"x"])
    until(socket, lambda event: False)


def test_a_call_is_transcribed_while_it_is_streamed(
    caller: httpx.Client, call: Floats, sample_call: SampleCall
) -> None:
    """Numbered events: each utterance begins, is heard in part, ends and has its final text; its words have times."""
    with opened(caller) as socket:
        greeting = started(socket, language="en")
        assert (greeting["model"], greeting["resumed"], greeting["received_bytes"]) == (MODEL, False, 0)
        data, middle = pcm16(call), 14 * 2 * 16_000
        stream(socket, data[:middle])
        events = until(socket, lambda event: event["type"] == "partial")
        time.sleep(1.1)  # after a second, what has arrived is acknowledged
        stream(socket, data[middle:])
        send(socket, type="stop")
        events += until(socket, closed)
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(timeout=60)
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1000
    kinds = {event["type"] for event in events}
    assert {"speech_started", "partial", "speech_stopped", "final", "ack", "closed"} <= kinds
    numbers = [event["n"] for event in events if "n" in event]
    assert numbers == sorted(set(numbers))
    finals = [event for event in events if event["type"] == "final" and event["text"]]
    words = [word for final in finals for word in final["words"]]
    starts = [word["start_s"] for word in words]
    assert starts == sorted(starts)
    assert 6.4 < starts[0] < 8.0, "the first hellos of the call are at 6.7 and 7.5 s"
    assert words[-1]["end_s"] <= 16.0
    assert all(0 <= word["p"] <= 1 and word["end_s"] >= word["start_s"] for word in words)
    assert {final["language"] for final in finals} == {"en"}
    reference = " ".join(stm_text(sample_call.stm).split()[: len(text_of(events).split())])
    assert wer(reference, text_of(events)) < 0.5
    for utterance in {event["utterance"] for event in events if event["type"] == "partial"}:
        stable = [e["stable"] for e in events if e["type"] == "partial" and e["utterance"] == utterance]
        assert all(later.startswith(sooner) for sooner, later in pairwise(stable))
    assert events[-1]["reason"] == "stopped"
    assert events[-1]["audio_s"] == pytest.approx(16.0, abs=0.01)


def test_a_browser_sends_its_recording_and_its_token_in_the_first_message(
    live: Server, caller: httpx.Client, call: Floats
) -> None:
    """WebM (Opus) and MP4 (AAC) as MediaRecorder makes them, without any header; the words are those of PCM."""
    texts = {}
    spoken = call[6 * 16_000 :]
    sent = {"webm_opus": encoded(spoken, "webm_opus"), "mp4": encoded(spoken, "mp4"), "pcm16": pcm16(spoken)}
    for encoding, data in sent.items():
        with connect(live.url.replace("http", "ws") + STREAM, **PATIENT) as socket:
            started(socket, encoding=encoding, token=token_of(caller))
            stream(socket, data, step=STEP if encoding == "pcm16" else 1_000)
            send(socket, type="stop")
            texts[encoding] = text_of(until(socket, closed))
    assert len(texts["pcm16"].split()) > 10
    assert wer(texts["pcm16"], texts["webm_opus"]) < 0.25
    assert wer(texts["pcm16"], texts["mp4"]) < 0.25


def test_a_lost_connection_resumes_where_it_was(caller: httpx.Client, call: Floats) -> None:
    """The server says how far it got, tells again what was not seen, and no word is lost or heard twice."""
    data = pcm16(call)
    with opened(caller) as socket:
        started(socket)
        stream(socket, data)
        send(socket, type="stop")
        whole = text_of(until(socket, closed))
    with opened(caller) as socket:
        session = started(socket)
        stream(socket, data[: len(data) // 2])
        first = until(socket, lambda event: event["type"] == "partial")
        socket.socket.shutdown(2)  # as a cable that is pulled
    seen = next(event["n"] for event in first if event["type"] == "speech_started")
    with opened(caller) as socket:
        send(socket, type="resume", session_id=session["session_id"], last_event=seen)
        again = next_event(socket)
        assert (again["type"], again["resumed"], again["events_lost"]) == ("session", True, False)
        assert 0 < again["received_bytes"] <= len(data) // 2
        stream(socket, data[again["received_bytes"] :])
        send(socket, type="stop")
        rest = until(socket, closed)
    told = {e["utterance"]: e["text"] for e in [*first, *rest] if e["type"] == "final"}
    assert min(e["n"] for e in rest if "n" in e) > seen
    assert wer(whole, " ".join(told[number] for number in sorted(told))) < 0.15
    with opened(caller) as socket:
        send(socket, type="resume", session_id=session["session_id"])
        assert next_event(socket)["code"] == "not_found", "it is over and was told to its end"


def test_another_connection_takes_a_session_over(caller: httpx.Client, call: Floats) -> None:
    """The first is closed with a code of its own."""
    with opened(caller) as first, opened(caller) as second:
        session = started(first)
        send(second, type="resume", session_id=session["session_id"])
        assert next_event(second)["resumed"]
        with pytest.raises(ConnectionClosed) as end:
            first.recv(timeout=60)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 4409
        stream(second, pcm16(call[6 * 16_000 : 10 * 16_000]))
        send(second, type="stop")
        assert text_of(until(second, closed))


def test_who_leaves_before_the_text_comes_has_left(caller: httpx.Client, call: Floats) -> None:
    """The connection is closed with code 1000 while the server recognises; the session does not wait for anybody."""
    ended = 'neuroedge_live_sessions_ended_total{reason="left"}'

    def left() -> float:
        lines = [line for line in caller.get("/metrics").text.splitlines() if line.startswith(ended)]
        return float(lines[0].split()[-1]) if lines else 0.0

    before = left()
    with opened(caller) as socket:
        started(socket, partials=False)
        stream(socket, pcm16(call[6 * 16_000 : 14 * 16_000]))
        send(socket, type="flush")
    give_up = time.monotonic() + 60  # a lost connection would be waited for, and end with another reason
    while left() == before:
        assert time.monotonic() < give_up, "it waits for its client"
        time.sleep(0.2)


def test_another_tenants_session_is_not_there(live: Server, caller: httpx.Client) -> None:
    """A stranger gets the very answer of an id that never existed, and the session goes on."""
    with opened(caller) as socket, live.new_account() as stranger:
        session = started(socket)
        answers = []
        for session_id in (session["session_id"], "019a0000-0000-7000-8000-000000000000"):
            with opened(stranger) as other:
                send(other, type="resume", session_id=session_id)
                answers.append(next_event(other))
        assert answers[0] == answers[1]
        assert (answers[0]["type"], answers[0]["code"]) == ("error", "not_found")
        send(socket, type="stop")
        assert closed(until(socket, closed)[-1])


def test_faster_than_speech_is_held_back_and_all_of_it_is_heard(caller: httpx.Client, call: Floats) -> None:
    """A minute at once: the sender is slowed down, not refused, and the last words are as the first."""
    with opened(caller) as socket:
        started(socket, partials=False)
        heard: list[dict[str, Any]] = []
        listener = threading.Thread(target=lambda: heard.extend(until(socket, closed)))
        listener.start()
        for _ in range(4):
            stream(socket, pcm16(call), step=200_000)
        send(socket, type="stop")
        listener.join(timeout=240)
    assert closed(heard[-1])
    assert heard[-1]["audio_s"] == pytest.approx(64.0, abs=0.01)
    finals = [event for event in heard if event["type"] == "final" and event["text"]]
    halves = [[f["text"] for f in finals if low <= f["start_s"] < low + 16] for low in (0, 48)]
    assert wer(" ".join(halves[0]), " ".join(halves[1])) < 0.35


def test_without_a_good_token_nobody_listens(live: Server, caller: httpx.Client) -> None:
    """A bad header is refused in the handshake; a first message without token, or with a bad one, is told so."""
    url = live.url.replace("http", "ws")
    for path in (STREAM, REALTIME):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url + path, additional_headers={"Authorization": "Bearer forged"}, **PATIENT),
        ):
            pass
        assert refused.value.response.status_code == 401
        assert "www-authenticate" in refused.value.response.headers
    with pytest.raises(InvalidStatus) as nameless, connect(url + REALTIME, **PATIENT):
        pass
    assert nameless.value.response.status_code == 401
    for more in ({}, {"token": "forged"}, {"token": f"sk-ne-{secrets.token_hex(16)}"}):
        with connect(url + STREAM, **PATIENT) as socket:
            send(socket, type="start", **more)
            assert next_event(socket)["code"] == "unauthenticated"
            with pytest.raises(ConnectionClosed) as end:
                socket.recv(timeout=60)
            assert end.value.rcvd is not None
            assert end.value.rcvd.code == 4401
    with pytest.raises(InvalidStatus), connect(url + "/v1/audio/nothing", **PATIENT):
        pass


@pytest.mark.parametrize(
    ("first", "place"),
    [
        ("no json", None),
        ("[1, 2]", None),
        ("{}", []),
        ('{"type": "sing"}', []),
        ('{"type": "start", "sample_rate_hz": 7}', ["start", "sample_rate_hz"]),
        ('{"type": "start", "sample_rate_hz": "loud"}', ["start", "sample_rate_hz"]),
        ('{"type": "start", "encoding": "mp3"}', ["start", "encoding"]),
        ('{"type": "start", "encoding": null}', ["start", "encoding"]),
        ('{"type": "start", "language": "English, please"}', ["start", "language"]),
        ('{"type": "start", "silence_s": NaN}', ["start", "silence_s"]),
        ('{"type": "start", "hot_words": ["' + "x" * 81 + '"]}', ["start", "hot_words", 0]),
        ('{"type": "start", "volume": 11}', ["start", "volume"]),
        ('{"type": "start", "language": "xx"}', None),
        ('{"type": "resume", "session_id": "yesterday"}', ["resume", "session_id"]),
        (b"\x00\x01", None),
    ],
)
def test_a_wrong_first_message_is_named(caller: httpx.Client, first: str | bytes, place: list[Any] | None) -> None:
    """422 with the field at fault; the connection ends."""
    with opened(caller) as socket:
        socket.send(first)
        error = next_event(socket)
        assert (error["type"], error["status"], error["code"], error["fatal"]) == ("error", 422, "invalid_input", True)
        if place:
            assert error["errors"][0]["loc"] == place
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(timeout=60)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 4422


def test_sound_that_is_none(caller: httpx.Client) -> None:
    """Bytes that are no WebM end the session with the reason; noise as PCM is no speech; a huge message is cut off."""
    noise = np.random.default_rng(0).bytes(200_000)
    with opened(caller) as socket:
        started(socket, encoding="webm_opus")
        socket.send(noise)
        events = until(socket, closed)
        assert [event["type"] for event in events] == ["error", "closed"]
        assert events[0]["code"] == "unsupported_media"
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(timeout=60)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 4415
    with opened(caller) as socket:
        started(socket, language="en")
        stream(socket, noise)
        socket.send(b"")
        socket.send(b"\x01")
        send(socket, type="dance")
        send(socket, type="stop")
        events = until(socket, closed)
        assert any(event.get("code") == "invalid_input" and not event["fatal"] for event in events)
        assert not any(event.get("reliable") for event in events)
        assert events[-1]["received_bytes"] == 200_001
    with opened(caller) as socket:
        started(socket)
        with pytest.raises(ConnectionClosed) as end:
            overwhelm(socket)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 1009


def test_silence_music_and_a_wrong_rate_give_no_confident_words(caller: httpx.Client, call: Floats) -> None:
    """Nothing is invented in silence or music; speech declared at three times its rate is not passed off as sure."""
    for sound in (np.zeros(5 * 16_000, np.float32), music(8.0)):
        with opened(caller) as socket:
            started(socket)
            stream(socket, pcm16(sound))
            send(socket, type="stop")
            events = until(socket, closed)
            assert not [event for event in events if event.get("reliable")]
            assert events[-1]["reason"] == "stopped"
            if not sound.any():
                assert [event["type"] for event in events if event["type"] != "ack"] == ["closed"]
    with opened(caller) as socket:
        started(socket, sample_rate_hz=48_000)
        stream(socket, pcm16(call))
        send(socket, type="stop")
        events = until(socket, closed)
    assert events[-1]["audio_s"] == pytest.approx(16 / 3, abs=0.05)
    assert len([word for e in events if e.get("reliable") for word in e["words"]]) < 8


def test_an_organisation_opens_so_many_and_no_more(live: Server) -> None:
    """The fourth is told when to come back; who leaves makes room at once; another organisation has its own."""
    with contextlib.ExitStack() as stack:
        caller = stack.enter_context(live.new_account())
        for _ in range(3):
            started(stack.enter_context(opened(caller)))
        fourth = stack.enter_context(opened(caller))
        send(fourth, type="start")
        error = next_event(fourth)
        assert (error["status"], error["code"]) == (429, "overloaded")
        assert error["retry_after_s"] > 0
        stranger = stack.enter_context(live.new_account())
        started(stack.enter_context(opened(stranger)))
        fifth = stack.enter_context(opened(stranger))
        started(fifth)
        fifth.close()
        for _ in range(2):
            started(stack.enter_context(opened(stranger)))


def test_a_session_is_metered_and_measured(live: Server, call: Floats) -> None:
    """One row of usage for its organisation; the metrics know sessions and latencies."""
    with live.new_account() as client:
        with opened(client) as socket:
            started(socket)
            stream(socket, pcm16(call[6 * 16_000 : 9 * 16_000]))
            send(socket, type="stop")
            until(socket, closed)
        metrics = client.get("/metrics").text
    assert "neuroedge_live_sessions " in metrics
    assert 'neuroedge_live_sessions_ended_total{reason="stopped"}' in metrics
    assert "neuroedge_live_final_seconds_count" in metrics


@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")  # the SDK's own
def test_openais_client_transcribes_in_turns(caller: httpx.Client, call: Floats) -> None:
    """The SDK's own realtime connection: items by server VAD, deltas that add up to each transcript."""
    client = OpenAI(base_url=f"{caller.base_url}/v1".replace("//v1", "/v1"), api_key=token_of(caller))
    turns = np.concatenate([call[6 * 16_000 : 10 * 16_000], np.zeros(16_000, np.float32), call[12 * 16_000 :]])
    sound = (soxr.resample(turns, 16_000, 24_000) * 32_767).astype("<i2").tobytes()
    with client.realtime.connect(
        extra_query={"intent": "transcription"}, websocket_connection_options=PATIENT
    ) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "whisper-1", "language": "en"}}},
            }
        )
        assert connection.recv().type == "session.updated"
        for start in range(0, len(sound), 9_600):
            connection.input_audio_buffer.append(audio=base64.b64encode(sound[start : start + 9_600]).decode())
        connection.input_audio_buffer.commit()
        connection.send({"type": "input_audio_buffer.clear"})
        events = []
        while not events or events[-1].type != "input_audio_buffer.cleared":
            events.append(connection.recv())
    kinds = [event.type for event in events]
    done = "conversation.item.input_audio_transcription.completed"
    assert kinds.count("input_audio_buffer.speech_started") == kinds.count(done) >= 2
    said: dict[str, str] = {}
    for event in events:
        if event.type == "conversation.item.input_audio_transcription.delta":
            said[event.item_id] = said.get(event.item_id, "") + (event.delta or "")
        elif event.type == done:
            assert event.transcript.split()
    assert len(" ".join(said.values()).split()) > 10
    order = [event.item_id for event in events if event.type == "input_audio_buffer.committed"]
    assert len(set(order)) == len(order)


def test_openais_protocol_by_hand(caller: httpx.Client, call: Floats) -> None:
    """The older session.update, manual commits, and what is wrong told without ending the session."""
    sound = pcm16(np.asarray(soxr.resample(call[6 * 16_000 : 12 * 16_000], 16_000, 24_000), np.float32))
    with opened(caller, REALTIME) as socket:
        assert next_event(socket)["type"] == "session.created"
        send(
            socket,
            type="transcription_session.update",
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": None,
            },
        )
        updated = next_event(socket)
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["audio"]["input"]["turn_detection"] is None
        for wrong, code in (
            ({"type": "response.create"}, "invalid_input"),
            ({"type": "input_audio_buffer.commit"}, "invalid_input"),
            ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_input"),
            (
                {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "gpt-9"}}}}},
                "model_not_found",
            ),
        ):
            send(socket, event_id="mine", **wrong)
            error = next_event(socket)
            assert error["type"] == "error"
            assert (error["error"]["event_id"], error["error"]["code"]) == ("mine", code)
        send(socket, type="input_audio_buffer.append", audio=base64.b64encode(sound).decode())
        send(socket, type="input_audio_buffer.append", audio="not base64!")
        send(socket, type="input_audio_buffer.commit")
        done = "conversation.item.input_audio_transcription.completed"
        events = until(socket, lambda event: event["type"] == done)
        assert not any("speech_st" in event["type"] for event in events)
        assert [event["error"]["code"] for event in events if event["type"] == "error"] == ["invalid_input"]
        deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
        assert wer(events[-1]["transcript"], "".join(deltas)) < 0.5
        assert len(events[-1]["transcript"].split()) > 5
        send(socket, type="session.update", session={"audio": {"input": {"transcription": {"language": "de"}}}})
        assert next_event(socket)["error"]["code"] == "conflict"
    with pytest.raises(InvalidStatus) as refused, opened(caller, "/v1/realtime?model=gpt-realtime"):
        pass
    assert refused.value.response.status_code == 422


def test_a_stopping_server_says_what_it_heard(tmp_path: Path, models_dir: Path, call: Floats) -> None:
    """SIGTERM in the middle of a sentence: its text, the end, and close code 1012."""
    more = {"NEUROEDGE_MODELS": f"speech_to_text={MODEL}", "NEUROEDGE_LIVE_STOP_S": "60"}
    with running_server(tmp_path / "data", models_dir, **more) as server:
        with server.new_account() as client, opened(client) as socket:
            started(socket)
            stream(socket, pcm16(call[6 * 16_000 : 9 * 16_000]))
            until(socket, lambda event: event["type"] == "partial")
            server.process.send_signal(signal.SIGTERM)
            events = until(socket, closed)
            with pytest.raises(ConnectionClosed) as end:
                socket.recv(timeout=60)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 1012
        assert text_of(events)
        assert events[-1]["reason"] == "shutdown"
        assert server.process.wait(timeout=90) == -signal.SIGTERM, "ended by itself, as uvicorn does"
