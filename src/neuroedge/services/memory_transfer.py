"""Memories in bulk, a JSON object a line: in, with a result for every line, and out in the same form.

An import can be sent again: a line with an `external_id` (or the `id` of an export) is remembered once a user, because
its memory's id is a keyed hash of it. Neither direction holds more than a batch in memory.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal
from uuid import UUID

from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, TooLarge
from neuroedge.contract.ports import Memory, MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.services.memory import Embedded, MemoryService, audit, check_time, new_memory
from neuroedge.services.memory_drafts import EXTERNAL_ID, Line
from neuroedge.stores import memories, memory_lists
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database

MAX_LINE_BYTES: Final = 1 << 20
BATCH: Final = 64
PAGE: Final = 200
_HINT: Final = "a line is an object like the body of POST /v1/memories, with an external_id if you like"
MAX_HELD: Final = 10_000
"""Results of failed lines that are held back while it is not sure yet whether any line is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineResult:
    """What became of a line."""

    line: int
    """From 1."""
    status: Literal["created", "exists", "failed"]
    id: UUID | None = None
    external_id: str | None = None
    error: NeuroEdgeError | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A line as it was read."""

    number: int
    line: Line | None
    error: NeuroEdgeError | None = None


class MemoryTransfer:
    """Import and export of what the caller may see."""

    def __init__(self, *, db: Database, memory: MemoryService) -> None:
        self._db = db
        self._memory = memory

    async def import_lines(
        self, principal: Principal, path: Path, *, request_id: str
    ) -> AsyncGenerator[LineResult, None]:
        """Remember the lines of a file, batch by batch; lines without anything are skipped.

        A bad line has its error and the others go on. When no line at all could be taken in, it is the first one's
        error that is raised. An outage ends the import with its error: what was told as created is stored.
        """
        held: list[LineResult] = []
        good = created = False
        file = await asyncio.to_thread(path.open, "rb")
        try:
            lines = read_lines(file)
            while batch := await asyncio.to_thread(_next_batch, lines):
                results = await self._store(principal, batch, request_id)
                created = created or any(result.status == "created" for result in results)
                good = good or any(result.status != "failed" for result in results) or len(held) > MAX_HELD
                held += results
                if good:
                    for result in held:
                        yield result
                    held = []
        finally:
            file.close()
            if created:  # before it broke off, too
                await self._memory.changed(principal, request_id=request_id)
        if not good:
            raise _nothing(held)

    async def export(
        self, principal: Principal, *, where: MemoryFilter, request_id: str
    ) -> AsyncGenerator[bytes, None]:
        """Every memory the caller may see, a JSON object a line, the latest first."""
        before: tuple[datetime, UUID] | None = None
        async with self._db.tenant(principal) as conn:
            await audit(conn, principal, request_id, "memory.exported", "memories")
        while True:
            page = await self._memory.page(principal, limit=PAGE, before=before, where=where)
            for memory in page:
                yield flat(memory)
            if len(page) < PAGE:
                return
            before = (page[-1].occurred_at, page[-1].id)

    async def _store(self, principal: Principal, batch: Sequence[_Read], request_id: str) -> list[LineResult]:
        """Remember the new ones of a batch, all or none; what became of each line, in order."""
        cipher = (await self._db.known(principal.org_id)).cipher
        done = {r.number: LineResult(line=r.number, status="failed", error=r.error) for r in batch if r.error}
        ids: dict[int, UUID] = {}
        named: dict[UUID, int] = {}
        for read in batch:
            if read.line is None:
                continue
            name = read.line.name()
            ids[read.number] = memory_id = id_of(cipher, principal.user_id, name) if name else new_id()
            named.setdefault(memory_id, read.number)
        lines = {read.number: read.line for read in batch if read.line is not None}
        known = await self._known(principal, lines, ids)
        fresh = [n for n in lines if n not in known and named[ids[n]] == n]
        created: set[int] = set()
        if fresh:
            embedded = await self._memory.embed(
                [lines[n].content for n in fresh], principal=principal, request_id=request_id
            )
            try:
                created = await self._insert(principal, lines, ids, dict(zip(fresh, embedded, strict=True)), request_id)
            except InvalidInput as error:
                # One of them has what no column takes: each for itself then, so that only that one fails.
                if len(fresh) == 1:
                    done[fresh[0]] = LineResult(line=fresh[0], status="failed", error=error)
                else:
                    parts = [await self._store(principal, [read], request_id) for read in batch]
                    return [result for part in parts for result in part]
        for number, line in lines.items():
            if number not in done:
                status: Literal["created", "exists"] = "created" if number in created else "exists"
                done[number] = LineResult(
                    line=number, status=status, id=known.get(number, ids[number]), external_id=line.name()
                )
        return [done[number] for number in sorted(done)]

    async def _known(self, principal: Principal, lines: dict[int, Line], ids: dict[int, UUID]) -> dict[int, UUID]:
        """Lines that were remembered before: by an import, or as the memory an export gave."""
        exported = {n: _uuid(line.id) for n, line in lines.items()}
        wanted = [*ids.values(), *(i for i in exported.values() if i is not None)]
        async with self._db.tenant(principal) as conn:
            there = await memory_lists.present(conn, org_id=principal.org_id, ids=wanted)
        found: dict[int, UUID] = {}
        for number in lines:
            for memory_id in (ids[number], exported.get(number)):
                if memory_id in there:
                    found.setdefault(number, memory_id)
        return found

    async def _insert(
        self,
        principal: Principal,
        lines: dict[int, Line],
        ids: dict[int, UUID],
        embedded: dict[int, Embedded],
        request_id: str,
    ) -> set[int]:
        """Store those nobody stored in the meantime; their numbers."""
        async with self._db.tenant(principal) as conn:
            await memories.wait_for_writers(conn, org_id=principal.org_id)
            there = await memory_lists.present(conn, org_id=principal.org_id, ids=[ids[n] for n in embedded])
            fresh = [n for n in embedded if ids[n] not in there]
            await memories.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                items=[new_memory(_named(lines[n]), embedded[n]) for n in fresh],
                ids=[ids[n] for n in fresh],
            )
            await audit(conn, principal, request_id, "memory.imported", "memories", {"memories": len(fresh)})
        return set(fresh)


def id_of(cipher: Cipher, user_id: UUID, name: str) -> UUID:
    """The id of the memory a user calls `name`: the same each time, and nothing of the name in it."""
    halves = [cipher.blind(f"external:{user_id}:{half}:{name}") for half in (0, 1)]
    value = (halves[0] << 64) | halves[1]
    # RFC 9562: version 8 is of one's own making.
    value = value & ~(0xF << 76) | (0x8 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=value)


def flat(memory: Memory) -> bytes:
    """A memory as a line of an export, which is a line of an import too."""
    external_id = memory.metadata.get(EXTERNAL_ID)
    said = {
        "id": str(memory.id),
        "external_id": external_id if isinstance(external_id, str) else str(memory.id),
        "content": memory.content,
        "title": memory.title,
        "tags": memory.tags,
        "keywords": memory.keywords,
        "memory_type": memory.memory_type,
        "metadata": memory.metadata,
        "source": memory.source,
        "visibility": memory.visibility,
        "importance": memory.importance,
        "occurred_at": memory.occurred_at.isoformat(),
        "expires_at": memory.expires_at.isoformat() if memory.expires_at else None,
        "recording_id": str(memory.recording_id) if memory.recording_id else None,
        "document_id": str(memory.document_id) if memory.document_id else None,
        "position": memory.position,
        "created_at": memory.created_at.isoformat(),
        "updated_at": memory.updated_at.isoformat(),
    }
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


def read_lines(file: BinaryIO) -> Iterator[_Read]:
    """Each line that holds something, checked; none of them is ever held beyond MAX_LINE_BYTES."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            hint = "split the text; a memory holds 20000 characters"
            yield _Read(number, None, TooLarge(f"the line is longer than {MAX_LINE_BYTES} bytes", hint=hint))
        elif raw.strip():
            yield _checked(number, raw)


def _checked(number: int, raw: bytes) -> _Read:
    try:
        line = Line.model_validate(json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8")))
        check_time(line.expires_at)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        return _Read(number, None, InvalidInput(_told(wrong), hint=_HINT, errors=wrong))
    except UnicodeDecodeError:
        return _Read(number, None, InvalidInput("the line is no text in UTF-8", hint="convert the file to UTF-8"))
    except (ValueError, RecursionError):
        return _Read(number, None, InvalidInput("the line is no JSON object", hint=_HINT))
    except InvalidInput as error:
        return _Read(number, None, error)
    return _Read(number, line)


def _told(wrong: Sequence[Any]) -> str:
    first = wrong[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"


def _next_batch(lines: Iterator[_Read]) -> list[_Read]:
    """At most BATCH lines."""
    return list(islice(lines, BATCH))


def _named(line: Line) -> Line:
    """The line with its name where a search finds it."""
    if line.external_id is None:
        return line
    return line.model_copy(update={"metadata": {**line.metadata, EXTERNAL_ID: line.external_id}})


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _nothing(results: Sequence[LineResult]) -> NeuroEdgeError:
    """The error of an import of which nothing could be taken in."""
    if not results or results[0].error is None:
        return InvalidInput("the file has no line", hint=_HINT)
    first = results[0].error
    detail = f"line {results[0].line}: {first.detail}"
    if isinstance(first, InvalidInput):
        return InvalidInput(detail, hint=first.hint, errors=first.errors)
    return type(first)(detail, hint=first.hint)
