"""OpenAI's realtime transcription events, from a live session's; and the settings such a session takes."""

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.openai.errors import ModelNotFound
from neuroedge.http.openai.realtime import _Items, _Realtime
from neuroedge.http.openai.realtime_schemas import RealtimeInput, updated
from neuroedge.services.live.events import LiveEvent
from tests.http.scripted_socket import ScriptedSocket
from tests.services.live.scripted import pcm16, silence, spoken
from tests.services.live.test_sessions import Live

pytestmark = pytest.mark.anyio
ACTIVE = "whisper-tiny-en"


def told(items: _Items, *events: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client is told of these events."""
    return [
        message for n, (type_, data) in enumerate(events, 1) for message in items.written(LiveEvent(n, type_, data))
    ]


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    """The last part of their types."""
    return [message["type"].rsplit(".", 1)[1] for message in messages if "." in message["type"]]


def final(utterance: int, text: str) -> tuple[str, dict[str, Any]]:
    """An utterance of two seconds."""
    return "final", {"utterance": utterance, "text": text, "start_s": 1.0, "end_s": 3.0}


def test_an_utterance_is_an_item_whose_deltas_add_up() -> None:
    """Begun, heard, stopped, committed, completed; all of one id, the next of another, which names the one before."""
    found = told(
        _Items(manual=False),
        ("speech_started", {"utterance": 1, "at_s": 1.25}),
        ("partial", {"utterance": 1, "stable": ""}),
        ("partial", {"utterance": 1, "stable": "he was"}),
        ("partial", {"utterance": 1, "stable": "he was"}),
        ("speech_stopped", {"utterance": 1, "at_s": 3.0}),
        final(1, "he was not ill"),
        ("speech_started", {"utterance": 2, "at_s": 4.0}),
        ("speech_stopped", {"utterance": 2, "at_s": 5.0}),
        final(2, ""),
    )
    assert kinds(found) == [
        "speech_started",
        "delta",
        "speech_stopped",
        "committed",
        "delta",
        "completed",
        "speech_started",
        "speech_stopped",
        "committed",
        "completed",
    ]
    first, second = {m["item_id"] for m in found[:6]}, {m["item_id"] for m in found[6:]}
    assert len(first) == len(second) == 1
    assert first != second
    assert "".join(m["delta"] for m in found if "delta" in m) == "he was not ill" == found[5]["transcript"]
    assert found[5]["usage"] == {"type": "duration", "seconds": 2.0}
    assert (found[3]["previous_item_id"], found[8]["previous_item_id"]) == (None, found[0]["item_id"])
    assert found[0]["audio_start_ms"] == 1250
    assert len({m["event_id"] for m in found}) == len(found)


def test_an_utterance_that_was_cut_is_committed_by_its_text() -> None:
    """It never stopped; what goes on is the next item."""
    found = told(_Items(manual=False), ("speech_started", {"utterance": 1, "at_s": 0.0}), final(1, "a"), final(2, "b"))
    assert kinds(found) == ["speech_started", "committed", "delta", "completed", "committed", "delta", "completed"]


def test_a_text_that_comes_after_the_next_utterance_is_over_commits_nothing_again() -> None:
    """The recogniser may be behind; each item is committed once, in the order they were spoken."""
    found = told(
        _Items(manual=False),
        *[
            (type_, {"utterance": n, "at_s": float(n)})
            for n in (1, 2)
            for type_ in ("speech_started", "speech_stopped")
        ],
        final(1, "a"),
        final(2, "b"),
    )
    committed = [m for m in found if m["type"].endswith("committed")]
    assert len(committed) == 2
    assert committed[1]["previous_item_id"] == committed[0]["item_id"]
    assert [m["transcript"] for m in found if "transcript" in m] == ["a", "b"]


def test_with_manual_commits_everything_between_two_is_one_item() -> None:
    """Its pauses are not told."""
    items = _Items(manual=True)
    found = told(
        items,
        ("speech_started", {"utterance": 1, "at_s": 0.0}),
        ("partial", {"utterance": 1, "stable": "he"}),
        ("speech_stopped", {"utterance": 1, "at_s": 1.0}),
        final(1, "he was"),
        ("partial", {"utterance": 2, "stable": "not"}),
        final(2, "not ill"),
        final(3, ""),
        ("flushed", {}),
    )
    assert kinds(found) == ["delta", "delta", "delta", "delta", "committed", "completed"]
    assert "".join(m["delta"] for m in found if "delta" in m) == found[-1]["transcript"] == "he was not ill"
    later = told(items, final(4, "again"), ("flushed", {}))
    assert later[-1]["transcript"] == "again"
    assert later[-1]["item_id"] != found[-1]["item_id"]


def test_a_clear_forgets_what_is_not_committed_in_its_place() -> None:
    """After a commit its transcript has been told; what was said since then is nobody's, and the next item is new."""
    items = _Items(manual=True)
    before = told(items, ("partial", {"utterance": 1, "stable": "he"}), final(1, "he was"), ("flushed", {}))
    assert before[-1]["transcript"] == "he was"
    found = told(
        items, ("partial", {"utterance": 2, "stable": "not"}), final(2, "not ill"), ("cleared", {"utterance": 3})
    )
    assert kinds(found) == ["delta", "delta", "cleared"]
    after = told(items, ("partial", {"utterance": 4, "stable": "a"}), final(4, "again"), ("flushed", {}))
    assert after[-1]["transcript"] == "again"
    assert len({m["item_id"] for m in (before[-1], found[0], after[-1])}) == 3
    assert after[-1]["usage"] == {"type": "duration", "seconds": 2.0}


def test_a_clear_between_turns_leaves_a_text_that_is_still_to_come() -> None:
    """Only the utterance that goes on is forgotten: deltas of the one before it still add up."""
    found = told(
        _Items(manual=False),
        ("partial", {"utterance": 1, "stable": "he was"}),
        ("speech_stopped", {"utterance": 1, "at_s": 3.0}),
        ("speech_started", {"utterance": 2, "at_s": 3.0}),
        ("cleared", {"utterance": 2}),
        final(1, "he was ill"),
        ("partial", {"utterance": 3, "stable": "yes"}),
        ("cleared", {"utterance": 3}),
        ("cleared", {"utterance": None}),
        final(4, "no"),
    )
    texts: dict[str, str] = {}
    for message in found:
        if "delta" in message:
            texts[message["item_id"]] = texts.get(message["item_id"], "") + message["delta"]
    assert list(texts.values()) == ["he was ill", "yes", "no"]
    assert kinds(found).count("cleared") == 3


async def push_to_talk(*steps: Any, delay_s: float) -> list[tuple[str, str]]:
    """What a client is told that sends sound, "commit" and "clear" without turn detection: kind, and id or text."""
    live = Live()
    live.stt.delay_s = delay_s
    socket = ScriptedSocket(live.sessions)
    running = asyncio.create_task(_Realtime(socket.connection(), live.me).run())
    audio = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}
    socket.ask(type="session.update", session={"type": "transcription", "audio": {"input": audio}})
    for step in steps:
        if isinstance(step, str):
            socket.ask(type=f"input_audio_buffer.{step}")
        else:
            sound = base64.b64encode(pcm16(np.concatenate(step))).decode()
            socket.ask(type="input_audio_buffer.append", audio=sound)
    await socket.heard("completed", steps.count("commit"))
    socket.leave(1000)
    await running
    await live.sessions.close()
    return [
        (kind, message.get("transcript", message.get("item_id", "")))
        for kind, message in zip(kinds(socket.told), [m for m in socket.told if "." in m["type"]], strict=True)
        if kind in ("committed", "cleared", "completed")
    ]


async def test_a_clear_behind_a_commit_takes_nothing_from_it() -> None:
    """Push to talk: let go, and begin anew at once. The clear is told after the text it does not concern."""
    told = await push_to_talk(
        [spoken(0.1, 0.2, 0.3)],
        "commit",
        "clear",
        [silence(0.2), spoken(0.5), silence(1.0)],
        "commit",
        delay_s=0.05,
    )
    assert [kind for kind, _ in told] == ["committed", "completed", "cleared", "committed", "completed"]
    assert [text for kind, text in told if kind == "completed"] == ["w10 w20 w30", "w50"]


async def test_a_clear_forgets_what_is_being_recognised() -> None:
    """Words that ended before it are not in the next commit."""
    told = await push_to_talk(
        [spoken(0.1, 0.2, 0.3), silence(0.8)],
        "clear",
        [silence(0.3), spoken(0.5), silence(1.0)],
        "commit",
        delay_s=0.3,
    )
    assert [kind for kind, _ in told] == ["cleared", "committed", "completed"]
    assert told[-1][1] == "w50"


async def test_a_clear_before_any_sound_is_told() -> None:
    """There is nothing to forget."""
    told = await push_to_talk("clear", [spoken(0.1, 0.2)], "commit", delay_s=0.0)
    assert [kind for kind, _ in told] == ["cleared", "committed", "completed"]


def test_errors_are_those_of_an_item_or_of_the_session() -> None:
    """What is the server's fault says so, and neither has anything internal."""
    error = {"status": 503, "code": "model_failed", "detail": "the model broke", "hint": None}
    of_item, of_session = told(
        _Items(manual=False),
        ("error", {**error, "fatal": False, "utterance": 1}),
        ("error", {**error, "status": 413, "code": "too_large", "fatal": True}),
    )
    assert of_item["type"] == "conversation.item.input_audio_transcription.failed"
    assert of_item["error"]["code"] == "model_failed"
    assert (of_session["type"], of_session["error"]["type"]) == ("error", "invalid_request_error")


def test_settings_change_field_by_field() -> None:
    """In the newer form and the older; what is not named stays; null turns turn detection off."""
    first = updated(
        RealtimeInput(),
        {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1", "language": "de"}}}},
        active_model=ACTIVE,
    )
    second = updated(
        first,
        {
            "input_audio_format": "pcm16",
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 700, "prefix_padding_ms": 300},
            "input_audio_transcription": {"prompt": "A novel."},
            "input_audio_noise_reduction": {"type": "near_field"},
        },
        active_model=ACTIVE,
    )
    options = second.live_options()
    assert (options.sample_rate_hz, options.language, options.prompt) == (24_000, "de", "A novel.")
    assert options.silence_s == 0.7
    third = updated(second, {"audio": {"input": {"turn_detection": None}}}, active_model=ACTIVE)
    assert third.turn_detection is None
    assert third.transcription.language == "de"


@pytest.mark.parametrize(
    "session",
    [
        None,
        [],
        {"type": "realtime"},
        {"audio": {"input": []}},
        {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}},
        {"audio": {"input": {"transcription": {"language": "the Queen's"}}}},
        {"audio": {"input": {"transcription": 3}}},
        {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": float("nan")}}}},
        {"input_audio_format": "g711_ulaw"},
    ],
)
def test_wrong_settings_are_refused(session: Any) -> None:
    """Never taken in silence."""
    with pytest.raises(InvalidInput):
        updated(RealtimeInput(), session, active_model=ACTIVE)


def test_a_model_that_is_not_here_is_refused() -> None:
    """The active one, whisper-1 and default are."""
    for model in (ACTIVE, "whisper-1", "default", None):
        updated(RealtimeInput(), {"input_audio_transcription": {"model": model}}, active_model=ACTIVE)
    with pytest.raises(ModelNotFound, match="gpt-9"):
        updated(RealtimeInput(), {"input_audio_transcription": {"model": "gpt-9"}}, active_model=ACTIVE)
