"""Images over HTTP: kept, found by likeness, read back, deleted; what is none is refused."""

import base64
import io
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import Server
from tests.photographs import jpeg, photograph, variants

FILES = variants("china")


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """An organisation with two photographs."""
    with server.new_account() as client:
        for data, title in ((FILES["whole"], "temple"), (jpeg(photograph("flower")), "dahlia")):
            fields = {"title": title, "tags": "holiday, 2024", "metadata": json.dumps({"album": 3})}
            answer = client.post("/v1/images", files={"file": (f"{title}.jpg", data)}, data=fields)
            assert answer.status_code == 201, answer.text
        yield client


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def test_an_image_is_found_by_one_that_looks_like_it(caller: httpx.Client) -> None:
    """A smaller copy finds the photograph first; the answer says that nothing is known of what it shows."""
    answer = caller.post("/v1/images/search", json={"image": _base64(FILES["small"]), "limit": 2}).json()
    assert [hit["image"]["title"] for hit in answer["hits"]] == ["temple", "dahlia"]
    best = answer["hits"][0]
    assert best["cosine"] > 0.95
    assert best["hash_distance_bits"] <= 8
    assert (best["image"]["tags"], best["image"]["metadata"]) == (["holiday", "2024"], {"album": 3})
    assert (answer["method"], answer["model"], answer["compared"]) == ("colour-gradient-1", None, 2)
    assert "colours and edges" in answer["warnings"][0]


def test_an_image_is_read_back_as_it_was_sent(caller: httpx.Client) -> None:
    """Bytes, type by content and not by name, never shown as a page of this server."""
    image = next(one for one in caller.get("/v1/images").json()["images"] if one["title"] == "temple")
    assert (image["media_type"], image["width_px"], image["height_px"]) == ("image/jpeg", 640, 427)
    assert image["visibility"] == "private"
    answer = caller.get(f"/v1/images/{image['id']}/content")
    assert answer.content == FILES["whole"]
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"] == "attachment"
    assert caller.get(f"/v1/images/{image['id']}").json() == image


def test_the_same_file_again_is_the_same_image(caller: httpx.Client) -> None:
    """200 instead of 201, and kept once."""
    before = len(caller.get("/v1/images").json()["images"])
    again = caller.post("/v1/images", files={"file": ("other.png", FILES["whole"])})
    assert (again.status_code, again.json()["duplicate"], again.json()["title"]) == (200, True, "temple")
    assert len(caller.get("/v1/images").json()["images"]) == before


def test_words_find_nothing_without_a_model_for_them(caller: httpx.Client) -> None:
    """503 that names what is missing."""
    answer = caller.post("/v1/images/search", json={"text": "a temple"})
    assert answer.status_code == 503
    assert answer.json()["code"] == "model_unavailable"
    assert "image_embedding" in answer.json()["detail"]
    assert caller.post("/v1/images/reembed", json={}).json() == {"done": 0, "failed": [], "left": 0, "next": None}


def test_a_deleted_image_is_gone(caller: httpx.Client) -> None:
    """From lists, searches and storage."""
    made = caller.post("/v1/images", files={"file": ("half.jpg", FILES["half"])}).json()
    assert caller.delete(f"/v1/images/{made['id']}").status_code == 204
    assert caller.get(f"/v1/images/{made['id']}/content").status_code == 404
    hits = caller.post("/v1/images/search", json={"image": _base64(FILES["half"])}).json()["hits"]
    assert made["id"] not in [hit["image"]["id"] for hit in hits]


def _bomb() -> bytes:
    """A PNG file of some hundred bytes that claims 60000 × 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "empty_media"),
        (b"words, no picture", 415, "unsupported_media"),
        (FILES["whole"][:2000], 422, "unreadable_media"),
        (_bomb(), 413, "too_large"),
        (b"\xff\xd8\xff" + b"\0" * 33_000_000, 413, "too_large"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_media"),
    ],
    ids=["empty", "text", "cut off", "bomb", "33 MB", "svg"],
)
def test_what_is_no_image_is_refused(caller: httpx.Client, data: bytes, status: int, code: str) -> None:
    """With the status of its fault, and nothing is kept."""
    before = caller.get("/v1/images").json()
    answer = caller.post("/v1/images", files={"file": ("a.png", data)})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert caller.get("/v1/images").json() == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "a", "image_id": "019a0000-0000-7000-8000-000000000000"},
        {"text": ""},
        {"text": "x" * 2001},
        {"image": {}},
        {"image": {"base64": "###"}},
        {"image_id": "one"},
        {"text": "a", "limit": 0},
        {"text": "a", "limit": 1001},
        {"text": "a", "min_cosine": 2},
        {"text": "a", "min_cosine": "NaN"},
        {"text": "a", "colour": "red"},
    ],
)
def test_a_wrong_search_is_refused(caller: httpx.Client, body: dict[str, Any]) -> None:
    """422, never a guess."""
    answer = caller.post("/v1/images/search", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_input"


@pytest.mark.parametrize(
    "fields", [{"visibility": "everybody"}, {"metadata": "[1]"}, {"metadata": "{"}, {"title": "x" * 201}]
)
def test_wrong_labels_are_refused(caller: httpx.Client, fields: dict[str, str]) -> None:
    """422 before the image is kept."""
    answer = caller.post("/v1/images", files={"file": ("a.jpg", FILES["cut"])}, data=fields)
    assert answer.status_code == 422, answer.text


def test_a_form_without_a_file_is_refused(caller: httpx.Client) -> None:
    """422 that names the field."""
    answer = caller.post("/v1/images", files={"picture": ("a.jpg", FILES["cut"])})
    assert answer.status_code == 422
    assert "file" in answer.json()["detail"]


def test_an_animation_and_a_picture_of_one_pixel_are_images(caller: httpx.Client) -> None:
    """Odd, not wrong."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    moving = caller.post("/v1/images", files={"file": ("a.gif", buffer.getvalue())})
    assert (moving.status_code, moving.json()["media_type"]) == (201, "image/gif")
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "BMP")
    dot = caller.post("/v1/images", files={"file": ("a.bmp", buffer.getvalue())})
    assert (dot.status_code, dot.json()["width_px"]) == (201, 1)
    for made in (moving, dot):
        caller.delete(f"/v1/images/{made.json()['id']}")


def test_an_export_holds_what_was_said_of_images(server: Server) -> None:
    """Title and size, not the vector."""
    import time
    import zipfile

    with server.new_account() as client:
        client.post("/v1/images", files={"file": ("a.jpg", FILES["small"])}, data={"title": "temple at noon"})
        export = client.post("/v1/privacy/export", json={}).json()
        until = time.monotonic() + 90
        while client.get(f"/v1/privacy/exports/{export['id']}").json()["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.1)
        data = client.get(f"/v1/privacy/exports/{export['id']}/file").content
        row = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("images.jsonl"))
        assert (row["title"], row["width_px"]) == ("temple at noon", 320)
        assert "embedding" not in row
