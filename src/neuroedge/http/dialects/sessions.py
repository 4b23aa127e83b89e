"""What the dialects share: the session a question belongs to."""

from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.http.platform import Platform
from neuroedge.services.chat.asking import Asked, Question


async def begun(
    platform: Platform,
    principal: Principal,
    session_id: UUID | None,
    question: Question,
    *,
    request_id: str,
    idempotency_key: str | None = None,
) -> Asked:
    """The question in its session; in a new one where none is named. Raises as Assistant.begin does."""
    if session_id is None:
        session_id = (await platform.chats.create(principal, request_id=request_id)).id
    return await platform.assistant.begin(
        principal, session_id, question, request_id=request_id, idempotency_key=idempotency_key
    )
