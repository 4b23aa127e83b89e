"""Pictures, documents and vectors over HTTP: the engines vision, document and index, and the old paths to them."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Server
from tests.engines.vision import pages
from tests.infra.documents import samples

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """An organisation."""
    with server.new_account() as client:
        yield client


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def _picture(size: tuple[int, int] = (64, 40), kind: str = "PNG", **options: Any) -> bytes:
    rows = np.linspace(0, 255, size[1])[:, None, None] * np.ones((1, size[0], 3))
    return pages.encoded(Image.fromarray(rows.astype(np.uint8)), kind, **options)


def test_a_scan_becomes_text_with_places(caller: httpx.Client) -> None:
    """A PDF without text is drawn and read by the ocr engine; its paragraphs name their page and place."""
    buffer = io.BytesIO()
    pages.page(size=(900, 1200)).save(buffer, "PDF", resolution=100)
    body = {"file": _base64(buffer.getvalue()), "filename": "scan.pdf"}
    answer = caller.post("/v1/engines/document/run", json=body)
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert (result["ocr_pages"], result["unread_pages"], result["reliable"]) == ([1], [], True)
    text = " ".join(block["text"] for block in result["blocks"])
    assert "harbour master counted ropes" in text
    assert all(block["source"] == "ocr" and block["page"] == 1 for block in result["blocks"])
    left, top, right, bottom = result["blocks"][0]["bbox"]
    assert 0 <= left < 0.2
    assert 0 <= top < bottom < 0.5
    assert left < right <= 1


@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (samples.encrypted_pdf(), "a.pdf", 422),
        (samples.report()[:300], "a.pdf", 422),
        (samples.zip_bomb(), "a.docx", 413),
        (b"", "a.pdf", 422),
        (b"\x00\x01\x02" * 50, "a.bin", 422),
    ],
    ids=["encrypted", "cut off", "bomb", "empty", "binary"],
)
def test_a_bad_document_is_refused(caller: httpx.Client, data: bytes, name: str, status: int) -> None:
    """With the status of its fault, never a 500."""
    answer = caller.post("/v1/engines/document/run", json={"file": _base64(data), "filename": name})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_the_first_neuroedges_path_takes_a_file_or_base64(caller: httpx.Client) -> None:
    """Both forms give the same facts, and the safety of the real model."""
    data = pages.encoded(pages.page())
    by_file = caller.post("/vision/process", files={"file": ("a.png", data)}, data={"tasks": "facts, safety"}).json()
    by_json = caller.post(
        "/vision/process", json={"image": _base64(data)["base64"], "tasks": ["facts", "safety"]}
    ).json()
    assert by_file == by_json
    assert (by_file["facts"]["width_px"], by_file["facts"]["height_px"]) == (900, 320)
    assert by_file["safety"]["verdict"] == "safe"
    assert by_file["models"] == ["open-nsfw"]


def test_what_cannot_be_done_is_named(caller: httpx.Client) -> None:
    """Without CLIP no labels, without a model that sees no description: skipped with the reason, not guessed."""
    body = {"image": _base64(_picture()), "tasks": ["labels", "description", "text"], "labels": ["a dog", "a cat"]}
    answer = caller.post("/v1/engines/vision/run", json=body).json()["result"]
    assert {skipped["task"] for skipped in answer["skipped"]} == {"labels", "description"}
    assert all(len(skipped["reason"]) > 20 for skipped in answer["skipped"])
    assert (answer["labels"], answer["description"], answer["text"], answer["reliable"]) == (None, None, "", False)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_picture()[:90], 422),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"", 422),
    ],
    ids=["cut off", "SVG", "empty"],
)
def test_a_bad_picture_is_refused(caller: httpx.Client, data: bytes, status: int) -> None:
    """By both ways, with the same status."""
    body = {"image": _base64(data), "tasks": ["facts"]}
    assert caller.post("/v1/engines/vision/run", json=body).status_code == status
    body = {"image": _base64(data)["base64"]}
    assert caller.post("/vision/process", json=body).status_code == (status if data else 422)


def test_embed_answers_by_both_old_paths(caller: httpx.Client) -> None:
    """One text or several; neither, both and too long ones are 422."""
    one = caller.post("/embed", json={"text": "A quiet harbour."}).json()
    two = caller.post("/model/embed", json={"texts": ["A quiet harbour.", "Seven ropes."]}).json()
    assert one["dimension"] == len(one["embedding"]) == 384
    assert np.dot(one["embedding"], two["embeddings"][0]) > 0.999
    for body in ({}, {"text": "a", "texts": ["b"]}, {"text": ""}, {"text": "x" * 20_001}, {"text": 3}):
        assert caller.post("/embed", json=body).status_code == 422


def test_an_index_over_ones_memories_tells_its_recall(caller: httpx.Client) -> None:
    """Rows of this organisation only; with few rows the recall is marked as saying little."""
    empty = caller.post("/v1/engines/index/run", json={}).json()["result"]
    assert (empty["n"], empty["recall"], empty["reliable"]) == (0, None, False)
    for text in ("ropes and lanterns", "a bell in the fog", "ships before dawn"):
        assert caller.post("/v1/memories", json={"content": text}).status_code == 201
    found = caller.post("/v1/engines/index/run", json={"k": 2}).json()["result"]
    assert (found["subject"], found["n"], found["recall"], found["reliable"]) == ("memories", 3, 1.0, False)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"vectors": {"rows": [[1, 2], [1]]}}, "vectors"),
        ({"vectors": {"rows": [[0, 0]]}}, "vectors"),
        ({"vectors": {"rows": [[1, 2]]}, "queries": {"rows": [[1, 2, 3]]}}, "queries"),
        ({"vectors": {"base64": "AAAA", "dim": 4}}, "vectors"),
        ({"vectors": {"rows": [[1] * 1025]}}, "vectors"),
        ({"vectors": {"rows": [[1]] * 20_001}}, "vectors"),
        ({"queries": {"rows": [[1]]}}, ""),
    ],
    ids=["uneven", "zero", "other length", "bytes", "too long", "too many", "queries alone"],
)
def test_bad_vectors_are_a_422_with_the_field(caller: httpx.Client, body: dict[str, Any], field: str) -> None:
    """Whatever is wrong with them."""
    answer = caller.post("/v1/engines/index/run", json=body)
    assert answer.status_code == 422, answer.text
    assert field in str(answer.json()["errors"][0]["loc"])
