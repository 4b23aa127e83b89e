"""espeak-ng: what it says, when it says which word, and that its one state serves many callers."""

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.errors import InvalidInput, ModelFailed, ModelUnavailable
from neuroedge.contract.speech import Part
from neuroedge.kit.speech_audio import pcm16, wav_header
from neuroedge.runtimes import espeak
from neuroedge.runtimes.espeak import Espeak

pytestmark = pytest.mark.anyio
TEXT = [Part(text="Hello there, I eat 25 "), Part(text="tomatoes", ipa="təˈmeɪtoʊz"), Part(text=", she said.")]


@pytest.fixture
async def voice() -> AsyncIterator[Espeak]:
    """The library."""
    loaded = espeak.load("espeak-ng", Path(), threads=1, options={})
    yield loaded
    loaded.close()


async def test_words_are_said_in_their_order(voice: Espeak) -> None:
    """Each with its time, numbers and given pronunciations too, within the speech."""
    said = await voice.say(TEXT, language="en")
    assert said.words is not None
    assert [word.word for word in said.words] == ["Hello", "there,", "I", "eat", "25", "tomatoes", "she", "said."]
    ends = [word.end_s for word in said.words]
    assert all(word.start_s < word.end_s for word in said.words)
    assert ends == sorted(ends)
    assert ends[-1] <= len(said.samples) / said.rate_hz
    assert 0.05 < np.abs(said.samples).max() <= 1
    assert not said.warnings


async def test_speed_is_followed(voice: Espeak) -> None:
    """Half and double; beyond what it can, it says so."""
    usual, slow, fast, creeping = [len((await voice.say(TEXT, speed=s)).samples) for s in (1.0, 0.5, 2.0, 0.25)]
    assert slow > 1.5 * usual > 2.2 * fast
    assert creeping >= slow
    assert "espeak-ng speaks 0.46" in (await voice.say(TEXT, speed=0.25)).warnings[0]


async def test_a_pronunciation_changes_what_is_said(voice: Espeak) -> None:
    """In English; elsewhere, and with unknown signs, the word is read and the caller told."""
    plain, told = [await voice.say([Part(text="cat", ipa=ipa)]) for ipa in (None, "dɒɡz")]
    assert len(plain.samples) != len(told.samples)
    for parts, language in (([Part(text="cat", ipa="ʘ")], "en"), ([Part(text="Katze", ipa="kæt")], "de")):
        assert "pronunciation" in (await voice.say(parts, language=language)).warnings[0]


async def test_brackets_of_a_text_are_no_phonemes(voice: Espeak) -> None:
    """Nor are tags tags, nor does a zero byte end the text."""
    brackets = await voice.say([Part(text="[[x]] <speak> a\0b done")])
    assert brackets.words is not None
    assert brackets.words[-1].word == "done"


@pytest.mark.parametrize("name", ["xx", "../../x", "en us", "en\0", "EN", "", "en" * 50])
async def test_a_voice_it_has_not_is_refused(voice: Espeak, name: str) -> None:
    """Also names that are no names of voices; an empty one is none given."""
    if name:
        with pytest.raises(InvalidInput):
            await voice.say(TEXT, voice=name)
    with pytest.raises(InvalidInput, match="does not speak"):
        await voice.say(TEXT, language="qqq")


async def test_every_language_of_the_list_speaks(voice: Espeak) -> None:
    """None is silent; Hindi, Tamil, Odia and Chinese are among them."""
    known = espeak.voices()
    assert {"hi", "ta", "te", "bn", "mr", "gu", "kn", "ml", "pa", "or"} <= {voice.id for voice in known}
    assert "zh" in next(one for one in known if one.id == "cmn").languages
    assert known[0].id == espeak.DEFAULT_VOICE
    for one in known:
        assert len((await voice.say([Part(text="1 2")], voice=one.id)).samples), one.id


async def test_many_callers_get_what_they_asked(voice: Espeak) -> None:
    """Two loaded models share the library's one state."""
    other = espeak.load("espeak-ng", Path(), threads=1, options={})
    texts = [("one", "en-us"), ("zwei drei vier", "de"), ("cinq six", "fr")] * 4
    alone = [await voice.say([Part(text=text)], voice=name) for text, name in texts]
    asked = [(voice if i % 2 else other).say([Part(text=t)], voice=n) for i, (t, n) in enumerate(texts)]
    together = await asyncio.gather(*asked)
    # A few samples more or less are left over from what was said before.
    assert [len(one.samples) for one in together] == pytest.approx([len(one.samples) for one in alone], rel=0.02)
    other.close()


def _program(folder: Path, body: str) -> None:
    path = folder / "espeak-ng"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


async def test_without_the_library_a_program_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its WAV is read, the text goes to its input; what it cannot is told."""
    sound = tmp_path / "sound.wav"
    sound.write_bytes(wav_header(rate_hz=22_050, data_bytes=None) + pcm16(np.full(2205, 0.5, np.float32)))
    _program(tmp_path, f'grep -q "Hello" && cat {sound}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    program = espeak.load("espeak-ng", Path(), threads=1, options={})
    said = await program.say(TEXT)
    assert (len(said.samples), said.rate_hz, said.words) == (2205, 22_050, None)
    with pytest.raises(InvalidInput):
        await program.say([Part(text="other")])
    _program(tmp_path, "cat >/dev/null; echo no sound")
    with pytest.raises(ModelFailed, match="WAV"):
        await program.say(TEXT)
    program.close()


async def test_without_either_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that installs it; nothing is listed as installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not espeak.installed()
    with pytest.raises(ModelUnavailable) as caught:
        espeak.load("espeak-ng", Path(), threads=1, options={})
    assert caught.value.hint == "pip install neuroedge[voices]"
