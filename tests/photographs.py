"""Two real photographs that scikit-learn brings along, whole and in variants."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.engines.vision.pages import encoded


def photograph(name: str) -> Any:
    """A Pillow image of 640 × 427: china (a temple) or flower (a dahlia)."""
    from PIL import Image

    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.submodule_search_locations
    with Image.open(Path(spec.submodule_search_locations[0]) / "datasets" / "images" / f"{name}.jpg") as image:
        return image.convert("RGB")


def jpeg(image: Any, *, quality: int = 90) -> bytes:
    """A JPEG file of it."""
    return encoded(image, "JPEG", quality=quality)


def variants(name: str) -> dict[str, bytes]:
    """The photograph as it is met again: as it was, smaller, compressed harder, cut at the edges, another half."""
    image = photograph(name)
    width, height = image.size
    return {
        "whole": jpeg(image),
        "small": jpeg(image.resize((width // 2, height // 2))),
        "hard": jpeg(image, quality=20),
        "cut": jpeg(image.crop((20, 15, width - 20, height - 15))),
        "half": jpeg(image.crop((0, 0, width // 2, height))),
    }
