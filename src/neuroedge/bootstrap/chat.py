"""Conversations: sessions with their messages, attachments, search and transfer."""

from dataclasses import dataclass

from neuroedge.bootstrap.content import page_reader_of
from neuroedge.bootstrap.content_ports import parse_limits
from neuroedge.bootstrap.core import Core
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.services.chat.attachments import Attachments
from neuroedge.services.chat.progress import SessionProgress
from neuroedge.services.chat.search import MessageSearch
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.sweep import ChatSweep
from neuroedge.services.chat.transfer import ChatTransfer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatParts:
    """Everything of chats but what answers."""

    chats: Chats
    attachments: Attachments
    search: MessageSearch
    transfer: ChatTransfer
    progress: SessionProgress
    sweep: ChatSweep


def chats_of(core: Core) -> ChatParts:
    """Build them."""
    db, runner, queue = core.db, core.runner, core.queue
    progress = SessionProgress(db=db, events=core.events)
    chats = Chats(db=db, runner=runner, queue=queue, progress=progress)
    attachments = Attachments(
        db=db,
        runner=runner,
        queue=queue,
        progress=progress,
        parser=DocumentParser(limits=parse_limits(core.settings), at_once=2),
        tmp=core.tmp,
        page_reader=page_reader_of(runner, core.pool),
    )
    return ChatParts(
        chats=chats,
        attachments=attachments,
        search=MessageSearch(db=db, runner=runner),
        transfer=ChatTransfer(db=db, chats=chats),
        progress=progress,
        sweep=ChatSweep(db=db, runner=runner, progress=progress),
    )
