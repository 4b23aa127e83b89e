"""What crashes leave of chats: answers that never ended, uploads that never arrived, objects without a session."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from neuroedge.services.chat.asking import INTERRUPTED
from neuroedge.services.chat.progress import SessionProgress, tell
from neuroedge.services.housekeeping import in_each, service_principal
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import chat_attachments, chat_messages, chat_sessions
from neuroedge.stores.chat_messages import Body, Message
from neuroedge.stores.postgres import Database

ABANDONED: Final = timedelta(hours=1)
"""An answer or an upload that takes longer was cut off with its process."""
_AT_ONCE: Final = 200


class ChatSweep:
    """Ends and deletes it, in every organisation."""

    def __init__(self, *, db: Database, runner: EngineRunner, progress: SessionProgress) -> None:
        self._db = db
        self._runner = runner
        self._progress = progress

    async def run(self) -> int:
        """How many answers, uploads and folders."""
        before = datetime.now(UTC) - ABANDONED
        async with self._db.unbound() as conn:
            organisations = await chat_sessions.organisations_with_unfinished(conn, before)

        async def of(org_id: UUID) -> int:
            return await self._end_answers(org_id, before) + await self._delete_uploads(org_id, before)

        return await in_each(organisations, of) + await self._delete_orphans()

    async def _end_answers(self, org_id: UUID, before: datetime) -> int:
        ended = list[Message]()
        async with self._db.tenant(service_principal(org_id), sees_all=True) as conn:
            for message in await chat_messages.abandoned(conn, before, limit=_AT_ONCE):
                body = Body(content=message.content, attachments=message.attachments, error=INTERRUPTED)
                if await chat_messages.finish(conn, message.id, body=body, state="failed"):
                    ended.append(replace(message, state="failed"))
        for message in ended:
            await tell(self._progress, org_id, message)
        return len(ended)

    async def _delete_uploads(self, org_id: UUID, before: datetime) -> int:
        principal = service_principal(org_id)
        blobs = self._runner.contexts.blobs(principal)
        async with self._db.tenant(principal, sees_all=True) as conn:
            left = await chat_attachments.abandoned(conn, before, limit=_AT_ONCE)
        for session_id, attachment_id in left:
            # The row last: as long as it is there, the next sweep finds the object.
            await blobs.delete_prefix(chat_attachments.folder_of(session_id, attachment_id))
            async with self._db.tenant(principal, sees_all=True) as conn:
                await chat_attachments.delete(conn, session_id=session_id, attachment_id=attachment_id)
        return len(left)

    async def _delete_orphans(self) -> int:
        contexts = self._runner.contexts
        return await sweep_orphans(self._db, contexts, chat_attachments.FOLDER, exist=chat_sessions.exist)
