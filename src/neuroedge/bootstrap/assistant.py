"""The workspace assistant, from the core and the services it works with."""

from neuroedge.bootstrap.chat import ChatParts
from neuroedge.bootstrap.core import Core
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.chat.assistant import Assistant
from neuroedge.services.documents import Documents
from neuroedge.services.mcp_tools import McpTools
from neuroedge.services.safety import Safety


def assistant_of(
    core: Core,
    chats: ChatParts,
    *,
    documents: Documents,
    artifacts: Artifacts,
    safety: Safety | None,
    mcp: McpTools,
) -> Assistant:
    """Build it."""
    return Assistant(
        db=core.db,
        chats=chats.chats,
        attachments=chats.attachments,
        runner=core.runner,
        documents=documents,
        artifacts=artifacts,
        safety=safety,
        mcp=mcp,
    )
