"""Chat sessions over HTTP: held, branched, searched, judged, attached to, followed, exported; bad input refused."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from tests.conftest import SampleCall, Server
from tests.engines.vision.pages import drawn, encoded
from tests.infra.documents import samples

pytestmark = pytest.mark.models
NOBODY = "019a0000-0000-7000-8000-000000000000"
TALK = [
    {"id": "1", "role": "user", "content": "Which valve of the north boiler leaks?"},
    {
        "id": "2",
        "parent_id": "1",
        "role": "assistant",
        "content": "Valve seven leaks.",
        "citations": [{"title": "Shift report", "page": 3}],
        "model": "local/trial",
    },
    {"id": "3", "parent_id": "1", "role": "assistant", "content": "The seventh one, since Tuesday."},
]


@pytest.fixture(scope="module")
def caller(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation that all harmless tests share."""
    with server.new_account() as client:
        yield client


def _session(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/sessions", json=more)
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


def _talk(client: httpx.Client, **more: Any) -> tuple[str, list[dict[str, Any]]]:
    """A session with a question and two answers, of which the second is shown; and the messages shown."""
    answer = client.post("/v1/sessions/import", json={"format": "neuroedge.chat/1", "messages": TALK, **more})
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"]
    return path, client.get(f"{path}/messages").json()["messages"]


def _wait_for(look: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    until = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def _attach(client: httpx.Client, session: str, name: str, data: bytes) -> httpx.Response:
    return client.post(f"{session}/attachments", files={"file": (name, data)})


def _text(client: httpx.Client, session: str, attachment: dict[str, Any]) -> dict[str, Any]:
    """An attachment once its reading has ended."""

    def ended() -> Any:
        now = client.get(f"{session}/attachments/{attachment['id']}").json()
        return now if now["state"] in ("done", "failed") else None

    read: dict[str, Any] = _wait_for(ended, within_s=120)
    return read


def test_a_session_lives(account: httpx.Client) -> None:
    """Begun, changed, archived, listed in pages, deleted."""
    made = account.post("/v1/sessions", json={"title": "Boiler", "local_only": True, "system_prompt": "Be brief."})
    session = made.json()
    path = made.headers["location"]
    assert path == f"/v1/sessions/{session['id']}"
    assert (session["title"], session["visibility"], session["local_only"], session["leaf_id"]) == (
        "Boiler",
        "private",
        True,
        None,
    )
    assert account.get(path).json() == session
    changed = account.patch(path, json={"title": "Boilers", "model": "local/trial", "system_prompt": ""}).json()
    assert (changed["title"], changed["model"], changed["system_prompt"]) == ("Boilers", "local/trial", None)
    others = [_session(account)["id"] for _ in range(2)]
    first = account.get("/v1/sessions", params={"limit": 2}).json()
    assert [one["id"] for one in first["sessions"]] == others[::-1]
    rest = account.get("/v1/sessions", params={"limit": 2, "before": first["next"]}).json()
    assert ([one["id"] for one in rest["sessions"]], rest["next"]) == ([session["id"]], None)
    assert account.patch(path, json={"archived": True}).json()["archived"]
    assert len(account.get("/v1/sessions").json()["sessions"]) == 2
    assert [one["id"] for one in account.get("/v1/sessions?archived=true").json()["sessions"]] == [session["id"]]
    assert account.get(f"{path}/messages").json() == {"messages": [], "previous": None}
    assert account.delete(path).status_code == 204
    assert account.get(path).status_code == account.delete(path).status_code == 404


def test_messages_branch(caller: httpx.Client) -> None:
    """Another answer, an edited question: each shown on demand, none lost; deleting takes what follows."""
    path, (question, answer) = _talk(caller)
    assert answer["content"] == "The seventh one, since Tuesday."
    versions = caller.get(f"{path}/messages/{answer['id']}/branches").json()["messages"]
    assert [one["content"] for one in versions] == ["Valve seven leaks.", "The seventh one, since Tuesday."]
    assert answer["branches"] == [one["id"] for one in versions]
    assert caller.patch(path, json={"leaf_id": versions[0]["id"]}).json()["leaf_id"] == versions[0]["id"]
    shown = caller.get(f"{path}/messages").json()["messages"][-1]
    assert (shown["citations"], shown["model"]) == ([{"title": "Shift report", "page": 3}], "local/trial")
    edited = caller.patch(f"{path}/messages/{question['id']}", json={"content": "Which valve is tight?"}).json()
    assert (edited["parent_id"], edited["role"], edited["state"]) == (None, "user", "done")
    assert [one["id"] for one in caller.get(f"{path}/messages").json()["messages"]] == [edited["id"]]
    page = caller.get(f"{path}/messages", params={"leaf": answer["id"], "limit": 1}).json()
    assert ([one["id"] for one in page["messages"]], page["previous"]) == ([answer["id"]], question["id"])
    assert caller.delete(f"{path}/messages/{question['id']}").status_code == 204
    assert caller.get(f"{path}/messages/{answer['id']}").status_code == 404
    assert [one["id"] for one in caller.get(f"{path}/messages").json()["messages"]] == [edited["id"]]


def test_answers_are_judged(caller: httpx.Client) -> None:
    """Up or down with a reason, and taken back; a question is not judged."""
    path, (question, answer) = _talk(caller)
    url = f"{path}/messages/{answer['id']}"
    judged = caller.put(f"{url}/feedback", json={"rating": "down", "reason": "wrong", "comment": "It is valve six."})
    assert judged.json()["feedback"] == {"rating": "down", "reason": "wrong", "comment": "It is valve six."}
    assert caller.delete(f"{url}/feedback").status_code == 204
    assert caller.get(url).json()["feedback"] is None
    assert caller.put(f"{path}/messages/{question['id']}/feedback", json={"rating": "up"}).status_code == 422


def test_own_messages_are_found_and_cited_by_nothing(account: httpx.Client) -> None:
    """By meaning, once the job has run; no other search and no list shows them; deleted they are gone."""
    path, (question, _) = _talk(account)

    def search(**asked: Any) -> list[dict[str, Any]]:
        answer = account.get("/v1/messages/search", params={"q": "Which tap is dripping?", **asked})
        assert answer.status_code == 200, answer.text
        hits: list[dict[str, Any]] = answer.json()["hits"]
        return hits

    hits = _wait_for(lambda: found if len(found := search()) == 3 else None)
    assert {hit["message"]["id"] for hit in hits} >= {question["id"]}
    assert search(limit=1) == hits[:1]
    assert search(session_id=path.rsplit("/", 1)[1]) == hits
    assert search(session_id=NOBODY) == []
    assert account.post("/v1/search", json={"query": "north boiler valve"}).json()["hits"] == []
    assert account.get("/v1/memories").json()["memories"] == []
    assert account.get("/v1/memories/export").text == ""
    assert account.delete(path).status_code == 204
    assert search() == []


def test_an_export_is_imported_again(caller: httpx.Client) -> None:
    """JSON with all branches; Markdown for people, with a name of its own."""
    path, _ = _talk(caller, title="Ventil Nörd/7")
    kept = caller.get(f"{path}/export", params={"format": "json"})
    assert kept.headers["content-type"] == "application/json"
    again = caller.post("/v1/sessions/import", json=kept.json())
    assert again.status_code == 201, again.text
    other = caller.get(f"{again.headers['location']}/export", params={"format": "json"}).json()
    contents = [(one["role"], one["content"], one["citations"]) for one in kept.json()["messages"]]
    assert [(one["role"], one["content"], one["citations"]) for one in other["messages"]] == contents
    text = caller.get(f"{path}/export")
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "filename*=UTF-8''Ventil%20N%C3%B6rd_7.md" in text.headers["content-disposition"]
    assert text.text.startswith("# Ventil Nörd/7\n")
    assert "The seventh one, since Tuesday." in text.text


def test_chats_are_taken_away_and_erased(account: httpx.Client) -> None:
    """Questions, judgements and attached texts are in a user's export; erased, nothing is left to count."""
    path, (_, answer) = _talk(account, title="Valves")
    assert account.put(f"{path}/messages/{answer['id']}/feedback", json={"rating": "up"}).status_code == 200
    assert _attach(account, path, "note.txt", b"The note says so.").status_code == 201
    order = account.post("/v1/privacy/export", json={}).json()
    url = f"/v1/privacy/exports/{order['id']}"
    _wait_for(lambda: account.get(url).json()["state"] == "done")
    with zipfile.ZipFile(io.BytesIO(account.get(f"{url}/file").content)) as file:
        sessions, messages, attachments = (
            [json.loads(line) for line in file.read(f"{name}.jsonl").splitlines()]
            for name in ("chat_sessions", "chat_messages", "chat_attachments")
        )
    assert [one["title"] for one in sessions] == ["Valves"]
    assert {one["content"] for one in messages} == {one["content"] for one in TALK}
    assert [one["text"] for one in attachments] == ["The note says so."]
    user_id = account.get("/auth/me").json()["user_id"]
    erasure = account.post("/v1/privacy/erase", json={"user_id": user_id}).json()
    proof = f"/v1/privacy/erasures/{erasure['id']}"
    _wait_for(lambda: account.get(proof).json()["state"] == "done")
    report = account.get(proof).json()["report"]
    assert report["erased"]["chat_sessions"] == 1
    assert not any(report["left"].values())
    assert account.get(path).status_code == 404


def test_files_become_text(caller: httpx.Client, sample_call: SampleCall) -> None:
    """A document at once; a picture and a call in the background; each comes back as it was sent."""
    session = f"/v1/sessions/{_session(caller)['id']}"
    report = _attach(caller, session, "report.pdf", samples.report())
    assert report.status_code == 201, report.text
    assert "[page 2]\n\n# Bearings" in _text(caller, session, report.json())["text"]
    picture = encoded(drawn([(60, 60, "Invoice 4711 paid")]))
    scan = _attach(caller, session, "scan.png", picture)
    assert (scan.status_code, scan.json()["kind"]) == (202, "image")
    call = _attach(caller, session, "call.wav", sample_call.wav.read_bytes())
    assert (call.status_code, call.json()["kind"]) == (202, "audio")
    assert "4711" in _text(caller, session, scan.json())["text"]
    heard = _text(caller, session, call.json())
    assert heard["text"].startswith("[0:")
    assert "chicago" in heard["text"].lower()
    listed = caller.get(f"{session}/attachments").json()["attachments"]
    assert [one["filename"] for one in listed] == ["report.pdf", "scan.png", "call.wav"]
    url = f"{session}/attachments/{scan.json()['id']}"
    file = caller.get(f"{url}/file")
    assert file.content == picture
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"].startswith('attachment; filename="scan.png"')
    assert caller.delete(url).status_code == 204
    assert caller.get(url).status_code == 404


def test_bad_files_are_refused(caller: httpx.Client) -> None:
    """At once where no engine is needed; a picture that is none, and broken sound, tell why when they are read."""
    session = f"/v1/sessions/{_session(caller)['id']}"
    for name, data, status, code in (
        ("a.txt", b"", 422, "empty_media"),
        ("a.pdf", samples.encrypted_pdf(), 422, "unreadable_media"),
        ("a.png", b"no picture at all", 415, "unsupported_media"),
    ):
        answer = _attach(caller, session, name, data)
        assert (answer.status_code, answer.json()["code"]) == (status, code), name
    for name, data in (("half.png", samples.PNG[:40]), ("half.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ")):
        read = _text(caller, session, _attach(caller, session, name, data).json())
        assert (read["state"], read["text"]) == ("failed", None), name
        assert read["error"]["code"] in ("unreadable_media", "empty_media", "unsupported_media")
        assert read["error"]["detail"]
    assert caller.post(f"{session}/attachments", json={}).status_code == 415
    assert _attach(caller, f"/v1/sessions/{NOBODY}", "a.txt", b"x").status_code == 404


def test_other_devices_learn_what_happens(caller: httpx.Client) -> None:
    """From the beginning, with ids and no content, until the session is deleted."""
    path, (question, answer) = _talk(caller)
    edited = caller.patch(f"{path}/messages/{question['id']}", json={"content": "Secret words?"}).json()
    assert caller.delete(f"{path}/messages/{answer['id']}").status_code == 204
    told: list[tuple[str, dict[str, Any]]] = []
    with caller.stream("GET", f"{path}/events") as response:
        assert response.status_code == 200
        for event in EventSource(response).iter_sse():
            if event.data:
                told.append((event.event, json.loads(event.data)))
            if event.event == "message.deleted":
                break
    assert told == [
        (
            "message.finished",
            {"message_id": edited["id"], "parent_id": None, "role": "user", "state": "done"},
        ),
        ("message.deleted", {"message_id": answer["id"]}),
    ]
    assert caller.get(f"/v1/sessions/{NOBODY}/events").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"title": "x" * 201}),
        ("POST", "", {"title": "a\u0000b"}),
        ("POST", "", {"visibility": "everybody"}),
        ("POST", "", {"visibility": "division"}),
        ("POST", "", {"user_id": NOBODY}),
        ("POST", "", {"system_prompt": "x" * 20_001}),
        ("PATCH", "/{id}", {}),
        ("PATCH", "/{id}", {"title": ""}),
        ("POST", "/import", {"format": "other", "messages": []}),
        ("POST", "/import", {"format": "neuroedge.chat/1", "messages": [{"id": "1", "role": "judge"}]}),
        (
            "POST",
            "/import",
            {"format": "neuroedge.chat/1", "messages": [{"id": "1", "parent_id": "9", "role": "user"}]},
        ),
        ("PATCH", "/{id}/messages/{message}", {"content": ""}),
        ("PATCH", "/{id}/messages/{message}", {"content": "a\u0000b"}),
        ("PATCH", "/{id}/messages/{message}", {"content": "x", "attachments": [NOBODY] * 11}),
        ("PUT", "/{id}/messages/{message}/feedback", {"rating": "sideways"}),
        ("GET", "?before=never", None),
        ("GET", "?limit=201", None),
        ("GET", "/{id}/messages?limit=0", None),
        ("GET", "/{id}/export?format=pdf", None),
    ],
)
def test_bad_input_is_refused(caller: httpx.Client, method: str, path: str, body: Any) -> None:
    """422 that names what is wrong."""
    session, (question, _) = _talk(caller)
    url = path.format(id=session.rsplit("/", 1)[1], message=question["id"])
    answer = caller.request(method, f"/v1/sessions{url}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_input"


def test_a_stranger_finds_nothing(server: Server, caller: httpx.Client) -> None:
    """A 404 for each id, the same as for one that never existed."""
    path, (question, answer) = _talk(caller)
    note = _attach(caller, path, "note.txt", b"words").json()
    with server.new_account() as stranger:
        for method, url in (
            ("GET", ""),
            ("GET", "/messages"),
            ("GET", f"/messages/{question['id']}"),
            ("DELETE", f"/messages/{answer['id']}/feedback"),
            ("GET", "/export"),
            ("GET", f"/attachments/{note['id']}/file"),
            ("DELETE", ""),
        ):
            theirs, never = (stranger.request(method, f"{base}{url}") for base in (path, f"/v1/sessions/{NOBODY}"))
            assert theirs.status_code == never.status_code == 404, url
            assert theirs.json()["code"] == never.json()["code"] == "not_found"
    assert len(caller.get(f"{path}/messages").json()["messages"]) == 2
