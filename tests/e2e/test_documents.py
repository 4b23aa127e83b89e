"""Documents over HTTP: sent, cut, embedded by the real encoder, found, replaced, deleted; bad ones refused."""

import json
import time
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from tests.conftest import SampleCall, Server
from tests.engines.vision import pages
from tests.infra.documents import samples

pytestmark = pytest.mark.models
PROCESSED_S = 120


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """The organisation that owns the documents."""
    with server.new_account() as client:
        yield client


def _send(client: httpx.Client, name: str, data: bytes | str, **fields: str) -> httpx.Response:
    content = data.encode() if isinstance(data, str) else data
    return client.post("/v1/documents", files={"file": (name, content)}, data=fields)


def _finished(client: httpx.Client, document_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PROCESSED_S
    while time.monotonic() < deadline:
        document: dict[str, Any] = client.get(f"/v1/documents/{document_id}").json()
        if document["status"] in ("done", "failed"):
            return document
        time.sleep(0.1)
    raise AssertionError(f"document {document_id} did not finish within {PROCESSED_S} s")


def _done(client: httpx.Client, name: str, data: bytes | str, **fields: str) -> dict[str, Any]:
    answer = _send(client, name, data, **fields)
    assert answer.status_code == 202, answer.text
    document = _finished(client, answer.json()["document"]["id"])
    assert document["status"] == "done", document
    return document


@pytest.fixture(scope="module")
def report(caller: httpx.Client) -> dict[str, Any]:
    """A PDF, processed."""
    return _done(caller, "report.pdf", samples.report(), title="Report", tags="plant, hall", metadata='{"hall": 3}')


def test_a_document_is_found_by_what_it_says(caller: httpx.Client, report: dict[str, Any]) -> None:
    """The passage with its page and headings; labels are given back."""
    assert (report["pages"], report["tags"], report["metadata"]) == (2, ["plant", "hall"], {"hall": 3})
    answer = caller.post("/v1/engines/search/run", json={"query": "Which bearings were greased?", "top_k": 3}).json()
    hit = answer["result"]["hits"][0]
    assert "was greased" in hit["content"]
    assert hit["metadata"]["first_page"] == 2


def test_a_scan_is_found_by_what_it_says(caller: httpx.Client) -> None:
    """A PNG without a letter in it but drawn ones."""
    scan = _done(caller, "scan.png", pages.encoded(pages.page()))
    assert (scan["media_type"], scan["chunks"]) == ("image/png", 1)
    answer = caller.post("/v1/engines/search/run", json={"query": "Who rang the bell in the fog?", "top_k": 3}).json()
    hit = answer["result"]["hits"][0]
    assert hit["metadata"]["filename"] == "scan.png"
    assert pages.LINES[2] in hit["content"]


def test_chunks_come_in_pages(caller: httpx.Client, report: dict[str, Any]) -> None:
    """One by one they are the same as all at once."""
    path = f"/v1/documents/{report['id']}/chunks"
    every = caller.get(path).json()["chunks"]
    assert [chunk["position"] for chunk in every] == list(range(report["chunks"]))
    first = caller.get(path, params={"limit": 1}).json()
    assert first["chunks"] == every[:1]
    assert (first["next"] is None) == (len(every) == 1)


def test_progress_is_told(caller: httpx.Client, report: dict[str, Any]) -> None:
    """A late listener sees all of it."""
    with caller.stream("GET", f"/v1/documents/{report['id']}/events") as response:
        seen = [(e.event, json.loads(e.data)) for e in EventSource(response).iter_sse() if e.data]
    assert seen[0][0] == "queued"
    assert seen[-1] == ("done", {"chunks": report["chunks"]})


def test_the_same_file_again_is_no_second_document(caller: httpx.Client, report: dict[str, Any]) -> None:
    """200 with the document that is there."""
    answer = _send(caller, "copy.pdf", samples.report())
    assert answer.status_code == 200
    assert answer.json()["duplicate_of"] == report["id"]


def test_a_new_file_replaces_the_old(caller: httpx.Client) -> None:
    """What was said before is not found any more, what is said now is."""
    document = _done(caller, "notes.md", "# Valves\n\nValve seven leaks.\n")
    files = {"file": ("notes.md", b"# Valves\n\nValve seven was repaired.\n")}
    assert caller.put(f"/v1/documents/{document['id']}", files=files).status_code == 202
    after = _finished(caller, document["id"])
    assert (after["status"], after["version"]) == ("done", 2)
    chunks = caller.get(f"/v1/documents/{document['id']}/chunks").json()["chunks"]
    assert [chunk["content"] for chunk in chunks] == ["Valve seven was repaired."]


def test_delete_removes_rows_and_files(server: Server) -> None:
    """And what remains answers 404."""
    with server.new_account() as client:
        document = _done(client, "a.txt", "Something to forget.")
        org = client.get("/auth/me").json()["tenant"]
        folder = server.data_dir / "blobs" / org / "documents" / document["id"]
        assert folder.is_dir()
        assert not any(b"forget" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert client.delete(f"/v1/documents/{document['id']}").status_code == 204
        until = time.monotonic() + 90  # what cannot be deleted at once, its job deletes
        while folder.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert not folder.exists()
        for path in ("", "/chunks", "/events"):
            assert client.get(f"/v1/documents/{document['id']}{path}").status_code == 404
        assert client.delete(f"/v1/documents/{document['id']}").status_code == 404
        hits = client.post("/v1/engines/search/run", json={"query": "Something to forget."}).json()["result"]["hits"]
        assert hits == []


def test_private_documents_are_their_owners(caller: httpx.Client, server: Server) -> None:
    """A stranger sees neither list nor thing."""
    document = _done(caller, "mine.txt", "A private remark.", visibility="private")
    with server.new_account() as stranger:
        assert stranger.get("/v1/documents").json() == {"documents": [], "next": None}
        assert stranger.get(f"/v1/documents/{document['id']}").status_code == 404
        assert stranger.put(f"/v1/documents/{document['id']}", files={"file": ("a.txt", b"x")}).status_code == 404


def test_sound_becomes_a_recording(caller: httpx.Client, sample_call: SampleCall) -> None:
    """The id is that of a recording."""
    with sample_call.wav.open("rb") as file:
        answer = caller.post("/v1/documents", files={"file": ("call.wav", file)})
    assert answer.status_code == 202, answer.text
    assert caller.get(f"/v1/recordings/{answer.json()['recording_id']}").status_code == 200


@pytest.mark.parametrize(
    ("name", "data", "status", "code"),
    [
        ("a.txt", b"", 422, "empty_media"),
        ("a.pdf", samples.encrypted_pdf(), 422, "unreadable_media"),
        ("a.docx", samples.zip_bomb(), 413, "too_large"),
        ("a.pdf", samples.pdf([[(12, f"Page {n}")] for n in range(5000)]), 413, "too_large"),
        ("a.pdf", b"just words", 415, "unsupported_media"),
        ("a.txt", b"caf\xc3( broken", 422, "unreadable_media"),
        ("a.txt", b"fine\nzero\x00byte", 422, "unreadable_media"),
        ("a.txt", b"x" * 20_000_000, 413, "too_large"),
    ],
    ids=["empty", "encrypted", "zip bomb", "5000 pages", "wrong name", "invalid", "zero byte", "one line"],
)
def test_bad_files_are_refused(refused: httpx.Client, name: str, data: bytes, status: int, code: str) -> None:
    """At once, with a code and a hint, and nothing is kept."""
    answer = _send(refused, name, data)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert refused.get("/v1/documents").json()["documents"] == []


@pytest.mark.parametrize(
    "fields",
    [{"metadata": "[1]"}, {"metadata": "{"}, {"visibility": "all"}, {"title": "x" * 300}, {"extract": "perhaps"}],
)
def test_wrong_fields_are_refused(caller: httpx.Client, fields: dict[str, str]) -> None:
    """422 before anything is read."""
    assert _send(caller, "a.txt", "words", **fields).json()["code"] == "invalid_input"


def test_a_field_nobody_knows_is_told(caller: httpx.Client, report: dict[str, Any]) -> None:
    """A label misspelt would be lost, as would all but one of several files; a replacement has no labels."""
    refused = _send(caller, "a.txt", "words", tagz="plant")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert "tagz" in refused.json()["detail"]
    assert "tags" in refused.json()["hint"]
    two = [("file", ("a.txt", b"one")), ("file", ("b.txt", b"two"))]
    assert "more than one file" in caller.post("/v1/documents", files=two).json()["detail"]
    path, file = f"/v1/documents/{report['id']}", {"file": ("a.txt", b"words")}
    assert caller.put(path, files=file, data={"tags": "x"}).status_code == 422
    assert caller.get(path).json()["version"] == report["version"]


def test_several_files_are_taken_in_at_once(account: httpx.Client) -> None:
    """Each as if it had been sent alone: bad ones have their error, labels are shared, one that is there is told."""
    sent: list[tuple[str, tuple[str, bytes]]] = [
        ("files", ("a.txt", b"The first pump is red.")),
        ("files", ("broken.pdf", samples.report()[:400])),
        ("files", ("empty.txt", b"")),
        ("files", ("folder/b.md", b"# Pumps\n\nThe second pump is blue.")),
    ]
    answer = account.post("/v1/documents/batch", files=sent, data={"tags": "plant, pumps"})
    assert answer.status_code == 202, answer.text
    first, broken, empty, second = answer.json()["results"]
    assert [one["source"] for one in (first, broken, empty, second)] == ["a.txt", "broken.pdf", "empty.txt", "b.md"]
    assert (broken["error"]["code"], empty["error"]["code"]) == ("unreadable_media", "empty_media")
    for one in (first, second):
        assert _finished(account, one["document"]["id"])["status"] == "done"
    found = account.post("/v1/search", json={"query": "blue pump", "tags": ["pumps"]}).json()["hits"]
    assert found[0]["document_id"] == second["document"]["id"]
    assert len(account.get("/v1/documents").json()["documents"]) == 2
    (again,) = account.post("/v1/documents/batch", files=sent[:1]).json()["results"]
    assert again["duplicate_of"] == first["document"]["id"]


def test_bad_batches_are_refused(account: httpx.Client) -> None:
    """None, too many, all of them bad, wrong labels, no form: nothing is kept."""
    one = ("files", ("a.txt", b"words"))
    for files, fields, code in (
        ([("other", ("a.txt", b"words"))], {}, "invalid_input"),
        ([("files", (f"{n}.txt", str(n).encode())) for n in range(51)], {}, "invalid_input"),
        ([("files", ("a.pdf", b"<html>")), ("files", ("b.txt", b""))], {}, "unsupported_media"),
        ([one], {"visibility": "world"}, "invalid_input"),
        ([one], {"metadata": "{"}, "invalid_input"),
        ([one], {"title": "of one file"}, "invalid_input"),
    ):
        answer = account.post("/v1/documents/batch", files=files, data=fields)
        assert answer.json()["code"] == code, answer.text
        assert answer.status_code in (415, 422)
    assert account.post("/v1/documents/batch", json={}).status_code == 415
    assert account.get("/v1/documents").json()["documents"] == []


def test_urls_need_the_operators_leave(caller: httpx.Client) -> None:
    """No host is allowed unless the operator says so; nothing private ever is."""
    answer = caller.post("/v1/documents/urls", json={"urls": ["http://169.254.169.254/latest/meta-data"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert caller.post("/v1/documents/urls", json={"urls": []}).status_code == 422
