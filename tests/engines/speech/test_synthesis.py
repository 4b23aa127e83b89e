"""The synthesis engine: its contract over scripted voices, and real ones where they are installed."""

import base64
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput, ProviderFailed, TooLarge, Unavailable
from neuroedge.contract.models import Floats
from neuroedge.contract.speech import AudioFormat, Part, SpeechPiece, SpeechSynthesiser, Voice, VoiceKind, WordTime
from neuroedge.engines.speech import synthesis
from neuroedge.engines.speech.synthesis import Input, Output, SynthesisEngine
from neuroedge.infra.media import decode
from neuroedge.infra.media_encode import encoded
from neuroedge.kit.speech_audio import of_pcm16
from neuroedge.runtimes import espeak
from tests.fakes import FakeCache, RecordedProgress, make_context

pytestmark = pytest.mark.anyio
RATE_HZ = 16_000
LETTER_S = 0.05


def voice(id_: str, kind: VoiceKind, *languages: str, ready: bool = True) -> Voice:
    """A voice of a model of its own."""
    method = {"network": "network", "neural": "piper", "formant": "espeak-ng"}[kind]
    return Voice(
        id=id_,
        name=id_.rpartition("/")[2],
        kind=kind,
        method=method,
        model=id_,
        voice=None,
        languages=languages,
        private=kind != "network",
        fingerprint="1",
        ready=ready,
        remedy=None if ready else f"pull {id_}",
    )


NETWORK, NEURAL, FORMANT = (
    voice("net/tts/nova", "network"),
    voice("joe", "neural", "en-US"),
    voice("es", "formant", "en"),
)
GERMAN, HINDI = voice("es/de", "formant", "de"), voice("es/hi", "formant", "hi")
ALL = (NETWORK, NEURAL, FORMANT, GERMAN, HINDI)


class Speaker:
    """Says each letter as a twentieth of a second of tone; knows its words when told so."""

    def __init__(self, *, knows_words: bool = False, rate_hz: int = RATE_HZ, fails_after: int | None = None) -> None:
        self.asked: list[tuple[str, float]] = []
        self.parts: list[Part] = []
        self.model_id = "scripted"
        self._knows_words = knows_words
        self._rate_hz = rate_hz
        self._fails_after = fails_after

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """The script."""
        if self._fails_after is not None and len(self.asked) >= self._fails_after:
            raise ProviderFailed("told to fail")
        text = "".join(part.text for part in parts)
        self.asked.append((text, speed))
        self.parts += parts
        seconds = len(text) * LETTER_S / speed
        tone = 0.1 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * self._rate_hz)) / self._rate_hz)
        words = [WordTime(word=text.split()[0], start_s=0.0, end_s=seconds)] if self._knows_words else None
        return SpeechPiece(samples=tone.astype(np.float32), rate_hz=self._rate_hz, words=words)


class ScriptedOutput:
    """Voices with their speakers."""

    def __init__(self, voices: Sequence[Voice], speakers: dict[str, Any] | None = None) -> None:
        self.voices = voices
        self.speakers: dict[str, Any] = {one.id: Speaker() for one in voices} | (speakers or {})

    async def known(self) -> Sequence[Voice]:
        """All."""
        return self.voices

    @asynccontextmanager
    async def opened(self, voice: Voice) -> AsyncIterator[SpeechSynthesiser]:
        """The speaker."""
        if not voice.ready:
            raise Unavailable(f"{voice.id} is not installed", hint=voice.remedy)
        yield self.speakers[voice.id]

    async def encode(self, samples: Floats, *, rate_hz: int, form: AudioFormat) -> bytes:
        """Really."""
        return encoded(samples, rate_hz=rate_hz, form=form)


def context(output: ScriptedOutput, **more: Any) -> EngineContext:
    """With these voices."""
    return replace(make_context(**more), speech_output=output)


async def say(output: ScriptedOutput | None = None, **fields: Any) -> Output:
    """Run the engine."""
    ctx = context(output or ScriptedOutput([FORMANT, GERMAN, HINDI]))
    return await SynthesisEngine(probe=ctx).run(Input(**fields), ctx)


def sound(out: Output) -> Floats:
    """As it is decoded."""
    return decode(base64.b64decode(out.audio), max_duration_s=600).samples


async def test_a_sentence_is_said() -> None:
    """As long as its letters take, as loud as asked, with the times of its words."""
    out = await say(text="One two three.", loudness_lufs=-23.0)
    assert (out.method, out.voice, out.fallback_reason, out.characters) == ("espeak-ng", "es", None, 14)
    assert out.duration_s == pytest.approx(14 * LETTER_S, abs=0.01)
    assert len(sound(out)) == pytest.approx(out.duration_s * 16_000, abs=20)
    assert out.loudness_lufs == pytest.approx(-23.0, abs=0.2)
    assert [mark.word for mark in out.marks] == ["One", "two", "three."]
    assert out.marks_estimated
    assert out.marks[-1].end_s <= out.duration_s


async def test_the_network_comes_first_and_falls_back() -> None:
    """Who answered is told, and why it was not the first; the failed one is not asked again."""
    network = Speaker(fails_after=1)
    output = ScriptedOutput(ALL, {NETWORK.id: network})
    ssml = "<speak><p>One.</p><p>Two.</p><p>Three.</p></speak>"
    out = await say(output, ssml=ssml)
    assert out.voices == ["net/tts/nova", "joe"]
    assert out.fallback_reason == "net/tts/nova: provider_failed"
    assert [text for text, _ in output.speakers["joe"].asked] == ["Two.", "Three."]
    strict = ScriptedOutput(ALL, {NETWORK.id: Speaker(fails_after=0)})
    with pytest.raises(ProviderFailed):
        await say(strict, text="One.", fallback=False)
    assert (await say(strict, text="One.", voice="nova")).voice == "joe"


async def test_when_nobody_answers_the_last_failure_is_told() -> None:
    """And with no voice installed, how to install one."""
    broken = ScriptedOutput([NETWORK, FORMANT], {one.id: Speaker(fails_after=0) for one in (NETWORK, FORMANT)})
    with pytest.raises(ProviderFailed):
        await say(broken, text="One.")
    for voices in ([], [voice("joe", "neural", "en", ready=False)]):
        with pytest.raises(Unavailable) as caught:
            await say(ScriptedOutput(voices), text="One.")
        assert "neuroedge[voices]" in str(caught.value.hint)
    ctx = make_context()
    with pytest.raises(Unavailable):
        await SynthesisEngine(probe=ctx).run(Input(text="One."), ctx)


async def test_a_voice_that_is_not_installed_is_replaced_or_told() -> None:
    """As the caller wishes."""
    output = ScriptedOutput([voice("joe", "neural", "en", ready=False), FORMANT])
    out = await say(output, text="One.", voice="joe")
    assert (out.voice, out.fallback_reason) == ("es", "joe: unavailable")
    with pytest.raises(Unavailable) as caught:
        await say(output, text="One.", voice="joe", fallback=False)
    assert caught.value.hint == "pull joe"


async def test_the_language_chooses_the_voice() -> None:
    """Given, of an SSML passage, or told by the script."""
    assert (await say(text="Hallo.", language="de")).voice == "es/de"
    assert (await say(text="नमस्ते दुनिया")).language == "hi"
    assert (await say(text="Hello.", voice="es/de")).language == "de"
    mixed = await say(ssml='<speak>Hello. <lang xml:lang="de">Hallo.</lang></speak>')
    assert mixed.voices == ["es", "es/de"]


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"voice": "nobody"}, "voice", "no voice 'nobody'"),
        ({"language": "tlh"}, "language", "no voice here speaks 'tlh'"),
        ({"voice": "es", "language": "de"}, "language", "es here speaks 'de'"),
        ({"text": None, "ssml": "<speak><b>x</b></speak>"}, "ssml", "line 1"),
        ({"text": None, "ssml": "<!DOCTYPE a><speak>x</speak>"}, "ssml", "document type"),
        ({"text": None, "ssml": '<speak><voice name="nobody">x</voice></speak>'}, "voice", "nobody"),
    ],
)
async def test_what_cannot_be_said_names_its_field(fields: dict[str, Any], field: str, told: str) -> None:
    """422 with a path."""
    with pytest.raises(InvalidInput) as caught:
        await say(**{"text": "One.", **fields})
    assert told in f"{caught.value.detail} {caught.value.errors}"
    assert caught.value.errors[0]["loc"] == (field,)


@pytest.mark.parametrize(
    "text", ["...", "— — —", "<speak/>", "<speak> . </speak>", '<speak><break time="1s"/></speak>']
)
async def test_a_text_without_words_is_told(text: str) -> None:
    """Not an empty file."""
    with pytest.raises(InvalidInput, match="nothing to say"):
        await say(**({"ssml": text} if text.startswith("<") else {"text": text}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": None},
        {"text": ""},
        {"text": " \n"},
        {"text": 5},
        {"text": ["x"]},
        {"ssml": "<speak>x</speak>"},
        {"text": "x" * 1_000_000},
        {"text": None, "ssml": "<speak>" + "x" * 1_000_000 + "</speak>"},
        {"speed": 0},
        {"speed": math.nan},
        {"speed": math.inf},
        {"speed": 100},
        {"speed": -1},
        {"pitch": 0},
        {"pitch": math.nan},
        {"loudness_lufs": 0},
        {"loudness_lufs": math.nan},
        {"gain_db": 1e9},
        {"rate_hz": 0},
        {"rate_hz": 10**9},
        {"format": "midi"},
        {"voice": ""},
        {"voice": "x" * 201},
        {"language": "english!"},
        {"lexicon": {"x": ""}},
        {"lexicon": {str(n): "x" for n in range(501)}},
        {"no_such_field": 1},
    ],
)
def test_bad_input_is_refused_before_anything_is_said(wrong: dict[str, Any]) -> None:
    """Missing, empty, of a wrong type, huge, no number, out of range."""
    with pytest.raises(ValidationError):
        Input.model_validate({"text": "One.", **wrong})


async def test_ssml_that_says_more_than_the_limit_is_too_large() -> None:
    """As counted without its markup."""
    with pytest.raises(TooLarge):
        await say(ssml="<speak>" + "word " * (synthesis.MOST_CHARS // 5 + 1) + "</speak>")


async def test_more_than_an_hour_of_speech_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends as soon as that is known."""
    monkeypatch.setattr(synthesis, "MOST_AUDIO_S", 2.0)
    speaker = Speaker()
    with pytest.raises(TooLarge):
        await say(ScriptedOutput([FORMANT], {FORMANT.id: speaker}), text="A sentence like this one. " * 100)
    assert len(speaker.asked) < 20


async def test_pauses_count_towards_the_hour_of_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than the limit is refused before anybody is asked to speak; less leaves so much less for words."""
    monkeypatch.setattr(synthesis, "MOST_AUDIO_S", 12.0)
    speaker = Speaker()
    output = ScriptedOutput([FORMANT], {FORMANT.id: speaker})
    with pytest.raises(TooLarge, match="12 s of speech"):
        await say(output, ssml='<speak>Hi<break time="10s"/><break time="10s"/>you</speak>')
    assert speaker.asked == []
    text = "A sentence of two seconds, as it is said."
    assert (await say(output, text=text)).duration_s > 2
    with pytest.raises(TooLarge):
        await say(output, ssml=f'<speak>Hi<break time="10s"/>{text}</speak>')


async def test_speed_and_pitch_change_what_they_name() -> None:
    """A higher pitch leaves the length as it is: it is spoken slower and played faster."""
    usual = await say(text="One two three four.")
    fast = await say(text="One two three four.", speed=2.0)
    high = await say(text="One two three four.", pitch=1.5)
    assert fast.duration_s == pytest.approx(usual.duration_s / 2, abs=0.01)
    assert high.duration_s == pytest.approx(usual.duration_s, abs=0.02)

    def hz(out: Output) -> float:
        return float(np.argmax(np.abs(np.fft.rfft(sound(out)))) * 16_000 / len(sound(out)))

    assert (hz(usual), hz(high)) == (pytest.approx(300, abs=3), pytest.approx(450, abs=5))


async def test_manners_of_ssml_are_heard() -> None:
    """A pause is silent, what is soft is softer, and times go on after both."""
    out = await say(ssml='<speak>One.<break time="500ms"/><prosody volume="-12dB">Two.</prosody></speak>')
    samples, at = sound(out), round(4 * LETTER_S * 16_000)
    assert np.abs(samples[at + 100 : at + 7900]).max() < 0.01
    first, second = np.abs(samples[: at - 100]).max(), np.abs(samples[at + 8100 :]).max()
    assert 20 * np.log10(second / first) == pytest.approx(-12, abs=0.5)
    assert out.marks[1].start_s >= 0.5 + 4 * LETTER_S - 0.01


async def test_words_are_said_as_the_lexicon_has_them() -> None:
    """Another spelling is read, IPA goes to the voice."""
    speaker = Speaker()
    await say(
        ScriptedOutput([FORMANT], {FORMANT.id: speaker}),
        text="Nguyen eats a tomato.",
        lexicon={"nguyen": "win", "Tomato": "/təˈmeɪtoʊ/"},
    )
    assert speaker.asked[0][0] == "win eats a tomato."
    assert Part(text="tomato", ipa="təˈmeɪtoʊ") in speaker.parts


async def test_long_text_is_said_in_pieces_with_progress() -> None:
    """Sentence by sentence, in order."""
    speaker, progress = Speaker(), RecordedProgress()
    ctx = context(ScriptedOutput([FORMANT], {FORMANT.id: speaker}), progress=progress)
    text = " ".join(f"This is sentence number {n}." for n in range(100))
    out = await SynthesisEngine(probe=ctx).run(Input(text=text, format="mp3"), ctx)
    assert "".join(said for said, _ in speaker.asked) == text
    assert max(len(said) for said, _ in speaker.asked) <= 300
    fractions = [fraction for _, fraction in progress.reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(out.marks) == 500


async def test_what_was_said_is_not_computed_again() -> None:
    """Of the same voice, speed and pronunciation; anything else is another speech."""
    speaker = Speaker(knows_words=True)
    ctx = context(ScriptedOutput([FORMANT], {FORMANT.id: speaker}), cache=FakeCache())
    engine = SynthesisEngine(probe=ctx)
    once, again = [await engine.run(Input(text="One two."), ctx) for _ in range(2)]
    assert once == again
    assert not once.marks_estimated
    assert len(speaker.asked) == 1
    for more in ({"speed": 1.1}, {"lexicon": {"one": "/wʌn/"}}, {"lexicon": {"one": "/wan/"}}):
        await engine.run(Input(text="One two.", **more), ctx)  # type: ignore[arg-type]
    assert len(speaker.asked) == 4


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac", "aac"])
async def test_every_format_is_read_back(form: AudioFormat) -> None:
    """With the same length, at the rate asked for."""
    out = await say(text="One two three four five.", format=form, rate_hz=24_000)
    assert len(sound(out)) / 16_000 == pytest.approx(out.duration_s, abs=0.15)
    assert out.rate_hz == 24_000


async def test_bare_samples_take_the_gain_of_an_earlier_part() -> None:
    """So that a text said in parts does not jump in level."""
    loud = await say(text="One two three.", format="pcm", gain_db=6.0)
    usual = await say(text="One two three.", format="pcm", gain_db=0.0)
    levels = [np.abs(of_pcm16(base64.b64decode(out.audio))).max() for out in (loud, usual)]
    assert 20 * np.log10(levels[0] / levels[1]) == pytest.approx(6.0, abs=0.1)


async def test_health_tells_the_best_voice() -> None:
    """ready with a natural one, degraded with rules only, unavailable with none."""
    states = []
    for voices in ([NEURAL, FORMANT], [FORMANT], [voice("joe", "neural", ready=False)]):
        health = await SynthesisEngine(probe=context(ScriptedOutput(voices))).health()
        states.append((health.status, health.method))
        assert (health.detail is None) == (health.status == "ready")
    assert states == [("ready", "piper"), ("degraded", "espeak-ng"), ("unavailable", "piper")]


class EspeakOutput(ScriptedOutput):
    """The real espeak-ng."""

    def __init__(self) -> None:
        self.espeak = espeak.load("espeak-ng", voice, threads=1, options={})  # type: ignore[arg-type]
        super().__init__([FORMANT], {FORMANT.id: self.espeak})


async def test_a_real_voice_proves_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that drawls fails its self-test."""
    output = EspeakOutput()
    await SynthesisEngine(probe=context(output)).post_swap_test()
    out = await say(output, text="One two three.")
    assert [mark.word for mark in out.marks] == ["One", "two", "three."]
    assert not out.marks_estimated
    output.espeak.close()
    monkeypatch.setattr("tests.engines.speech.test_synthesis.LETTER_S", 5.0)
    with pytest.raises(Unavailable, match="four words"):
        await SynthesisEngine(probe=context(ScriptedOutput([FORMANT]))).post_swap_test()
