"""Files attached to a session: kept sealed, and read into text that can be put before a language model.

Documents are read at once, so that a bad one is answered at once and nothing of it is kept; images, scanned pages and
sound are read by a durable job, whose failure stands in the attachment.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, NeuroEdgeError, NotFound, TooLarge, UnsupportedMedia
from neuroedge.contract.ports import AudioSource
from neuroedge.contract.principal import Principal
from neuroedge.infra.documents.outcome import Parsed, read_blocks
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.queue import JOB_QUEUE, TASK_QUEUE, JobQueue
from neuroedge.kit.chunking import Block
from neuroedge.services.chat.checks import own
from neuroedge.services.chat.progress import SessionProgress, require
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.scanned_pages import OpenPageReader
from neuroedge.stores import chat_attachments
from neuroedge.stores.chat_attachments import Attachment, NewAttachment
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

READ_TASK: Final = "read_chat_attachment"
MAX_CHARACTERS: Final = 500_000
"""Of an attachment's text: more is a document, which is cut into passages and searched."""
MAX_OF_SESSION: Final = 200
MAX_STARTS: Final = 4
"""After so many errors or interruptions the file counts as unreadable."""
WAIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAttachment:
    """An attachment with its text; None when it could not be read, `attachment` then tells why."""

    attachment: Attachment
    text: str | None


class Attachments:
    """Attachments of the sessions the caller may read."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: SessionProgress,
        parser: DocumentParser,
        tmp: Path,
        page_reader: OpenPageReader | None,
    ) -> None:
        """`page_reader`: reads images and scans; None where no OCR model is installed."""
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._parser = parser
        self._tmp = tmp
        self._page_reader = page_reader

    async def add(self, upload: Upload, principal: Principal, session_id: UUID, *, request_id: str) -> Attachment:
        """Check and keep a file; a document's text is there at once, else its reading is queued.

        Raises NotFound, Forbidden for another's session, TooLarge, and what reading raises; then nothing is kept.
        """
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            if await chat_attachments.count(conn, session_id) >= MAX_OF_SESSION:
                raise TooLarge(f"a session has at most {MAX_OF_SESSION} attachments", hint="delete some, or begin anew")
        parsed, blocks = await self._parsed(upload)
        # Without OCR the pages with text are all there is; `unread_pages` tells of the others.
        whole = parsed.kind == "text" and (not parsed.unread_pages or self._page_reader is None)
        text = _text(blocks) if whole else None
        item = NewAttachment(
            id=new_id(),
            session_id=session_id,
            filename=upload.filename,
            unread_pages=parsed.unread_pages,
            kind=parsed.kind,
            media_type=parsed.media_type,
            bytes=upload.bytes,
            pages=parsed.pages,
        )
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            await chat_attachments.insert(conn, org_id=principal.org_id, user_id=principal.user_id, item=item)
        try:
            await self._runner.contexts.blobs(principal).put(chat_attachments.original_of(item), upload.path)
            return await self._arrived(principal, item, text, request_id=request_id)
        except BaseException:
            await asyncio.shield(self._forget(principal, session_id, item.id))
            raise

    async def of_session(self, principal: Principal, session_id: UUID) -> list[Attachment]:
        """In the order they came. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, session_id)
            return await chat_attachments.find(conn, session_id=session_id)

    async def get(self, principal: Principal, session_id: UUID, attachment_id: UUID) -> ReadAttachment:
        """One with what was read in it. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, session_id)
            attachment = await _require(conn, session_id, attachment_id)
            texts = await chat_attachments.texts(conn, session_id=session_id, ids=[attachment_id])
        return ReadAttachment(attachment=attachment, text=texts.get(attachment_id))

    async def original(self, principal: Principal, attachment: Attachment) -> bytes:
        """The file as it was sent, for a model that sees. Raises NotFound."""
        return await self._runner.contexts.blobs(principal).get(chat_attachments.original_of(attachment))

    async def read(
        self, principal: Principal, session_id: UUID, ids: Sequence[UUID], *, within_s: float = WAIT_S
    ) -> list[ReadAttachment]:
        """These attachments in the order given, waiting for those that are still being read; deleted ones are left
        out. Raises NotFound for the session, Conflict when one is not read in time."""
        until = time.monotonic() + within_s
        while True:
            async with self._db.tenant(principal) as conn:
                await require(conn, session_id)
                found = {one.id: one for one in await chat_attachments.find(conn, session_id=session_id, ids=ids)}
                if all(one.state in ("done", "failed") for one in found.values()):
                    texts = await chat_attachments.texts(conn, session_id=session_id, ids=ids)
                    return [ReadAttachment(attachment=found[i], text=texts.get(i)) for i in ids if i in found]
            if time.monotonic() >= until:
                raise Conflict("an attachment is still being read", hint="ask again when its state is done")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def delete(self, principal: Principal, session_id: UUID, attachment_id: UUID) -> None:
        """Delete an attachment; messages that name it stay. Raises NotFound, Forbidden for another's session."""
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            await _require(conn, session_id, attachment_id)
        await self._runner.contexts.blobs(principal).delete_prefix(
            chat_attachments.folder_of(session_id, attachment_id)
        )
        async with self._db.tenant(principal) as conn:
            await chat_attachments.delete(conn, session_id=session_id, attachment_id=attachment_id)

    async def process(self, principal: Principal, session_id: UUID, attachment_id: UUID, *, request_id: str) -> None:
        """The job: read what is not read yet. Raises what a retry can mend; stores as failure what it can't."""
        async with self._db.tenant(principal) as conn:
            found = await chat_attachments.find(conn, session_id=session_id, ids=[attachment_id], lock=True)
            if not found or found[0].state in ("done", "failed"):
                return
            attachment = found[0]
            await chat_attachments.start_attempt(conn, attachment_id)
        last = attachment.attempts + 1 >= MAX_STARTS
        try:
            text = await self._read(principal, attachment, request_id=request_id)
        except NeuroEdgeError as error:
            if error.retryable and not last:
                raise
            await self._fail(principal, attachment, error)
            return
        except Exception:
            if not last:
                raise
            log.exception("attachment_failed", attachment_id=str(attachment_id))
            await self._fail(principal, attachment, NeuroEdgeError(f"reading failed (request {request_id})"))
            return
        async with self._db.tenant(principal) as conn:
            there = await chat_attachments.finish(conn, attachment_id, text=text)
        if there:
            await self._tell(principal, attachment, "attachment.done")

    async def _parsed(self, upload: Upload) -> tuple[Parsed, list[Block]]:
        """What the file is, and its text as far as no engine is needed. Raises what reading raises."""
        out = upload.path.with_name("blocks")
        await asyncio.to_thread(out.touch)  # an image has none
        parsed = await self._parser.parse(upload.path, upload.filename, out)
        if parsed.characters > MAX_CHARACTERS:
            raise _too_long(parsed.characters)
        if self._page_reader is None and (parsed.kind == "image" or (parsed.kind == "text" and not parsed.characters)):
            raise UnsupportedMedia(
                "the file holds no text, and no OCR engine is installed",
                hint="send a document with text, or ask the operator for an OCR engine",
            )
        data = await asyncio.to_thread(out.read_bytes)
        return parsed, await asyncio.to_thread(lambda: list(read_blocks(data)))

    async def _arrived(
        self, principal: Principal, item: NewAttachment, text: str | None, *, request_id: str
    ) -> Attachment:
        """The object is stored: keep the text, or have it read."""
        async with self._db.tenant(principal) as conn:
            if not await chat_attachments.stored(conn, item.id):
                raise NotFound("the session was deleted meanwhile", hint="begin another one")
            if text is not None:
                await chat_attachments.finish(conn, item.id, text=text)
            else:
                await self._queue.defer(
                    conn,
                    READ_TASK,
                    lock=f"chat_attachment:{item.id}",
                    args={
                        "session_id": str(item.session_id),
                        "attachment_id": str(item.id),
                        "org_id": str(principal.org_id),
                        "user_id": str(principal.user_id),
                        "username": principal.username,
                        "role": principal.role,
                        "request_id": request_id,
                    },
                    # Long sound must not keep short tasks waiting.
                    queue=JOB_QUEUE if item.kind == "audio" else TASK_QUEUE,
                )
            return await _require(conn, item.session_id, item.id)

    async def _read(self, principal: Principal, attachment: Attachment, *, request_id: str) -> str:
        if attachment.kind == "audio":
            text = await self._heard(principal, attachment, request_id=request_id)
        else:
            text = await self._seen(principal, attachment, request_id=request_id)
        if len(text) > MAX_CHARACTERS:
            raise _too_long(len(text))
        return text

    async def _heard(self, principal: Principal, attachment: Attachment, *, request_id: str) -> str:
        """What was said, each piece with its minute and second."""
        payload = {"audio": AudioSource(blob=chat_attachments.original_of(attachment)).model_dump(exclude_none=True)}
        answer: Any = await self._runner.run("transcription", payload, principal=principal, request_id=request_id)
        return "\n".join(f"[{_clock(piece.start_s)}] {piece.text.strip()}" for piece in answer.segments)

    async def _seen(self, principal: Principal, attachment: Attachment, *, request_id: str) -> str:
        """What stands in an image, or in a document with scanned pages."""
        if self._page_reader is None:
            raise UnsupportedMedia("no OCR engine is installed", hint="send a document with text")
        reader = self._page_reader(principal, request_id)
        data = await self.original(principal, attachment)
        if attachment.kind == "image":
            return _text(await reader.read(data, page=None))
        with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
            path, out, drawn = (Path(folder) / name for name in ("upload", "blocks", "page.png"))
            await asyncio.to_thread(path.write_bytes, data)
            await self._parser.parse(path, attachment.filename, out)
            blocks = list(read_blocks(await asyncio.to_thread(out.read_bytes)))
            for page in attachment.unread_pages:
                await self._parser.picture(path, drawn, page=page)
                blocks += await reader.read(await asyncio.to_thread(drawn.read_bytes), page=page)
        return _text(sorted(blocks, key=lambda block: block.page or 0))

    async def _fail(self, principal: Principal, attachment: Attachment, error: NeuroEdgeError) -> None:
        async with self._db.tenant(principal) as conn:
            there = await chat_attachments.fail(
                conn, attachment.id, code=error.code, detail=error.detail, hint=error.hint
            )
        if there:
            await self._tell(principal, attachment, "attachment.failed")

    async def _tell(self, principal: Principal, attachment: Attachment, name: str) -> None:
        told = {"attachment_id": str(attachment.id)}
        await self._progress.publish(principal.org_id, attachment.session_id, name, told)

    async def _forget(self, principal: Principal, session_id: UUID, attachment_id: UUID) -> None:
        """Undo an upload; what cannot be undone now, the sweep does."""
        folder = chat_attachments.folder_of(session_id, attachment_id)
        await forget_blobs(self._runner.contexts.blobs(principal), folder)
        try:
            async with self._db.tenant(principal) as conn:
                await chat_attachments.delete(conn, session_id=session_id, attachment_id=attachment_id)
        except NeuroEdgeError as error:
            log.warning("attachment_not_deleted", attachment_id=str(attachment_id), detail=error.detail)


async def _require(conn: Connection, session_id: UUID, attachment_id: UUID) -> Attachment:
    found = await chat_attachments.find(conn, session_id=session_id, ids=[attachment_id])
    if not found:
        raise NotFound(f"no attachment {attachment_id}", hint="GET /v1/sessions/{id}/attachments lists them")
    return found[0]


def _text(blocks: Sequence[Block]) -> str:
    """Blocks as Markdown, with the pages they stand on."""
    parts, page = list[str](), None
    for block in blocks:
        if block.page is not None and block.page != page:
            page = block.page
            parts.append(f"[page {page}]")
        parts.append(f"{'#' * (block.level or 1)} {block.text}" if block.type == "heading" else block.text)
    return "\n\n".join(parts)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _too_long(characters: int) -> TooLarge:
    return TooLarge(
        f"the file has {characters} characters of text; an attachment may have {MAX_CHARACTERS}",
        hint="POST /v1/documents takes larger files, and their passages are found by the assistant",
    )
