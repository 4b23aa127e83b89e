"""Attachments: read into text at once or by the job, kept sealed, refused when bad, gone with their session."""

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import (
    Conflict,
    EmptyMedia,
    Forbidden,
    NotFound,
    TooLarge,
    Unavailable,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.kit.chunking import Block
from neuroedge.services.chat import attachments
from neuroedge.services.chat.attachments import MAX_STARTS, READ_TASK
from neuroedge.services.chat.changes import SessionChanges
from neuroedge.stores.chat_attachments import Attachment, folder_of
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.infra.documents import samples
from tests.services.chat.chat_bench import Bench
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00"


class Reader:
    """Reads the same on every picture; fails as often as it is told to."""

    model_id = "fake-ocr"

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    async def read(self, image: bytes, *, page: int | None) -> list[Block]:
        """One paragraph."""
        assert image.startswith(samples.PNG[:8])
        if self.failures:
            raise self.failures.pop()
        return [Block(type="paragraph", text="Scanned invoice 4711.", page=page)]


@pytest.fixture
def reader() -> Reader:
    """Reads pictures."""
    return Reader()


@pytest.fixture
async def bench(db: Database, tmp_path: Path, reader: Reader) -> Bench:
    """Everything of chats but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    return Bench(db, queue, tmp_path, reader=reader)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


@pytest.fixture
async def session(bench: Bench, caller: Principal) -> Session:
    """An empty session."""
    return await bench.chats.create(caller, request_id="r")


async def _add(bench: Bench, caller: Principal, session: Session, data: bytes | str, name: str = "a.txt") -> Attachment:
    return await bench.attachments.add(bench.upload(data, name), caller, session.id, request_id="r")


async def _process(bench: Bench, caller: Principal, attachment: Attachment) -> None:
    await bench.attachments.process(caller, attachment.session_id, attachment.id, request_id="r")


async def _read(bench: Bench, caller: Principal, session: Session, ids: Sequence[UUID]) -> list[tuple[str, str | None]]:
    found = await bench.attachments.read(caller, session.id, ids, within_s=0)
    return [(one.attachment.state, one.text) for one in found]


async def test_a_documents_text_is_there_at_once(bench: Bench, caller: Principal, session: Session) -> None:
    """With headings and pages; the file comes back as it was sent, and lies nowhere in plain."""
    note = await _add(bench, caller, session, "The boiler leaks.\n")
    report = await _add(bench, caller, session, samples.report(), "report.pdf")
    assert (note.state, note.kind, note.characters) == ("done", "text", len("The boiler leaks."))
    assert (report.filename, report.pages, report.media_type) == ("report.pdf", 2, "application/pdf")
    (_, first), (_, second) = await _read(bench, caller, session, [note.id, report.id])
    assert first == "The boiler leaks."
    assert second is not None
    assert "[page 2]\n\n# Bearings" in second
    assert second.index("[page 1]") < second.index("week 3") < second.index("[page 2]") < second.index("Bearing 5")
    assert await bench.attachments.original(caller, report) == samples.report()
    assert not any(b"boiler" in path.read_bytes() for path in bench.files())
    asked = await bench.chats.append(
        caller, session.id, parent_id=None, role="user", content="", attachments=[note.id, report.id]
    )
    assert asked.attachments == [note.id, report.id]
    edited = await bench.chats.edit(caller, session.id, asked.id, content="What leaks?")
    assert edited.attachments == asked.attachments


async def test_pictures_and_scans_are_read_by_the_job(bench: Bench, caller: Principal, session: Session) -> None:
    """An image, and the pages of a PDF that hold no text in their place between the others."""
    image = await _add(bench, caller, session, samples.PNG, "scan.png")
    mixed = await _add(
        bench, caller, session, samples.pdf([[(12, "First page.")], [], [(12, "Third page.")]]), "mixed.pdf"
    )
    assert (image.state, image.kind, mixed.state, list(mixed.unread_pages)) == ("queued", "image", "queued", [2])
    with pytest.raises(Conflict, match="still being read"):
        await _read(bench, caller, session, [image.id])
    jobs = [job for job in await bench.jobs(READ_TASK) if job["org_id"] == str(caller.org_id)]
    assert [job["attachment_id"] for job in jobs] == [str(image.id), str(mixed.id)]
    for attachment in (image, mixed, image):
        await _process(bench, caller, attachment)
    assert await _read(bench, caller, session, [mixed.id, image.id]) == [
        ("done", "[page 1]\n\nFirst page.\n\n[page 2]\n\nScanned invoice 4711.\n\n[page 3]\n\nThird page."),
        ("done", "Scanned invoice 4711."),
    ]
    assert [name for name, _ in bench.told].count("attachment.done") == 2
    assert "4711" not in str(bench.told)


async def test_sound_is_heard_by_the_job(bench: Bench, caller: Principal, session: Session) -> None:
    """Each piece with its minute and second."""
    sound = await _add(bench, caller, session, WAV + b"data\x00\x00\x00\x00", "call.wav")
    assert (sound.state, sound.kind) == ("queued", "audio")
    bench.heard = lambda: [
        SimpleNamespace(start_s=0.4, text=" Hello."),
        SimpleNamespace(start_s=75.0, text=" The pump is loud."),
    ]
    await _process(bench, caller, sound)
    assert await _read(bench, caller, session, [sound.id]) == [("done", "[0:00] Hello.\n[1:15] The pump is loud.")]


async def test_waiting_ends_when_the_text_is_there(bench: Bench, caller: Principal, session: Session) -> None:
    """Who asks while a picture is read gets its text."""
    image = await _add(bench, caller, session, samples.PNG, "scan.png")
    waiting = asyncio.create_task(bench.attachments.read(caller, session.id, [image.id], within_s=120))
    await _process(bench, caller, image)
    (read,) = await waiting
    assert read.text == "Scanned invoice 4711."


async def test_what_cannot_be_read_says_why(bench: Bench, caller: Principal, session: Session, reader: Reader) -> None:
    """A broken picture at once; a model that is away after some tries; something unforeseen without its words."""

    async def fails(*errors: Exception) -> Attachment:
        image = await _add(bench, caller, session, samples.PNG, "scan.png")
        for error in errors:
            reader.failures = [error]
            try:
                await _process(bench, caller, image)
            except type(error):
                (now,) = await bench.attachments.of_session(caller, session.id)
                assert now.state == "running"
        (read,) = await bench.attachments.read(caller, session.id, [image.id], within_s=0)
        await bench.attachments.delete(caller, session.id, image.id)
        assert read.text is None
        return read.attachment

    broken = await fails(UnreadableMedia("half a picture", hint="send it again"))
    assert (broken.state, broken.error_code, broken.error_hint) == ("failed", "unreadable_media", "send it again")
    away = await fails(*[Unavailable("no model now")] * MAX_STARTS)
    assert (away.state, away.error_code) == ("failed", "unavailable")
    unforeseen = await fails(*[ValueError("secret words")] * MAX_STARTS)
    assert (unforeseen.state, unforeseen.error_code) == ("failed", "internal")
    assert "secret" not in (unforeseen.error_detail or "")


@pytest.mark.parametrize(
    ("data", "name", "error"),
    [
        (b"\xff\xfe", "a.txt", EmptyMedia),
        (samples.encrypted_pdf(), "a.pdf", UnreadableMedia),
        (b"\x00\x01\x02", "a.bin", UnreadableMedia),
        (b"no picture", "a.png", UnsupportedMedia),
        (samples.zip_bomb(), "a.docx", TooLarge),
    ],
)
async def test_bad_files_leave_nothing(
    bench: Bench, caller: Principal, session: Session, data: bytes, name: str, error: type[Exception]
) -> None:
    """Refused at once: no row, no object."""
    with pytest.raises(error):
        await _add(bench, caller, session, data, name)
    assert await bench.attachments.of_session(caller, session.id) == []
    assert bench.files() == []


async def test_limits_hold(bench: Bench, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """More text than a prompt is made of, and more files than a session holds."""
    monkeypatch.setattr(attachments, "MAX_CHARACTERS", 10)
    with pytest.raises(TooLarge, match="24 characters of text"):
        await _add(bench, caller, session, "more than ten characters")
    image = await _add(bench, caller, session, samples.PNG, "scan.png")
    await _process(bench, caller, image)
    ((state, text),) = await _read(bench, caller, session, [image.id])
    assert (state, text) == ("failed", None)
    monkeypatch.setattr(attachments, "MAX_OF_SESSION", 1)
    with pytest.raises(TooLarge, match="attachments"):
        await _add(bench, caller, session, "short")


async def test_without_ocr_pictures_are_refused(db: Database, caller: Principal, tmp_path: Path) -> None:
    """At once; a document with some text is read as far as it goes by the engines there are."""
    queue = JobQueue(db.pool)
    await queue.open()
    bench = Bench(db, queue, tmp_path)
    session = await bench.chats.create(caller, request_id="r")
    for data, name in ((samples.PNG, "scan.png"), (samples.pdf([[], []]), "scan.pdf")):
        with pytest.raises(UnsupportedMedia, match="no OCR engine"):
            await _add(bench, caller, session, data, name)
    mixed = await _add(bench, caller, session, samples.pdf([[(12, "First page.")], []]), "mixed.pdf")
    assert await _read(bench, caller, session, [mixed.id]) == [("done", "[page 1]\n\nFirst page.")]
    assert list(mixed.unread_pages) == [2]


async def test_nobody_else_gets_at_them(bench: Bench, caller: Principal, session: Session, db: Database) -> None:
    """A colleague and a stranger find nothing; who the session is shared with reads, and that is all."""
    note = await _add(bench, caller, session, "The boiler leaks.")
    colleague, stranger = dataclasses.replace(caller, user_id=new_id()), await new_principal(db)

    def reading(who: Principal) -> list[Any]:
        return [
            bench.attachments.of_session(who, session.id),
            bench.attachments.get(who, session.id, note.id),
            bench.attachments.read(who, session.id, [note.id]),
        ]

    def writing(who: Principal) -> list[Any]:
        return [_add(bench, who, session, "x"), bench.attachments.delete(who, session.id, note.id)]

    for who in (colleague, stranger):
        for attempt in (*reading(who), *writing(who)):
            with pytest.raises(NotFound):
                await attempt
    await bench.chats.update(caller, session.id, SessionChanges(visibility="organisation"), request_id="r")
    for attempt in reading(colleague):
        assert await attempt
    for attempt in writing(colleague):
        with pytest.raises(Forbidden):
            await attempt
    other = await bench.chats.create(caller, request_id="r")
    with pytest.raises(NotFound):
        await bench.attachments.get(caller, other.id, note.id)
    with pytest.raises(NotFound, match="attachment"):
        await bench.chats.append(caller, other.id, parent_id=None, role="user", content="x", attachments=[note.id])


async def test_they_go_with_their_session(bench: Bench, caller: Principal, session: Session) -> None:
    """Rows and objects; a job that comes late stores nothing, and one alone can go before."""
    note, image = await _add(bench, caller, session, "note"), await _add(bench, caller, session, samples.PNG, "a.png")
    await bench.attachments.delete(caller, session.id, note.id)
    assert len(bench.files()) == 1
    assert await _read(bench, caller, session, [note.id]) == []
    await bench.chats.delete(caller, session.id, request_id="r")
    assert bench.files() == []
    await _process(bench, caller, image)
    async with bench.db.tenant(caller, sees_all=True) as conn:
        assert await (await conn.execute("SELECT id FROM chat_attachments")).fetchall() == []


async def test_a_session_deleted_during_the_upload_takes_it_along(
    bench: Bench, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender is told; neither row nor object is left."""
    put = type(bench.blobs(caller)).put

    async def deleting(self: Any, key: str, data: Any) -> None:
        await bench.chats.delete(caller, session.id, request_id="r")
        await put(self, key, data)

    monkeypatch.setattr(type(bench.blobs(caller)), "put", deleting)
    with pytest.raises(NotFound):
        await _add(bench, caller, session, "note")
    assert bench.files() == []


async def test_the_sweep_deletes_what_a_crash_left(bench: Bench, caller: Principal, session: Session) -> None:
    """An upload that never arrived, and the objects of a session without a row; the rest stays."""
    kept, lost = await _add(bench, caller, session, "kept"), await _add(bench, caller, session, "lost")
    orphan = UUID("01900000-0000-7000-8000-000000000000")
    await bench.blobs(caller).put(f"{folder_of(orphan)}/x/original", b"left")
    async with bench.db.tenant(caller) as conn:
        await conn.execute(
            "UPDATE chat_attachments SET state = 'storing', created_at = now() - interval '2 hours' WHERE id = %s",
            [lost.id],
        )
    assert await bench.sweep.run() >= 2
    assert [one.id for one in await bench.attachments.of_session(caller, session.id)] == [kept.id]
    assert [path.parent.name for path in bench.files()] == [str(kept.id)]
