"""Piper: a real voice says sentences, pronunciations and what is no word; without the package the remedy is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.speech import Part
from neuroedge.runtimes import piper_voice
from neuroedge.runtimes.piper_voice import Piper

pytestmark = pytest.mark.anyio


@pytest.fixture
async def voice(models_dir: Path) -> AsyncIterator[Piper]:
    """The catalogue's voice, where it is pulled: no default one."""
    folder = models_dir / "piper-joe"
    if not (folder / "voice.onnx").is_file():
        pytest.skip("piper-joe is not pulled")
    loaded = piper_voice.load("piper-joe", folder, threads=2, options={})
    yield loaded
    loaded.close()


@pytest.mark.models
async def test_sentences_are_said(voice: Piper) -> None:
    """At a plausible pace, faster when asked."""
    text = [Part(text="The quick brown fox jumps over the lazy dog. It does so every day.")]
    usual, fast = await voice.say(text), await voice.say(text, speed=2.0)
    seconds = len(usual.samples) / usual.rate_hz
    assert usual.rate_hz == 22_050
    assert 2 < seconds < 8
    assert len(fast.samples) < 0.7 * len(usual.samples)
    assert 0.05 < np.abs(usual.samples).max() <= 1
    assert usual.words is None


@pytest.mark.models
async def test_phonemes_of_parts_are_one_sentence(voice: Piper) -> None:
    """A pronunciation stands where its word stood; brackets of the text are no phonemes."""
    parts = [Part(text="I eat a "), Part(text="tomato", ipa="təˈmeɪtoʊ"), Part(text=", she said. Then she slept.")]
    first, second = voice._sentences(parts)
    assert "təˈmeɪtoʊ, ʃ" in "".join(first)
    assert "".join(second).startswith("ðˈɛn")
    assert "x" not in "".join(voice._sentences([Part(text="[[xxx]] done.")])[0])
    told = await voice.say([Part(text="cat", ipa="k≈t")])
    assert told.warnings == ["the voice does not know the sounds ≈"]


@pytest.mark.models
async def test_what_holds_no_word_is_silent(voice: Piper) -> None:
    """No error, no sound; a speaker it has not is refused."""
    assert len((await voice.say([Part(text=" ")])).samples) == 0
    with pytest.raises(InvalidInput, match="speaker"):
        await voice.say([Part(text="Hello.")], voice="nobody")


@pytest.mark.models
async def test_a_cancelled_call_ends_soon(voice: Piper) -> None:
    """After the sentence in hand, so that the next caller is served."""
    task = asyncio.create_task(voice.say([Part(text="This sentence is one of very many. " * 500)]))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        assert len((await voice.say([Part(text="Next.")])).samples)


async def test_without_package_or_files_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra, or the command that fetches the voice."""
    if piper_voice.installed():
        with pytest.raises(ModelUnavailable) as caught:
            piper_voice.load("piper-joe", tmp_path, threads=1, options={})
        assert "models pull piper-joe" in str(caught.value.hint)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable) as caught:
        piper_voice.load("piper-joe", tmp_path, threads=1, options={})
    assert caught.value.hint == "pip install neuroedge[voices]"


@pytest.mark.models
async def test_a_damaged_voice_does_not_load(voice: Piper, models_dir: Path, tmp_path: Path) -> None:
    """ModelUnavailable with the command that checks it."""
    (tmp_path / "voice.onnx").write_bytes(b"no network")
    (tmp_path / "voice.onnx.json").write_bytes((models_dir / "piper-joe" / "voice.onnx.json").read_bytes())
    with pytest.raises(ModelUnavailable, match="does not load"):
        piper_voice.load("piper-joe", tmp_path, threads=1, options={})
