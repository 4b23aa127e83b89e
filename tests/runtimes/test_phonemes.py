"""hama's phones of speech and of words."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.kit.goodness import best_path
from neuroedge.kit.phonology import PHONES, phones_of, pooled
from neuroedge.runtimes import phonemes
from tests import espeak

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def model() -> Iterator[phonemes.HamaPhonemes]:
    """Both networks and the dictionary."""
    loaded = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    yield loaded
    loaded.close()


async def test_each_frame_is_a_distribution(model: phonemes.HamaPhonemes) -> None:
    """50 frames a second, probabilities that sum to 1, every symbol named."""
    heard = await model.posteriors(espeak.say("the leaf is green"))
    assert heard.log_p.shape[1] == len(heard.symbols)
    assert np.exp(heard.log_p).sum(axis=1) == pytest.approx(1, abs=1e-3)
    assert heard.frame_s == pytest.approx(0.02)
    assert heard.symbols[heard.blank] == "<blank>"


async def test_it_hears_words(model: phonemes.HamaPhonemes) -> None:
    """The vowel and the consonants around it of a word said alone."""
    heard = await model.posteriors(np.pad(espeak.say("leaf"), 8_000))
    assert [PHONES[k] for k in best_path(pooled(heard.log_p, heard.symbols, heard.blank))][:2] == ["l", "i"]


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), np.zeros(100, np.float32), np.full(8_000, 5.0, np.float32)],
    ids=["nothing", "a blink", "overdriven"],
)
async def test_odd_sounds_give_frames_all_the_same(model: phonemes.HamaPhonemes, samples: np.ndarray) -> None:
    """No error and no NaN."""
    assert np.isfinite((await model.posteriors(samples)).log_p).all()


async def test_words_are_pronounced(model: phonemes.HamaPhonemes) -> None:
    """Common ones by the dictionary with their variants, unknown ones by the model, what has no letters not at all."""
    yes, the, made_up, number = await model.pronounce(["Yes,", "the", "blorfing", "42"])
    assert yes == [("j", "ɛ", "s")]
    assert ("ð", "i") in the
    assert phones_of("".join(made_up[0]))[:2] == ["b", "l"]
    assert number == []


async def test_a_missing_library_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native engine is not there for every machine."""

    def broken() -> None:
        raise RuntimeError("libhama not available")

    monkeypatch.setattr("hama.ASRModel", broken)
    with pytest.raises(ModelUnavailable, match="libhama"):
        phonemes.load("hama-phonemes", Path(), threads=1, options={})
