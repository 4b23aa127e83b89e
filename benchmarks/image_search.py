"""Images found again by an altered copy, with the method that needs no model, and how long a search takes.

    python -m benchmarks.image_search --data DIR

DIR holds the Debian packages mate-backgrounds, gnome-backgrounds and plasma-workspace-wallpapers, unpacked (any folder
of pictures will do). Of each motif one picture is taken, the largest file; dark and upright versions are left out. Each
is altered in eight ways, and every altered copy looks for its original among all originals by `colour-gradient-1`
(kit/image_descriptor.py) as the images' search uses it, beside two peers on the same pictures: the perceptual hash
alone, and a histogram of colour alone (8 × 8 × 8 RGB, intersection; Swain & Ballard 1991). Recall@1: share of copies
whose original comes first. Interval: bootstrap over originals (1000 draws, seed 0). Nothing was tuned on them.

Search time: exact comparison with 20,000 kept images of one user in the embedded PostgreSQL, through stores/images.py,
for vectors of 272 (colour-gradient-1) and of 768 numbers (CLIP ViT-L, SigLIP base). Limits: backgrounds of desktops, no
snapshots; "altered" is synthetic; what two pictures show is not judged at all, since this method cannot tell.
"""

import argparse
import asyncio
import io
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from PIL import Image, ImageEnhance, ImageOps
from pydantic import SecretStr
from tests.stores.conftest import new_principal

from benchmarks import resampling
from benchmarks.report import Figure, figure, save
from neuroedge.bootstrap import app_password, open_servers
from neuroedge.infra.vault import Vault, new_master_key
from neuroedge.kit import image_descriptor, image_facts
from neuroedge.settings import Settings
from neuroedge.stores import images, schema
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database

KEPT = 20_000
SEARCHES = 20
_SIDE = 800
_LEFT_OUT = re.compile(r"screenshot|images_dark|-d\.|portrait|vertical|\d{3,4}x(1440|1920|2880)\.", re.IGNORECASE)
_LANDSCAPE = re.compile(r"5120x2880\.", re.IGNORECASE)
Pixels = NDArray[np.uint8]


def _jpeg(image: Any, quality: int) -> Any:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _cut(image: Any, share: float) -> Any:
    """Without this share of width and height, half of it at each edge."""
    width, height = image.size
    x, y = int(width * share / 2), int(height * share / 2)
    return image.crop((x, y, width - x, height - y))


ALTERED: dict[str, Callable[[Any], Any]] = {
    "a quarter of the size": lambda i: i.resize((i.width // 4, i.height // 4)),
    "JPEG at quality 20": lambda i: _jpeg(i, 20),
    "cut by 10 %": lambda i: _cut(i, 0.10),
    "cut by 40 %": lambda i: _cut(i, 0.40),
    "a third brighter": lambda i: ImageEnhance.Brightness(i).enhance(1.33),
    "grey": lambda i: ImageOps.grayscale(i).convert("RGB"),
    "mirrored": ImageOps.mirror,
    "turned by 10°": lambda i: i.rotate(10, expand=False, fillcolor=(255, 255, 255)),
}


def originals(folder: Path) -> list[Any]:
    """One picture of each motif, at most 800 pixels a side."""
    motifs: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".jpg", ".png", ".webp") or path.stat().st_size < 20_000:
            continue
        if _LEFT_OUT.search(path.name if _LANDSCAPE.search(path.name) is None else "") or "images_dark" in str(path):
            continue
        named = path.with_name(re.split(r"[_-]\d|-l$", path.stem)[0])
        motif = path.parent if path.parent.name == "images" else named
        motifs[motif].append(path)
    found, seen = [], list[NDArray[np.float64]]()
    for paths in motifs.values():
        with Image.open(max(paths, key=lambda p: p.stat().st_size)) as image:
            shown = image.convert("RGBA")
            white = Image.new("RGBA", shown.size, "white")
            whole = Image.alpha_composite(white, shown).convert("RGB")
        whole.thumbnail((_SIDE, _SIDE))
        tiny = np.asarray(whole.resize((32, 32)), np.float64)
        if all(np.abs(tiny - other).mean() > 1 for other in seen):  # the same picture under two names is one
            found.append(whole)
            seen.append(tiny)
    return found


def _colours(pixels: Pixels) -> NDArray[np.float64]:
    counts, _ = np.histogramdd(pixels.reshape(-1, 3), bins=(8, 8, 8), range=((0, 256),) * 3)
    return np.asarray(counts.ravel() / counts.sum())


def _by_gradient(queries: list[Pixels], kept: list[Pixels]) -> NDArray[np.float64]:
    ours = [np.stack([image_descriptor.descriptor(p) for p in group]) for group in (queries, kept)]
    return np.asarray(ours[0] @ ours[1].T, np.float64)


def _by_colour(queries: list[Pixels], kept: list[Pixels]) -> NDArray[np.float64]:
    theirs = np.stack([_colours(p) for p in kept])
    return np.stack([np.minimum(_colours(p), theirs).sum(axis=1) for p in queries])


def _by_hash(queries: list[Pixels], kept: list[Pixels]) -> NDArray[np.float64]:
    hashes = [[image_facts.perceptual_hash(image_facts.grey(p)) for p in group] for group in (queries, kept)]
    return np.array([[-image_facts.hash_distance(a, b) for b in hashes[1]] for a in hashes[0]], np.float64)


METHODS = {"colour-gradient-1": _by_gradient, "perceptual hash": _by_hash, "colour histogram": _by_colour}


def quality(pictures: list[Any]) -> list[Figure]:
    """Recall@1 by method, for each way to alter and for all."""
    kept = [np.asarray(picture) for picture in pictures]
    hits: dict[str, dict[str, NDArray[np.bool_]]] = defaultdict(dict)
    for way, alter in ALTERED.items():
        queries = [np.asarray(alter(picture)) for picture in pictures]
        for method, compare in METHODS.items():
            scores = compare(queries, kept)
            own = np.diag(scores)
            # A tie with another original is no hit.
            hits[method][way] = (scores >= own[:, None]).sum(axis=1) == 1
        print(f"{way}: " + ", ".join(f"{method} {hits[method][way].mean():.3f}" for method in METHODS))
    found = []
    for method in METHODS:
        both = np.stack(list(hits[method].values()), axis=1)
        found.append(figure(f"Recall@1, {method}, all alterations", "share", [both.mean()], note=interval(both)))
        for way, right in hits[method].items():
            found.append(figure(f"Recall@1, {method}, {way}", "share", [right.mean()], note=interval(right[:, None])))
    return found


def interval(right: NDArray[np.bool_]) -> str:
    """95 % interval of the mean of rows, by bootstrap over them."""
    by_original = right.mean(axis=1)
    low, high = resampling.interval(len(by_original), lambda rows: by_original[rows].mean(), samples=1000)
    return f"95 % {low:.3f} to {high:.3f}, {right.size} copies of {len(right)} pictures"


def strangers(pictures: list[Any]) -> Figure:
    """How near two different pictures usually are: what a threshold must be above."""
    kept = [np.asarray(picture) for picture in pictures]
    cosines = _by_gradient(kept, kept)[np.triu_indices(len(kept), 1)]
    low, high = np.percentile(cosines, [5, 95])
    note = f"5 to 95 % of {len(cosines)} pairs: {low:.3f} to {high:.3f}"
    return figure(
        "Cosine of two different pictures, colour-gradient-1", "cosine", [float(np.median(cosines))], note=note
    )


async def speed() -> list[Figure]:
    """Milliseconds of a search among KEPT images."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), jwt_secret=SecretStr("x" * 32))
        async with open_servers(settings) as servers:
            await asyncio.to_thread(
                schema.upgrade, servers.postgres_owner, app_password=app_password(settings, servers.secrets)
            )
            db = Database(servers.postgres_app, max_size=2, keys=Vault(new_master_key()))
            await db.open()
            for dim in (image_descriptor.DIM, 768):
                times = await _searched(db, dim)
                found.append(figure(f"Search among {KEPT} images, {dim} numbers each", "ms", times))
            await db.close()
    return found


async def _searched(db: Database, dim: int) -> list[float]:
    caller, draw = await new_principal(db), np.random.default_rng(dim)
    vectors = draw.normal(size=(KEPT + SEARCHES, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    said = asdict(images.Said(filename="a.jpg", title=None, perceptual_hash="0" * 16, method="m", model=None))
    async with db.tenant(caller) as conn:
        rows = [
            (caller.org_id, i, caller.user_id, n, HalfVector(vector), conn.vault.seal(said, images.context(i)))
            for n, (i, vector) in enumerate((new_id(), vector) for vector in vectors[:KEPT])
        ]
        async with conn.cursor() as cursor:
            # images.insert asks for each row's answer, which takes minutes.
            await cursor.executemany(
                "INSERT INTO images (org_id, id, user_id, visibility, media_type, width_px, height_px, bytes,"
                " content_mac, space, embedding, sealed) VALUES (%s, %s, %s, 'private', 'image/jpeg', 1, 1, 1, %s, 'm',"
                " %s, %s)",
                rows,
            )
    times = []
    for vector in vectors[KEPT:]:
        started = time.perf_counter()
        async with db.tenant(caller) as conn:
            hits = await images.nearest(conn, vector=vector, space="m", limit=10, min_cosine=-1, without=None)
        times.append(1000 * (time.perf_counter() - started))
        assert len(hits) == 10
    return times


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    options = parser.parse_args()
    pictures = originals(options.data)
    print(f"{len(pictures)} pictures")
    found = [*quality(pictures), strangers(pictures), *asyncio.run(speed())]
    save(
        "image_search",
        found,
        title="Images found again by an altered copy",
        command="python -m benchmarks.image_search --data DIR",
    )


if __name__ == "__main__":
    main()
