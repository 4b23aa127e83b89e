"""Live sessions over scripted models: what is told when, what waits, what is refused, and how sessions end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from neuroedge.contract.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    ModelFailed,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from neuroedge.contract.models import SAMPLE_RATE_HZ
from neuroedge.contract.principal import Principal
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.services.live import hearing, turns
from neuroedge.services.live import session as session_module
from neuroedge.services.live.options import LiveLimits, LiveOptions
from neuroedge.services.live.recogniser import MOST_BEFORE_S
from neuroedge.services.live.session import LiveSession
from neuroedge.services.live.sessions import LiveSessions
from neuroedge.stores.ledgers import UsageRow
from tests.fakes import FakeModels, SystemClock, make_principal
from tests.services.live.scripted import CountsWords, LoudIsSpeech, pcm16, silence, spoken

pytestmark = pytest.mark.anyio
CHUNK = 3200


class Rows:
    """A usage ledger in a list."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []

    async def record(self, row: UsageRow) -> None:
        """Keep it."""
        self.rows.append(row)


class Live:
    """Sessions over scripted models."""

    def __init__(self, **limits: Any) -> None:
        self.stt, self.voice, self.usage = CountsWords(), LoudIsSpeech(), Rows()
        self.sessions = LiveSessions(
            models=FakeModels({"speech_to_text": self.stt, "voice_activity": self.voice}),
            usage=self.usage,  # type: ignore[arg-type]
            clock=SystemClock(),
            metrics=LiveMetrics(CollectorRegistry()),
            limits=LiveLimits(**limits),
        )
        self.me = make_principal()
        self.holder = asyncio.Event()

    async def start(self, principal: Principal | None = None, **options: Any) -> LiveSession:
        """A session of this principal's."""
        return await self.sessions.start(principal or self.me, LiveOptions(**options), self.holder)


@pytest.fixture
async def live(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """Sessions that end with the test; however slow the machine is, its recogniser is not spared partials."""
    monkeypatch.setattr(hearing, "_LEISURE", 0.0)
    found = Live()
    yield found
    await found.sessions.close()


async def say(session: LiveSession, samples: np.ndarray) -> None:
    """Feed it in steps of 100 ms, leaving the recogniser its turns."""
    data = pcm16(samples)
    for start in range(0, len(data), CHUNK):
        await session.feed(data[start : start + CHUNK])
        for _ in range(8):
            await asyncio.sleep(0)


def told(session: LiveSession, type_: str) -> list[dict[str, Any]]:
    """What was told of a type."""
    return [event.data for event in session.events.after(0) if event.type == type_]


async def closed(session: LiveSession) -> None:
    """Return when it has ended."""
    last = 0
    async with asyncio.timeout(60):
        while session.reason is None:
            last = (await session.events.wait(last))[-1].number


async def test_two_utterances_become_two_finals_with_times_from_the_start(live: Live) -> None:
    """Events come in order; each final names its words, their times in the stream, and its language."""
    session = await live.start()
    await say(session, np.concatenate([silence(1.0), spoken(0.1, 0.2, 0.3), silence(1.0), spoken(0.4), silence(1.0)]))
    await session.finish()
    order = [(e.type, e.data.get("utterance")) for e in session.events.after(0) if e.type != "partial"]
    assert order == [
        ("speech_started", 1),
        ("speech_stopped", 1),
        ("final", 1),
        ("speech_started", 2),
        ("speech_stopped", 2),
        ("final", 2),
        ("closed", None),
    ]
    first, second = told(session, "final")
    assert (first["text"], second["text"]) == ("w10 w20 w30", "w40")
    assert [word["start_s"] for word in first["words"]] == pytest.approx([1.0, 1.4, 1.8], abs=0.05)
    assert second["words"][0]["start_s"] == pytest.approx(3.2, abs=0.05)
    assert (first["language"], first["reliable"], first["warnings"]) == ("en", True, [])
    assert told(session, "closed")[0]["audio_s"] == pytest.approx(4.6)
    assert session.reason == "stopped"


async def test_partials_grow_and_what_is_stable_stays(live: Live) -> None:
    """Each partial's stable part begins with the one before, and the final with the last."""
    session = await live.start()
    partials: list[dict[str, Any]] = []

    async def listen() -> None:
        last = 0
        while True:
            for event in await session.events.wait(last):
                last = event.number
                if event.type == "partial":
                    partials.append(event.data)

    listener = asyncio.create_task(listen())
    await say(session, np.concatenate([spoken(*(n / 20 for n in range(1, 11))), silence(1.0)]))
    await session.finish()
    listener.cancel()
    stable = [partial["stable"] for partial in partials]
    assert len(stable) >= 5
    assert all(later.startswith(sooner) for sooner, later in pairwise(stable))
    assert stable[-1].startswith("w5 w10 w15")
    assert told(session, "final")[0]["text"].startswith(stable[-1])
    assert told(session, "partial") == [], "a final replaces them"


async def test_without_partials_only_the_end_is_recognised(live: Live) -> None:
    """Who does not want them does not pay for them: one call an utterance, made in its pause."""
    session = await live.start(partials=False)
    await say(session, np.concatenate([spoken(0.1, 0.2, 0.3, 0.4), silence(1.0)]))
    await session.finish()
    assert told(session, "final")[0]["text"] == "w10 w20 w30 w40"
    assert len(live.stt.calls) == 1
    assert live.stt.calls[0]["beam_size"] == 5
    assert live.stt.calls[0]["live"]


async def test_speech_without_a_pause_is_cut_and_nothing_is_lost_or_repeated(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve seconds at a limit of four: several finals that together hold every word once."""
    monkeypatch.setattr(turns, "MAX_UTTERANCE_S", 4.0)
    session = await live.start()
    levels = [n / 40 for n in range(1, 31)]
    await say(session, np.concatenate([spoken(*levels), silence(1.0)]))
    await session.finish()
    finals = told(session, "final")
    assert len(finals) >= 3
    heard = [int(word["w"][1:]) for final in finals for word in final["words"]]
    assert heard == sorted(heard)
    assert len(set(heard)) >= 28
    assert max(final["end_s"] - final["start_s"] for final in finals) <= 4.2


async def test_silence_and_a_stop_tell_nothing_but_the_end(live: Live) -> None:
    """No words are made of nothing."""
    session = await live.start()
    await say(session, silence(2.0))
    await session.finish()
    assert [event.type for event in session.events.after(0)] == ["closed"]
    assert live.stt.calls == []


async def test_a_stop_tells_what_was_being_said(live: Live) -> None:
    """No pause is needed at the end."""
    session = await live.start()
    await say(session, spoken(0.1, 0.2))
    await session.finish()
    assert told(session, "final")[0]["text"] == "w10 w20"


async def test_flush_ends_an_utterance_and_clear_forgets_it(live: Live) -> None:
    """After both the session goes on."""
    session = await live.start()
    await say(session, spoken(0.1, 0.2))
    await session.flush()
    assert [final["text"] for final in told(session, "final")] == ["w10 w20"]
    assert told(session, "flushed")
    await say(session, np.concatenate([silence(0.3), spoken(0.3)]))
    await session.clear()
    await say(session, np.concatenate([silence(1.0), spoken(0.5), silence(1.0)]))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w10 w20", "w50"]


async def test_a_word_before_a_flush_is_told_once(live: Live) -> None:
    """In the middle of speech the next utterance begins where this one ended; a clear forgets its last word too."""
    session = await live.start()
    await say(session, spoken(0.1, 0.2))
    await session.flush()
    await say(session, spoken(0.3, 0.4))
    await session.clear()
    await say(session, np.concatenate([spoken(0.5, 0.6), silence(1.0)]))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w10 w20", "w50 w60"]


async def test_a_soft_beginning_after_a_flush_in_a_pause_is_heard(live: Live) -> None:
    """Only what was speech is told already: the silence after it may be the next word's beginning."""
    session = await live.start()
    await say(session, np.concatenate([spoken(0.1), silence(0.3)]))
    await session.flush()
    await say(session, np.concatenate([spoken(0.3), silence(1.0)]))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w10", "w30"]
    assert live.stt.calls[-1]["seconds"] > 0.25 + 0.4, "with a quarter of a second before the word"


async def test_a_clear_is_told_in_its_place(live: Live) -> None:
    """With the number of the utterance that is forgotten, or none; what ended before it keeps its final."""
    live.stt.may_end.clear()
    session = await live.start(partials=False)
    await session.feed(pcm16(np.concatenate([spoken(0.1, 0.2), silence(0.8), spoken(0.3)])))
    await session.clear()
    await session.clear()
    live.stt.may_end.set()
    await session.finish()
    order = [(e.type, e.data.get("utterance")) for e in session.events.after(0)]
    assert order[-4:] == [("cleared", 2), ("cleared", None), ("final", 1), ("closed", None)]
    assert told(session, "cleared")[0]["received_bytes"] == session.received_bytes
    assert told(session, "final")[0]["text"] == "w10 w20"


async def test_a_clear_may_also_forget_what_ended_and_is_not_told_yet(live: Live) -> None:
    """Also the one that is being recognised; what is said later is told."""
    live.stt.may_end.clear()
    session = await live.start(partials=False)
    two = np.concatenate([spoken(0.1, 0.2), silence(0.8), spoken(0.3, 0.4), silence(0.8)])
    await session.feed(pcm16(two))
    await live.stt.called.wait()
    await session.clear(untold=True)
    live.stt.may_end.set()
    await session.feed(pcm16(np.concatenate([spoken(0.5), silence(0.8)])))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w50"]


async def test_a_failure_over_what_was_cleared_is_not_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model broke on words that nobody waits for."""

    async def transcribe(samples: Any, **asked: Any) -> Any:
        live.stt.called.set()
        await live.stt.may_end.wait()
        raise ModelFailed("the model broke")

    session = await live.start(partials=False)
    live.stt.may_end.clear()
    monkeypatch.setattr(live.stt, "transcribe", transcribe)
    await session.feed(pcm16(np.concatenate([spoken(0.1, 0.2), silence(0.8)])))
    await live.stt.called.wait()
    await session.clear(untold=True)
    live.stt.may_end.set()
    await session.finish()
    assert [event.type for event in session.events.after(0)] == [
        "speech_started",
        "speech_stopped",
        "cleared",
        "closed",
    ]


async def test_a_client_that_is_too_fast_waits(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeding returns only when there is room: what waits stays bounded, and every word is told in the end."""
    monkeypatch.setattr(session_module, "MAX_AHEAD_S", 3.0)
    live.stt.delay_s = 0.02
    session = await live.start(partials=False)
    waiting: list[float] = []
    for n in range(1, 21):
        await session.feed(pcm16(np.concatenate([spoken(n / 50, n / 50), silence(0.8)])))
        waiting.append(session._turns.waiting_s)
    await session.finish()
    assert max(waiting) <= 3.0
    assert [final["text"] for final in told(session, "final")] == [f"w{n * 2} w{n * 2}" for n in range(1, 21)]


async def test_a_failing_model_costs_an_utterance_not_the_session(live: Live) -> None:
    """Its error is told with the utterance's number, what was stable is kept, and the next one is heard."""
    session = await live.start(partials=False)
    live.stt.failures = [ModelFailed("the model broke"), ModelFailed("the model broke")]
    await say(session, np.concatenate([spoken(0.1, 0.2), silence(1.0)]))
    await say(session, np.concatenate([spoken(0.3, 0.4), silence(1.0)]))
    await session.finish()
    error = told(session, "error")[0]
    assert (error["code"], error["utterance"], error["fatal"]) == ("model_failed", 1, False)
    assert [(final["text"], final["reliable"]) for final in told(session, "final")] == [
        ("", False),
        ("w30 w40", True),
    ]


async def test_an_unknown_language_is_refused_at_the_start(live: Live) -> None:
    """Before any sound; nothing is left open."""
    with pytest.raises(InvalidInput, match="does not know the language"):
        await live.start(language="xx")
    session = await live.start()
    assert session.reason is None


async def test_bytes_that_are_no_sound_end_the_session(live: Live) -> None:
    """With a problem of its own, told before the end; then nothing more is taken."""
    session = await live.start(encoding="webm_opus")
    with pytest.raises(UnsupportedMedia):
        await session.feed(b"this is no webm at all")
    assert told(session, "error")[0]["code"] == "unsupported_media"
    assert (session.reason, session.status) == ("error", 415)
    with pytest.raises(Conflict):
        await session.feed(b"more")


async def test_a_session_has_a_longest_length() -> None:
    """Too much sound ends it, with what limit it was."""
    live = Live(max_audio_s=1.0)
    session = await live.start()
    with pytest.raises(TooLarge, match="1 s"):
        await say(session, silence(1.5))
    assert session.reason == "error"
    await live.sessions.close()


async def test_an_organisation_has_so_many_sessions_and_another_its_own() -> None:
    """The limit counts what is open; one that ended makes room."""
    live = Live(sessions=2)
    first, _ = await live.start(), await live.start()
    with pytest.raises(Overloaded, match="2 live sessions"):
        await live.start()
    assert (await live.start(make_principal())).reason is None
    await first.finish()
    assert (await live.start()).reason is None
    await live.sessions.close()


async def test_who_may_not_run_engines_may_not_listen_either(live: Live) -> None:
    """Neither by role nor by what an API key allows."""
    with pytest.raises(Forbidden):
        await live.start(replace(live.me, permissions=frozenset({"read"})))
    with pytest.raises(Forbidden, match="API key"):
        await live.start(replace(live.me, engines=frozenset({"embedding"})))


async def test_a_connection_lost_in_the_middle_of_a_message_leaves_no_half_of_it(live: Live) -> None:
    """All of the message is taken in before the next connection is told how much there is; nothing is heard twice."""
    live.voice.delay_s = 0.02
    session = await live.start()
    whole = pcm16(np.concatenate([spoken(*(n / 20 for n in range(1, 11))), silence(1.0)]))
    middle = len(whole) // 2 // 2 * 2
    feeding = asyncio.create_task(session.feed(whole[:middle]))
    await asyncio.sleep(0.03)
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    assert session.received_bytes == 0, "it is still being taken in"
    live.sessions.let_go(session, live.holder)
    again = await live.sessions.resume(live.me, session.id, asyncio.Event())
    assert again.received_bytes == middle
    await again.feed(whole[again.received_bytes :])
    await again.finish()
    assert again.audio_s == pytest.approx(len(whole) / 32_000, abs=1e-3)
    assert told(again, "final")[0]["text"] == " ".join(f"w{n * 5}" for n in range(1, 11))


async def test_a_stop_that_is_cut_off_can_be_said_again(live: Live) -> None:
    """The connection breaks after it; who comes back and stops gets the last words."""
    live.stt.may_end.clear()
    session = await live.start()
    await session.feed(pcm16(spoken(0.1, 0.2)))
    stopping = asyncio.create_task(session.finish())
    await live.stt.called.wait()
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    live.stt.may_end.set()
    live.sessions.let_go(session, live.holder)
    again = await live.sessions.resume(live.me, session.id, asyncio.Event())
    await again.finish()
    assert [final["text"] for final in told(again, "final")] == ["w10 w20"]
    assert again.reason == "stopped"


async def test_what_is_cleared_while_it_is_being_heard_is_not_told(live: Live) -> None:
    """A partial that comes back after the clear belongs to nobody."""
    live.stt.may_end.clear()
    session = await live.start()
    await session.feed(pcm16(spoken(0.1, 0.2, 0.3)))
    await live.stt.called.wait()
    await session.clear()
    live.stt.may_end.set()
    for _ in range(10):
        await asyncio.sleep(0)
    await session.finish()
    assert told(session, "partial") == told(session, "final") == []


async def test_a_lost_session_is_found_by_its_user_alone(live: Live) -> None:
    """Another tenant, and another user of the same one, get what an id that never existed gets."""
    session = await live.start()
    await say(session, spoken(0.1, 0.2))
    live.sessions.let_go(session, live.holder)
    colleague = replace(live.me, user_id=uuid4())
    for other in (make_principal(), colleague):
        with pytest.raises(NotFound) as theirs:
            await live.sessions.resume(other, session.id, asyncio.Event())
        with pytest.raises(NotFound) as never:
            await live.sessions.resume(other, uuid4(), asyncio.Event())
        assert str(theirs.value) == str(never.value)
    again = await live.sessions.resume(live.me, session.id, asyncio.Event())
    assert again is session
    assert again.received_bytes == len(pcm16(spoken(0.1, 0.2)))
    await say(again, np.concatenate([spoken(0.3), silence(1.0)]))
    await again.finish()
    assert told(again, "final")[0]["text"] == "w10 w20 w30"


async def test_another_connection_takes_the_session_over(live: Live) -> None:
    """The one that had it is told, and its going ends nothing."""
    session = await live.start()
    other = asyncio.Event()
    await live.sessions.resume(live.me, session.id, other)
    assert live.holder.is_set()
    assert live.sessions.held(session, other)
    assert not live.sessions.held(session, live.holder)
    live.sessions.let_go(session, live.holder)
    assert live.sessions.held(session, other)


async def test_a_lost_session_ends_when_nobody_comes_back() -> None:
    """After the time for it; its usage is written, once."""
    live = Live(resume_s=0.01)
    session = await live.start()
    live.sessions.let_go(session, live.holder)
    await closed(session)
    with pytest.raises(NotFound):
        await live.sessions.resume(live.me, session.id, asyncio.Event())
    await live.sessions.close()
    assert [(row.engine, row.outcome, row.org_id) for row in live.usage.rows] == [
        ("transcription", "ok", live.me.org_id)
    ]


async def test_a_stopping_server_lets_sessions_finish_their_words(live: Live) -> None:
    """What is being said becomes a final; no new session opens."""
    live.sessions.limits = replace(live.sessions.limits, stop_s=60)
    session = await live.start()
    await say(session, spoken(0.1, 0.2))
    stopping = asyncio.create_task(live.sessions.stop())
    await closed(session)
    live.sessions.let_go(session, live.holder)
    await stopping
    assert told(session, "final")[0]["text"] == "w10 w20"
    assert session.reason == "shutdown"
    with pytest.raises(Unavailable):
        await live.start()


async def test_a_hot_word_and_a_prompt_reach_the_model(live: Live) -> None:
    """With the language, where one was named."""
    session = await live.start(language="de", hot_words=["Dashwood"], prompt="Ein Roman.")
    await say(session, np.concatenate([spoken(0.1, 0.2), silence(1.0)]))
    await session.finish()
    assert {(c["language"], c["prompt"], *c["hot_words"]) for c in live.stt.calls} == {("de", "Ein Roman.", "Dashwood")}


async def test_many_events_are_kept_to_a_bound_and_the_loss_is_known(live: Live) -> None:
    """The oldest go; a client that asks after them learns that some are gone."""
    session = await live.start()
    for n in range(1005):
        session.events.add("speech_started", utterance=n)
    assert len(session.events.after(0)) == 1000
    assert session.events.lost_until == 5


_LONG_SPEECH = np.concatenate([spoken(*(n / 40 for n in range(1, 19))), silence(1.0)])


async def _with_sentences(live: Live, monkeypatch: pytest.MonkeyPatch) -> LiveSession:
    """A session that hears a sentence in ten words, and in which a few seconds are long."""
    live.stt.sentence = 10
    monkeypatch.setattr(turns, "LONG_S", 5.0)
    monkeypatch.setattr(hearing, "LONG_S", 5.0)
    monkeypatch.setattr(hearing, "_SENTENCE_S", 2.0)
    return await live.start()


async def test_a_long_utterance_ends_with_a_sentence_not_within_one(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text must not take longer and longer: what comes after the sentence is the next utterance's."""
    session = await _with_sentences(live, monkeypatch)
    await say(session, _LONG_SPEECH)
    await session.finish()
    finals = told(session, "final")
    assert len(finals) > 1
    assert all(final["text"].endswith(".") for final in finals[:-1])
    heard = [int(word["w"].strip("w.")) for final in finals for word in final["words"]]
    assert heard == sorted(set(heard))
    assert len(heard) >= 17
    assert len(told(session, "speech_stopped")) == 1


async def test_what_is_cut_within_speech_is_heard_with_what_follows(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recogniser gets more than the utterance, whose words end where it ends."""
    monkeypatch.setattr(turns, "MAX_UTTERANCE_S", 4.0)
    session = await live.start(partials=False)
    levels = [n / 40 for n in range(1, 21)]
    await say(session, np.concatenate([spoken(*levels), silence(1.0)]))
    await session.finish()
    first = told(session, "final")[0]
    assert live.stt.calls[0]["seconds"] > first["words"][-1]["end_s"] + 0.3
    assert all(word["end_s"] <= first["end_s"] + 0.2 for word in first["words"])


async def test_a_sentence_that_is_cut_off_is_recognised_with_what_follows(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its final needs no recognition of its own, and what follows it is known at once."""
    session = await _with_sentences(live, monkeypatch)
    await say(session, _LONG_SPEECH)
    await session.finish()
    first = told(session, "final")[0]
    length_s = first["words"][-1]["end_s"]
    thorough = [call["seconds"] for call in live.stt.calls if call["beam_size"] == 5]
    assert thorough[0] > length_s + 0.6
    assert len(thorough) == len(told(session, "final")), "one for each cut, and one for the end"


async def test_a_failing_model_cuts_no_sentence_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speech goes on as one utterance, and nothing of it is lost."""
    session = await _with_sentences(live, monkeypatch)
    whole = live.stt.transcribe

    async def transcribe(samples: Any, **asked: Any) -> Any:
        if asked["beam_size"] == 5 and len(told(session, "speech_stopped")) == 0:
            raise ModelFailed("the model broke")
        return await whole(samples, **asked)

    monkeypatch.setattr(live.stt, "transcribe", transcribe)
    await say(session, _LONG_SPEECH)
    await session.finish()
    assert len(told(session, "final")) == 1
    assert len(told(session, "final")[0]["words"]) >= 17


async def test_a_short_turn_is_recognised_with_the_sound_before_it(live: Live) -> None:
    """Of which no word is told again; a partial has no time for that."""
    session = await live.start()
    await say(session, np.concatenate([spoken(0.1, 0.2, 0.3), silence(1.0), spoken(0.4, 0.5), silence(1.0)]))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w10 w20 w30", "w40 w50"]
    thorough = [call["seconds"] for call in live.stt.calls if call["beam_size"] == 5]
    quick = [call["seconds"] for call in live.stt.calls if call["beam_size"] == 1]
    assert thorough[-1] == pytest.approx(3.2, abs=0.1)
    assert max(quick) < 1.8


async def test_a_language_is_not_taken_from_the_sound_before(live: Live) -> None:
    """Where nothing told a turn's own language, it is heard by itself; with one named, what came before helps."""
    turn = np.concatenate([spoken(*[0.1] * 6), silence(1.0), spoken(*[0.2] * 6), silence(1.0)])
    for options, seconds in (({}, 2.9), ({"language": "en"}, 6.1)):
        live.stt.calls.clear()
        session = await live.start(partials=False, **options)
        await say(session, turn)
        await session.finish()
        assert live.stt.calls[-1]["seconds"] == pytest.approx(seconds, abs=0.3)
        assert [len(final["words"]) for final in told(session, "final")] == [6, 6]


async def test_only_so_much_sound_is_kept_for_what_follows(live: Live) -> None:
    """However long nobody speaks."""
    session = await live.start(partials=False)
    await say(session, np.concatenate([spoken(0.1), silence(12.0)]))
    assert len(session._turns.tape.slice(0, session._turns.tape.end)) < (MOST_BEFORE_S + 1.5) * SAMPLE_RATE_HZ


async def test_a_turn_that_is_lost_in_the_sound_before_it_is_heard_alone(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recogniser may put all of its words into the pause before it."""
    whole = live.stt.transcribe

    async def transcribe(samples: Any, **asked: Any) -> Any:
        found = await whole(samples, **asked)
        return found if len(samples) < 2.5 * SAMPLE_RATE_HZ else replace(found, utterances=[])

    monkeypatch.setattr(live.stt, "transcribe", transcribe)
    session = await live.start(partials=False)
    await say(session, np.concatenate([spoken(0.1, 0.2, 0.3), silence(1.0), spoken(0.4, 0.5), silence(1.0)]))
    await session.finish()
    assert [final["text"] for final in told(session, "final")] == ["w10 w20 w30", "w40 w50"]
    assert max(call["seconds"] for call in live.stt.calls) > 2.5
