"""Nothing that was remembered stands anywhere on disk: not in a dump of the database, not in any file."""

import asyncio
import base64
import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import valkey
from psycopg import sql

from neuroedge.bootstrap import open_servers
from neuroedge.settings import Settings
from tests.conftest import PASSWORD, SampleCall, Server, running_server

pytestmark = pytest.mark.models
DONE_S = 180
DOORS = (
    "enginecontent",
    "enginetitle",
    "enginetag",
    "enginekey",
    "enginevalue",
    "dialect",
    "memorycontent",
    "memorytitle",
    "memorytag",
    "memoryvalue",
    "memorysource",
    "recordingtitle",
    "recordingcontext",
    "recordingfile",
    "taskpayload",
    "documenttext",
    "documenttitle",
    "documentfile",
    "documenttag",
    "documentvalue",
    "question",
    "thing",
)
SPOKEN = ("originally", "chicago", "difference")
"""Rare words of the sample call."""


def _word(door: str) -> str:
    """A word that is found nowhere by chance, the same for a door within a run."""
    return f"Qz{_RUN}{door}"


_RUN = "".join(secrets.choice("bcdfghjklmnpqrstvwxz") for _ in range(6))


def forms(word: str) -> list[bytes]:
    """What a word looks like in a file, beginning cut off where an analyser or an encoding may change it."""
    found = []
    for spelling in {word, word.lower(), word.upper()}:
        plain = spelling.encode()
        found += [plain, spelling.encode("utf-16-le"), spelling.encode("utf-16-be"), plain.hex().encode()]
        for shift in range(3):
            # Whole groups of three bytes only: what stands before and after changes the others.
            skipped = plain[(3 - shift) % 3 :]
            found.append(base64.b64encode(skipped[: len(skipped) // 3 * 3]))
    return found


def places(data: bytes, words: list[str]) -> list[str]:
    """Which of the words are in the data in any form."""
    return [word for word in words if any(form in data for form in forms(word))]


@dataclass(frozen=True)
class Disk:
    """Everything that was stored, as bytes."""

    dump: bytes
    files: dict[Path, bytes]
    organisation: str


def test_the_search_for_words_finds_what_it_should() -> None:
    """In every form, so that the tests below could fail."""
    word = _word("control")
    for data in (
        f"x {word} y".encode(),
        f"x {word.lower()}s".encode(),
        f"xy{word}".encode("utf-16-le"),
        f"xy{word}".encode("utf-16-be"),
        *(base64.b64encode(b"a" * n + word.encode() + b"b") for n in range(3)),
        f"\\x{word.encode().hex()}".encode(),
    ):
        assert places(data, [word]) == [word], data
    assert places(b"nothing of it", [word]) == []


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, sample_call: SampleCall) -> Iterator[Disk]:
    """A server of its own, told unusual words through every door; what it left in its folder while it runs."""
    data_dir = tmp_path_factory.mktemp("sealed") / "data"
    name = f"controlname{_RUN}"
    with running_server(data_dir, models_dir, NEUROEDGE_MODELS="speech_to_text=whisper-tiny-en") as server:
        with _account(server, name) as client:
            _tell(client, sample_call)
        yield Disk(dump=_dump(data_dir), files=_files(data_dir), organisation=name)


def _account(server: Server, name: str) -> httpx.Client:
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.post("/auth/register", json=body).status_code == 201
    return server.log_in(name)


def _tell(client: httpx.Client, sample_call: SampleCall) -> None:
    """Through every door there is."""
    item: dict[str, Any] = {
        "content": f"The {_word('enginecontent')} is near.",
        "title": _word("enginetitle"),
        "tags": [_word("enginetag")],
        "metadata": {_word("enginekey"): _word("enginevalue")},
    }
    _ok(client.post("/v1/engines/memory/run", json={"items": [item]}))
    _ok(client.post("/rag/memory", json={"content": f"Remember {_word('dialect')}."}))
    memory = {
        "content": f"Miss {_word('thing')} met Sheila in Texas about the {_word('memorycontent')}.",
        "title": _word("memorytitle"),
        "tags": [_word("memorytag")],
        "metadata": {"k": _word("memoryvalue")},
        "source": _word("memorysource"),
    }
    _ok(client.post("/v1/memories", json=memory))
    with sample_call.wav.open("rb") as file:
        fields = {"title": _word("recordingtitle"), "context": _word("recordingcontext")}
        sent = client.post("/v1/recordings", files={"file": (f"{_word('recordingfile')}.wav", file)}, data=fields)
    recording = _ok(sent)["id"]
    payload = {"items": [{"content": f"By a task: {_word('taskpayload')}."}]}
    task = _ok(client.post("/v1/tasks", json={"engine": "memory", "payload": payload}))["id"]
    document = _ok(
        client.post(
            "/v1/documents",
            files={"file": (f"{_word('documentfile')}.txt", f"It says {_word('documenttext')} here.".encode())},
            data={
                "title": _word("documenttitle"),
                "tags": _word("documenttag"),
                "metadata": f'{{"k": "{_word("documentvalue")}"}}',
            },
        )
    )["document"]["id"]
    _until(client, f"/v1/documents/{document}", "status", "done")
    _until(client, f"/v1/tasks/{task}", "state", "succeeded")
    _until(client, f"/v1/recordings/{recording}", "status", "done")
    heard = _ok(client.get(f"/v1/recordings/{recording}"))["text"].lower()
    assert any(word in heard for word in SPOKEN), heard
    if _ok(client.post("/v1/knowledge/extract"))["memories"]:
        deadline = time.monotonic() + DONE_S
        while (standing := _ok(client.get("/v1/knowledge")))["read"] < standing["memories"]:
            assert time.monotonic() < deadline, standing
            time.sleep(0.2)
    found = _ok(client.post("/rag/search", json={"query": _word("documenttext")}))
    assert _word("documenttext") in str(found)
    _ok(client.post("/gemma/chat", json={"message": f"What is {_word('question')}?"}))
    export = _ok(client.post("/v1/privacy/export", json={}))["id"]
    _until(client, f"/v1/privacy/exports/{export}", "state", "done")
    time.sleep(1)


def _ok(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


def _until(client: httpx.Client, path: str, field: str, value: str) -> None:
    deadline = time.monotonic() + DONE_S
    while (found := _ok(client.get(path)))[field] != value:
        assert time.monotonic() < deadline, found
        assert found[field] not in ("failed", "dead"), found
        time.sleep(0.2)


def _dump(data_dir: Path) -> bytes:
    """Every table of the database as its owner copies it, and the data on disk brought up to date."""

    async def run() -> bytes:
        async with open_servers(Settings(data_dir=data_dir, postgres_url=None, redis_url=None)) as servers:
            with contextlib.closing(valkey.Valkey.from_url(servers.valkey)) as client:
                await asyncio.to_thread(_saved, client)
            return await asyncio.to_thread(_copied, servers.postgres_owner)

    return asyncio.run(run())


def _saved(client: valkey.Valkey) -> None:
    """Valkey's file holds what Valkey does; it may be saving by itself just now, and takes no second order."""
    deadline = time.monotonic() + DONE_S
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.save()


def _copied(owner_url: str) -> bytes:
    parts = []
    with psycopg.connect(owner_url, autocommit=True) as conn:
        tables = conn.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'queue') AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        ).fetchall()
        assert len(tables) > 20
        for schema, table in tables:
            copy = sql.SQL("COPY (SELECT * FROM {}.{}) TO STDOUT").format(*map(sql.Identifier, (schema, table)))
            with conn.cursor().copy(copy) as rows:
                parts += [bytes(row) for row in rows]
        conn.execute("CHECKPOINT")
        assert (conn.execute("SELECT count(*) FROM recordings").fetchone() or (0,))[0] == 1
    return b"".join(parts)


def _files(data_dir: Path) -> dict[Path, bytes]:
    """All files of the data directory but weights, and the server's log."""
    files = [Path(folder) / name for folder, _, names in os.walk(data_dir) for name in names]
    files = [path for path in files if path.is_file() and "models" not in path.parts[-3:]]
    files.append(data_dir.parent / f"{data_dir.name}.log")
    found = {}
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # the servers run, and may have removed it since
            found[path] = path.read_bytes()
    return found


def test_what_is_stored_in_plain_on_purpose_is_found(disk: Disk) -> None:
    """The organisation's name: in the dump, in PostgreSQL's files and in its write-ahead log."""
    assert places(disk.dump, [disk.organisation])
    holding = [path for path, data in disk.files.items() if places(data, [disk.organisation])]
    assert any("pg_wal" in path.parts for path in holding)
    assert any("base" in path.parts for path in holding)
    assert any("blobs" in path.parts for path in disk.files)
    assert any("valkey" in path.parts for path in disk.files)
    assert any("cache" in path.parts for path in disk.files)


def test_a_dump_of_the_database_holds_no_word(disk: Disk) -> None:
    """Of nothing that was told through any door, nor what was spoken."""
    assert places(disk.dump, [_word(door) for door in DOORS]) == []
    assert [word for word in SPOKEN if word.encode() in disk.dump.lower()] == []


def test_no_file_holds_a_word(disk: Disk) -> None:
    """Tables, indexes, write-ahead log, objects, cache, Valkey's file and logs."""
    words = [_word(door) for door in DOORS]
    holding = {str(path): found for path, data in disk.files.items() if (found := places(data, words))}
    assert holding == {}
