"""Measures of pictures against values known by construction."""

import numpy as np
import pytest

from neuroedge.kit import image_facts
from neuroedge.kit.image_facts import Pixels


def plain(red: int, green: int, blue: int, size: tuple[int, int] = (20, 30)) -> Pixels:
    """One colour."""
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (*size, 3)).copy()


def scene(size: int = 96) -> Pixels:
    """Twelve grey rectangles of one arrangement, the same at every size."""
    rng = np.random.default_rng(11)
    picture = np.full((size, size, 3), 120, np.uint8)
    for light in rng.integers(20, 230, 12):
        top, left, high, wide = rng.random(4) * (0.7, 0.7, 0.5, 0.5) + (0, 0, 0.1, 0.1)
        rows, columns = (slice(int(a * size), int((a + b) * size)) for a, b in ((top, high), (left, wide)))
        picture[rows, columns] = light
    return picture


def test_light_and_contrast_of_known_pictures() -> None:
    """Black, white, and halves of both."""
    halves = plain(0, 0, 0)
    halves[:, 15:] = 255
    light = image_facts.grey(halves)
    assert image_facts.brightness(image_facts.grey(plain(255, 255, 255))) == pytest.approx(1)
    assert image_facts.brightness(light) == pytest.approx(0.5)
    assert image_facts.contrast(light) == pytest.approx(0.5)
    assert image_facts.brightness(image_facts.grey(plain(255, 0, 0))) == pytest.approx(0.299)


def test_blur_takes_sharpness_away() -> None:
    """A chequerboard is the sharpest there is: a Laplacian of ± 4 × 255; a plain picture has none, nor has a pixel."""
    board = plain(0, 0, 0, (32, 32))
    board[(np.add.outer(np.arange(32), np.arange(32)) % 2) == 1] = 255
    sharp = image_facts.sharpness(image_facts.grey(board))
    assert sharp == pytest.approx((4 * 255) ** 2)
    blurred = image_facts.resized(image_facts.resized(image_facts.grey(board), 16, 16), 32, 32)
    assert image_facts.sharpness(blurred) < sharp / 100
    assert image_facts.sharpness(image_facts.grey(plain(9, 9, 9, (1, 1)))) == 0


def test_grey_has_no_colour_and_red_and_blue_have_much() -> None:
    """Hasler & Süsstrunk's measure."""
    both = plain(255, 0, 0)
    both[:, 15:] = (0, 0, 255)
    assert image_facts.colourfulness(scene()) == pytest.approx(0)
    assert image_facts.colourfulness(both) > 109


def test_main_colours_come_with_their_shares() -> None:
    """Three quarters green, a quarter white; one colour alone is one."""
    picture = plain(0, 128, 0, (40, 40))
    picture[:10] = 255
    found = image_facts.dominant_colours(picture)
    assert [(colour.hex, round(colour.share, 2)) for colour in found] == [("#008000", 0.75), ("#ffffff", 0.25)]
    assert [c.share for c in image_facts.dominant_colours(plain(1, 2, 3, (1, 1)))] == [1.0]
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert sum(c.share for c in image_facts.dominant_colours(noise)) == pytest.approx(1, abs=0.01)


def test_a_mean_of_areas_keeps_the_mean() -> None:
    """Where it shrinks by whole numbers; where it grows, pixels are repeated."""
    values = np.random.default_rng(1).random((60, 90))
    assert image_facts.resized(values, 6, 9).mean() == pytest.approx(values.mean())
    assert image_facts.resized(np.array([[1.0, 2.0]]), 2, 4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_near_pictures_have_near_hashes_and_others_have_not() -> None:
    """Scaled, lighter and noisy ones differ in few bits; another picture in about half."""
    own = image_facts.perceptual_hash(image_facts.grey(scene()))
    rng = np.random.default_rng(2)
    noisy = np.clip(scene().astype(int) + rng.normal(0, 8, (96, 96, 1)), 0, 255).astype(np.uint8)
    lighter = np.clip(scene().astype(int) + 20, 0, 255).astype(np.uint8)
    for near in (noisy, lighter, scene(192)):
        assert image_facts.hash_distance(own, image_facts.perceptual_hash(image_facts.grey(near))) <= 10
    other = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert image_facts.hash_distance(own, image_facts.perceptual_hash(image_facts.grey(other))) >= 18
    assert image_facts.hash_distance(0b1011, 0b0001) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3, 2)])
def test_tiny_and_thin_pictures_are_measured(size: tuple[int, int]) -> None:
    """No measure fails or gives NaN."""
    picture = plain(10, 200, 30, size)
    light = image_facts.grey(picture)
    numbers = [image_facts.brightness(light), image_facts.contrast(light), image_facts.sharpness(light)]
    assert np.isfinite([*numbers, image_facts.colourfulness(picture)]).all()
    assert 0 <= image_facts.perceptual_hash(light) < 2**64
