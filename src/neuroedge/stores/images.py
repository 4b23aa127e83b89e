"""Images of an organisation with the vectors they are compared by; who sees an image finds it.

Vectors are compared one by one, exactly: of all the images the caller sees, those of one vector space. The database
needs vectors in plain for that; everything that is said of an image, its perceptual hash too, is sealed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pgvector import HalfVector

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Visibility
from neuroedge.contract.vault import Cipher
from neuroedge.stores.memories import division_of
from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, user_id, visibility, media_type, width_px, height_px, bytes, space, sealed, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is known of an image besides its size; sealed."""

    filename: str
    title: str | None
    perceptual_hash: str
    """64 bits in hexadecimal."""
    method: str
    """What made the vector: clip, siglip, colour-gradient-1."""
    model: str | None
    """Catalogue id of the model that made it."""
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image without its bytes, which are an object, and without its vector."""

    id: UUID
    user_id: UUID
    visibility: Visibility
    media_type: str
    width_px: int
    height_px: int
    bytes: int
    space: str
    """Which vectors its own can be compared with."""
    said: Said
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image to store."""

    id: UUID
    visibility: Visibility
    media_type: str
    width_px: int
    height_px: int
    bytes: int
    sha256: str
    space: str
    vector: Floats
    """[dim], L2-normalised."""
    said: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """An image found by its vector."""

    image: StoredImage
    cosine: float


def context(image_id: UUID) -> str:
    """Where a row's sealed value belongs."""
    return f"images/{image_id}"


def content_mac(cipher: Cipher, sha256: str) -> int:
    """Equal for equal files of one organisation."""
    return cipher.blind(f"image:{sha256}")


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, new: NewImage) -> StoredImage | None:
    """Store an image's row; None when the user has the same file already.

    Raises InvalidInput for a division the user is in none of.
    """
    division_id = await division_of(conn, org_id, user_id) if new.visibility == "division" else None
    cursor = await conn.execute(
        "INSERT INTO images (org_id, id, user_id, visibility, division_id, media_type, width_px, height_px, bytes,"
        " content_mac, space, embedding, sealed) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        f" ON CONFLICT (org_id, user_id, content_mac) DO NOTHING RETURNING {_COLUMNS}",
        [
            *(org_id, new.id, user_id, new.visibility, division_id),
            *(new.media_type, new.width_px, new.height_px, new.bytes),
            *(content_mac(conn.vault, new.sha256), new.space, HalfVector(new.vector)),
            conn.vault.seal(asdict(new.said), context(new.id)),
        ],
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def find(conn: Connection, image_id: UUID) -> StoredImage | None:
    """One the caller may see."""
    row = await (await conn.execute(f"SELECT {_COLUMNS} FROM images WHERE id = %s", [image_id])).fetchone()
    return _opened(conn, row) if row else None


async def find_by_content(conn: Connection, *, user_id: UUID, sha256: str) -> StoredImage | None:
    """The user's image of this very file."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM images WHERE user_id = %s AND content_mac = %s",
        [user_id, content_mac(conn.vault, sha256)],
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def page(conn: Connection, *, limit: int, before: UUID | None) -> list[StoredImage]:
    """What the caller may see, newest first (ids are in time order), beyond the id `before`."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM images WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def count_of(conn: Connection, user_id: UUID) -> int:
    """How many images are a user's."""
    row = await (await conn.execute("SELECT count(*) AS n FROM images WHERE user_id = %s", [user_id])).fetchone()
    return int(row["n"]) if row else 0


async def nearest(
    conn: Connection, *, vector: Floats, space: str, limit: int, min_cosine: float, without: UUID | None
) -> list[Near]:
    """What the caller may see of this vector space, by cosine similarity; `without`: all but that one."""
    # A row's distance is computed after the filter on its space: that of vectors of two lengths would be an error.
    cursor = await conn.execute(
        "WITH near AS MATERIALIZED (SELECT id, 1 - (embedding <=> %(vector)s) AS cosine FROM images"
        " WHERE space = %(space)s AND (%(without)s::uuid IS NULL OR id <> %(without)s)"
        " ORDER BY cosine DESC, id LIMIT %(limit)s)"
        f" SELECT {', '.join(f'i.{name}' for name in _COLUMNS.split(', '))}, near.cosine"
        " FROM near JOIN images i ON i.id = near.id WHERE near.cosine >= %(least)s ORDER BY near.cosine DESC, i.id",
        {"space": space, "without": without, "vector": HalfVector(vector), "limit": limit, "least": min_cosine},
    )
    return [Near(image=_opened(conn, row), cosine=float(row["cosine"])) for row in await cursor.fetchall()]


async def count_spaces(conn: Connection, *, space: str) -> tuple[int, int]:
    """How many images the caller sees of this vector space, and of others."""
    cursor = await conn.execute(
        "SELECT count(*) FILTER (WHERE space = %(space)s) AS same, count(*) FILTER (WHERE space <> %(space)s) AS other"
        " FROM images",
        {"space": space},
    )
    row = await cursor.fetchone() or {"same": 0, "other": 0}
    return int(row["same"]), int(row["other"])


async def of_other_spaces(conn: Connection, *, space: str, limit: int, after: UUID | None) -> list[StoredImage]:
    """What the caller sees with vectors of another space, in the order of ids, beyond the id `after`."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM images WHERE space <> %(space)s AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"space": space, "after": after, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def set_vector(conn: Connection, image_id: UUID, *, space: str, vector: Floats, said: Said) -> bool:
    """Give an image the vector of another space; whether it is still there."""
    cursor = await conn.execute(
        "UPDATE images SET space = %s, embedding = %s, sealed = %s WHERE id = %s",
        [space, HalfVector(vector), conn.vault.seal(asdict(said), context(image_id)), image_id],
    )
    return cursor.rowcount == 1


async def delete(conn: Connection, image_id: UUID) -> bool:
    """Delete the row; whether it was there. Its object is the caller's to delete."""
    return (await conn.execute("DELETE FROM images WHERE id = %s", [image_id])).rowcount == 1


async def exist(conn: Connection, image_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are images the transaction sees."""
    cursor = await conn.execute("SELECT id FROM images WHERE id = ANY(%s)", [list(image_ids)])
    return {row["id"] for row in await cursor.fetchall()}


def _opened(conn: Connection, row: dict[str, Any]) -> StoredImage:
    return StoredImage(
        id=row["id"],
        user_id=row["user_id"],
        visibility=row["visibility"],
        media_type=row["media_type"],
        width_px=row["width_px"],
        height_px=row["height_px"],
        bytes=row["bytes"],
        space=row["space"],
        said=Said(**conn.vault.open(row["sealed"], context(row["id"]))),
        created_at=row["created_at"],
    )
