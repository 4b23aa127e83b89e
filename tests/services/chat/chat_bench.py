"""Chat services over the test's database and queue, with engines under the test's control."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np

from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.infra.blobs import TenantBlobs, open_store
from neuroedge.infra.documents.outcome import PageReader
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.queue import JobQueue
from neuroedge.kit.words import words
from neuroedge.services.chat.attachments import Attachments
from neuroedge.services.chat.progress import SessionProgress
from neuroedge.services.chat.search import MessageSearch
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.sweep import ChatSweep
from neuroedge.services.chat.transfer import ChatTransfer
from neuroedge.services.recordings import Upload
from neuroedge.stores.chat_messages import Message
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.infra.documents import samples

ENCODER = "words"


class Bench:
    """Everything of chats; the runner's part, and the events', are played here."""

    def __init__(self, db: Database, queue: JobQueue, folder: Path, *, reader: PageReader | None = None) -> None:
        self.db = db
        self.folder = folder
        self.contexts = self
        self.store = open_store(None, folder / "blobs")
        (folder / "tmp").mkdir(exist_ok=True)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.heard: Callable[[], Any] = list
        """What the engine `transcription` hears."""
        runner: Any = self
        events: Any = self
        self.progress = SessionProgress(db=db, events=events)
        self.chats = Chats(db=db, runner=runner, queue=queue, progress=self.progress)
        self.attachments = Attachments(
            db=db,
            runner=runner,
            queue=queue,
            progress=self.progress,
            parser=DocumentParser(),
            tmp=folder / "tmp",
            page_reader=reader and (lambda principal, request_id: reader),
        )
        self.search = MessageSearch(db=db, runner=runner)
        self.transfer = ChatTransfer(db=db, chats=self.chats)
        self.sweep = ChatSweep(db=db, runner=runner, progress=self.progress)

    async def publish(self, org_id: UUID, topic: str, name: str, data: dict[str, Any]) -> None:
        """Keep what listeners are told."""
        self.told.append((name, data))

    async def forget(self, org_id: UUID, topic: str) -> None:
        """Nothing is kept for late listeners."""

    async def organisations(self) -> list[UUID]:
        """Those with objects."""
        return [UUID(path.name) for path in (self.folder / "blobs").iterdir()]

    def blobs(self, principal: Principal) -> TenantBlobs:
        """The caller's objects."""

        async def cipher() -> Cipher:
            return (await self.db.known(principal.org_id)).cipher

        return TenantBlobs(self.store, principal.org_id, cipher=cipher, tmp=self.folder / "tmp")

    async def run(self, name: str, payload: Mapping[str, Any], *, principal: Principal, request_id: str) -> Any:
        """The engines: words as directions, the search port itself, and what the test lets be heard."""
        if name == "embedding":
            return SimpleNamespace(model=ENCODER, vectors=[_vector(text) for text in payload["texts"]])
        if name == "transcription":
            blob = await self.blobs(principal).get(payload["audio"]["blob"])
            assert blob
            return SimpleNamespace(segments=self.heard())
        assert name == "search"
        return await self._search(principal, payload)

    async def _search(self, principal: Principal, asked: Mapping[str, Any]) -> Any:
        from neuroedge.contract.ports import MemoryFilter

        where = MemoryFilter(memory_type=asked["memory_type"], metadata=asked.get("metadata"))
        found = await TenantMemories(self.db, principal).search(
            query=asked["query"],
            vector=np.asarray(_vector(asked["query"]), np.float32),
            model=ENCODER,
            limit=asked["top_k"],
            where=where,
        )
        return SimpleNamespace(
            hits=[SimpleNamespace(id=hit.id, score=hit.score, highlight=None) for hit in found.keyword]
        )

    def upload(self, data: bytes | str, name: str) -> Upload:
        """A file as the route hands it over."""
        folder = self.folder / "tmp" / new_id().hex
        folder.mkdir()
        path = samples.written(folder, "upload", data)
        return Upload(path=path, filename=name, bytes=path.stat().st_size)

    def files(self) -> list[Path]:
        """Everything in the blob store."""
        return [path for path in (self.folder / "blobs").rglob("*") if path.is_file()]

    async def jobs(self, task: str) -> list[dict[str, Any]]:
        """Arguments of the waiting jobs of one kind, the oldest first."""
        async with self.db.unbound() as conn:
            cursor = await conn.execute(
                "SELECT args FROM procrastinate_jobs WHERE task_name = %s AND status = 'todo' ORDER BY id", [task]
            )
            return [row["args"] for row in await cursor.fetchall()]

    async def turn(self, caller: Principal, session_id: UUID, question: str, answer: str) -> tuple[Message, Message]:
        """A question at the end of the active branch, and its answer."""
        session = await self.chats.get(caller, session_id)
        asked = await self.chats.append(caller, session_id, parent_id=session.leaf_id, role="user", content=question)
        begun = await self.chats.append(
            caller, session_id, parent_id=asked.id, role="assistant", content="", state="running"
        )
        return asked, await self.chats.finish(caller, begun.id, content=answer)


def _vector(text: str) -> list[float]:
    vector = np.zeros(384, np.float32)
    for word in words(text):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 384] += 1
    vector[0] += 0.01
    return list((vector / np.linalg.norm(vector)).tolist())
