"""The articulation engine: what was said against what was expected, on a reader's voice and on synthetic ones.

Errors are planted in what is expected of a recording that is read right: whoever expects "wung" and hears "young" has
heard the reader say /j/ for /w/.
"""

import asyncio
import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.articulation import Input, Output
from neuroedge.contract.errors import InvalidInput, MediaTooShort, TooLarge
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.engines.speech.articulation import Articulation
from neuroedge.infra.media import decode
from neuroedge.runtimes import phonemes, silero
from tests import espeak
from tests.fakes import FakeMedia, RecordedProgress, make_context

pytestmark = pytest.mark.anyio

SOURCE = AudioSource(blob="word.wav")
READ = "he was not an ill disposed young man"
READ_IPA = ["hi", "wɑz", "nɑt", "æn", "ɪl", "dɪspoʊzd", "jʌŋ", "mæn"]


@pytest.fixture(scope="module")
def reader() -> Floats:
    """Three seconds of LibriVox: the engine's own example."""
    data = base64.b64decode(Articulation.example.audio.base64 or "")
    return decode(data, max_duration_s=10).samples


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    """The recogniser and the voice detector that come with their libraries."""
    loaded = {
        "phonemes": phonemes.load("hama-phonemes", Path(), threads=1, options={}),
        "voice_activity": silero.load("silero-vad", Path(), threads=1, options={}),
    }
    yield loaded
    for model in loaded.values():
        model.close()


async def compare(models: dict[str, Any], samples: Floats, **payload: Any) -> Output:
    """Run the engine on a waveform."""
    ctx = make_context(models=models, media=FakeMedia(samples))
    return await Articulation(probe=ctx).run(Input(audio=SOURCE, **payload), ctx)


def expecting(**words: str) -> list[str]:
    """The reader's sentence with other phones expected of some words."""
    by_word = dict(zip(READ.split(), READ_IPA, strict=True))
    return list({**by_word, **words}.values())


async def test_a_sentence_read_well_has_no_errors(models: dict[str, Any], reader: Floats) -> None:
    """All consonants right, words timed in order, every phone with its probability."""
    out = await compare(models, reader, text=READ, child_age_years=6)
    assert (out.reliable, out.warnings, out.errors) == (True, [], 0)
    assert out.pcc_percent == 100
    assert [w.word for w in out.words] == READ.split()
    assert all(w.said_as_expected for w in out.words)
    starts = [p.start_s for p in out.phones]
    assert starts == sorted(starts)
    assert out.phones[-1].end_s <= out.signal.duration_s
    assert out.mismatch < 0.2
    assert out.norms is not None
    assert "diagnosis" in out.note


async def test_an_exchanged_consonant_is_found_with_what_was_heard(models: dict[str, Any], reader: Floats) -> None:
    """Where /w/ is expected and /j/ is said: one substitution, in its place, with its time."""
    out = await compare(models, reader, expected_ipa=expecting(young="wʌŋ"))
    (found,) = [p for p in out.phones if p.type not in ("correct", "connected_speech")]
    assert (found.expected, found.heard, found.type, found.position) == ("w", "j", "substitution", "initial")
    assert found.start_s == pytest.approx(2.16, abs=0.15)
    assert found.p_error > 0.5
    assert found.features_changed
    assert out.pcc_percent is not None
    assert out.pcc_percent < 100
    assert not out.words[6].said_as_expected


async def test_an_omitted_consonant_is_found(models: dict[str, Any], reader: Floats) -> None:
    """Where "nots" is expected and "not" is said, a consonant of the cluster is missing."""
    out = await compare(models, reader, expected_ipa=expecting(**{"not": "nɑst"}))
    (found,) = [p for p in out.phones if p.type == "omission"]
    assert (found.expected, found.heard, found.processes) == ("s", None, ["cluster reduction"])
    assert [c.name for c in out.processes] == ["cluster reduction"]
    assert out.processes[0].examples == ["s→∅ in nɑst"]


@pytest.mark.parametrize(("age", "usual"), [(4.0, True), (9.0, False), (40.0, None), (None, None)])
async def test_age_decides_what_is_still_usual(
    models: dict[str, Any], reader: Floats, age: float | None, usual: bool | None
) -> None:
    """/s/ for th at four is no delay; adults have no norms and the answer says so."""
    out = await compare(models, reader, expected_ipa=expecting(disposed="dɪθpoʊzd"), child_age_years=age)
    (found,) = [p for p in out.phones if p.expected == "θ"]
    assert (found.type, found.heard, found.age_expected) == ("substitution", "s", usual)
    assert found.acquired_at_years == 6
    assert out.errors_not_expected_at_age == {True: 0, False: 1, None: None}[usual]
    assert (out.norms is None) == (usual is None)
    assert any("norms" in w for w in out.warnings) == (age == 40.0)


async def test_a_dialects_pattern_is_no_error(models: dict[str, Any], reader: Floats) -> None:
    """th as s is reported, named, and not counted."""
    out = await compare(
        models, reader, expected_ipa=expecting(disposed="dɪθpoʊzd"), dialect_patterns=["th_alveolar", "h_dropping"]
    )
    (found,) = [p for p in out.phones if p.expected == "θ"]
    assert (found.type, found.dialect_pattern, found.age_expected) == ("dialect", "th_alveolar", None)
    assert (out.errors, out.pcc_percent, out.processes) == (0, 100, [])


@pytest.mark.parametrize(
    "text",
    ["seven purple elephants jump over the kitchen table", "zebra", "thank you very much indeed my dear old friend"],
)
async def test_another_text_is_one_warning_and_no_list_of_errors(
    models: dict[str, Any], reader: Floats, text: str
) -> None:
    """What was not said is not judged."""
    out = await compare(models, reader, text=text)
    assert not out.reliable
    assert any("not said" in w for w in out.warnings)
    assert (out.phones, out.words, out.pcc_percent, out.errors) == ([], [], None, 0)


@pytest.mark.parametrize("level", [0.0, 0.05], ids=["silence", "noise"])
async def test_nobody_speaking_is_said(models: dict[str, Any], level: float) -> None:
    """Silence and noise are no articulation."""
    noise = np.random.default_rng(0).normal(0, level, 32_000).astype(np.float32)
    out = await compare(models, noise, text="rabbit")
    assert (out.reliable, out.warnings, out.phones) == (False, ["unreliable: nobody speaks"], [])
    assert out.pcc_percent is None


async def test_more_phones_than_the_recording_can_hold_are_unreliable(models: dict[str, Any], reader: Floats) -> None:
    """Half a second cannot hold a hundred words."""
    out = await compare(models, reader[35_000:43_000], text="strengths " * 100)
    assert not out.reliable
    assert out.phones == []


async def test_a_noisy_recording_is_marked(models: dict[str, Any], reader: Floats) -> None:
    """Noise as loud as the voice: the answer comes with a warning and low confidence."""
    quiet = np.pad(reader, 16_000)
    noise = np.random.default_rng(0).normal(0, 0.03, len(quiet)).astype(np.float32)
    out = await compare(models, quiet + noise, text=READ)
    assert not out.reliable
    assert {p.confidence for p in out.phones} <= {"low"}


async def test_a_telephone_line_is_marked(models: dict[str, Any], reader: Floats) -> None:
    """Without anything above 4 kHz, s, f and th are not told apart."""
    spectrum = np.fft.rfft(reader)
    spectrum[np.fft.rfftfreq(len(reader), 1 / 16_000) > 3400] = 0
    out = await compare(models, np.fft.irfft(spectrum, len(reader)).astype(np.float32), text=READ)
    assert out.signal.telephone_band
    assert any("4 kHz" in w for w in out.warnings)


async def test_an_overdriven_recording_is_marked(models: dict[str, Any], reader: Floats) -> None:
    """Plateaus at full scale."""
    out = await compare(models, np.clip(reader * 30, -1, 1), text=READ)
    assert out.signal.clipping_percent > 1
    assert any("overdriven" in w for w in out.warnings)


async def test_whispered_words_are_marked(models: dict[str, Any]) -> None:
    """Whisper has no voice to tell b from p."""
    out = await compare(models, espeak.say("the boy and the dog went home", voice="en-us+whisper"), text="dog")
    assert any("whisper" in w for w in out.warnings) or not out.phones


async def test_a_repeated_word_is_more_than_expected(models: dict[str, Any], reader: Floats) -> None:
    """The sentence twice, where it is expected once."""
    out = await compare(models, np.concatenate([reader, reader]), text=READ)
    assert not out.reliable


class Takes(FakeMedia):
    """Several recordings, by the name of their source."""

    def __init__(self, **takes: Floats) -> None:
        super().__init__()
        self._takes = takes

    async def audio(self, source: AudioSource) -> Audio:
        """The waveform of that name."""
        return await FakeMedia(self._takes[source.blob or ""]).audio(source)


async def together(models: dict[str, Any], *names: str, **takes: Floats) -> Output:
    """The engine's answer to the reader's sentence in several recordings."""
    first, *more = (AudioSource(blob=name) for name in names)
    ctx = make_context(models=models, media=Takes(**takes))
    return await Articulation(probe=ctx).run(Input(audio=first, repetitions=more, text=READ), ctx)


async def test_recordings_of_the_same_words_are_judged_together(models: dict[str, Any], reader: Floats) -> None:
    """Twice the same is once the same; a louder one is the same speech."""
    once = await together(models, "a", a=reader)
    twice = await together(models, "a", "b", a=reader, b=reader * 1.5)
    assert (once.recordings, twice.recordings) == (1, 2)
    assert [p.gop_nats for p in twice.phones] == pytest.approx([p.gop_nats for p in once.phones], abs=0.3)
    assert twice.warnings == []


async def test_a_bad_recording_among_good_ones_is_left_out_and_named(models: dict[str, Any], reader: Floats) -> None:
    """Silence, or a recording too short for the words, first or last."""
    good = await together(models, "good", good=reader)
    for bad in (np.zeros(16_000, np.float32), reader[35_000:40_000]):
        for names in (("good", "bad"), ("bad", "good")):
            out = await together(models, *names, good=reader, bad=bad)
            assert (out.recordings, out.reliable, out.phones) == (1, True, good.phones)
            assert any("1 of 2 recordings are left out" in w for w in out.warnings)


async def test_progress_reaches_the_end(models: dict[str, Any], reader: Floats) -> None:
    """Each recording is a step."""
    progress = RecordedProgress()
    ctx = make_context(models=models, media=FakeMedia(reader), progress=progress)
    await Articulation(probe=ctx).run(Input(audio=SOURCE, repetitions=[SOURCE, SOURCE], text=READ), ctx)
    fractions = [fraction for _, fraction in progress.reports]
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3


async def test_several_calls_at_once_give_the_same_answer(models: dict[str, Any], reader: Floats) -> None:
    """Nothing is shared between calls."""
    first, second = await asyncio.gather(*(compare(models, reader, text=READ) for _ in range(2)))
    assert first == second


async def test_its_own_example_passes_the_test_after_a_swap(models: dict[str, Any], reader: Floats) -> None:
    """As hot reload runs it; health says what the figures do not prove."""
    engine = Articulation(probe=make_context(models=models, media=FakeMedia(reader)))
    await engine.post_swap_test()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"text": "cat", "expected_ipa": ["kæt"]},
        {"text": "x" * 1001},
        {"expected_ipa": []},
        {"expected_ipa": ["rabbit9"]},
        {"expected_ipa": [""]},
        {"expected_ipa": ["kæt"] * 121},
        {"expected_ipa": ["ba" * 5000]},
        {"text": "cat", "child_age_years": 0},
        {"text": "cat", "child_age_years": 400},
        {"text": "cat", "child_age_years": -3},
        {"text": "cat", "child_age_years": math.nan},
        {"text": "cat", "child_age_years": "four"},
        {"text": "cat", "dialect_patterns": ["martian"]},
        {"text": "cat", "language": "english please"},
        {"text": 5},
        {"text": "cat", "repetitions": [SOURCE] * 5},
        {"text": "cat", "repetitions": [{}]},
        {"text": "cat", "unknown": 1},
    ],
)
async def test_what_breaks_the_contract_is_refused(payload: dict[str, Any]) -> None:
    """Missing, doubled, huge, of another type, absurd."""
    with pytest.raises(ValidationError):
        Input(audio=SOURCE, **payload)


@pytest.mark.parametrize(
    ("payload", "message", "field"),
    [
        ({"text": "Katze", "language": "de"}, "English", "language"),
        ({"text": "give me 3 apples"}, "numbers", "text"),
        ({"text": "..."}, "0 words", "text"),
        ({"text": "猫が好き"}, "0 words", "text"),
        ({"text": "cat " * 200}, "200 words", "text"),
    ],
)
async def test_what_cannot_be_pronounced_names_the_field(
    models: dict[str, Any], reader: Floats, payload: dict[str, Any], message: str, field: str
) -> None:
    """422 with the path of the field, never a guess."""
    with pytest.raises(InvalidInput, match=message) as caught:
        await compare(models, reader, **payload)
    assert caught.value.errors[0]["loc"] == [field]


async def test_a_recording_too_short_or_too_long_is_refused(models: dict[str, Any]) -> None:
    """0.1 s holds no word, an hour is no word list."""
    with pytest.raises(MediaTooShort):
        await compare(models, np.zeros(1_600, np.float32), text="cat")
    with pytest.raises(TooLarge):
        await compare(models, np.zeros(16_000 * 61, np.float32), text="cat")
