"""The descriptor of colour and edges: what looks alike is near."""

import numpy as np
import pytest

from neuroedge.kit.image_descriptor import DIM, descriptor
from tests.kit.test_image_facts import plain, scene


def test_it_is_a_unit_vector_of_one_length() -> None:
    """Of any picture, also of one pixel."""
    for picture in (plain(0, 0, 0, (1, 1)), plain(255, 255, 255, (500, 3)), scene()):
        vector = descriptor(picture)
        assert vector.shape == (DIM,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert np.isfinite(vector).all()


def test_a_picture_scaled_is_nearer_than_another_colour_or_shape() -> None:
    """Colour and edges each count."""
    own = descriptor(scene(128))
    assert own @ descriptor(scene(256)) > 0.97
    tinted = scene(128).copy()
    tinted[:, :, 2] = 0
    turned = np.rot90(scene(128))
    assert own @ descriptor(tinted) < 0.8
    assert own @ descriptor(turned) < 0.97


def test_pictures_that_share_no_colour_have_half_at_most() -> None:
    """Plain red and plain blue: the same lack of edges, no colour in common."""
    assert descriptor(plain(255, 0, 0)) @ descriptor(plain(0, 0, 255)) == pytest.approx(0.5, abs=1e-5)
