"""The messages of the protocol, on the channels of the NeMo dialect."""

from datetime import UTC, datetime

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

log = structlog.get_logger(__name__)

PAUSE = "pause_transcription"
PAUSED = "transcription_paused"
RESUME = "resume_transcription"
RESUMED = "transcription_resumed"


class Message(BaseModel):
    """A message of any of the channels. Every field is optional, unknown ones are ignored.

    NeMo components send `task_id`, `reason`, `status` and `timestamp`; the other fields are NeuroEdge's. A request
    with a `token` comes from a holder of the lease, one without from a foreign component.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    task_id: str | None = None
    """What the device is wanted for; a resume names the same."""
    reason: str | None = None
    """Who wants it, for logs."""
    status: str | None = None
    """Of an answer: paused, failed or resumed."""
    timestamp: str | None = None
    """ISO 8601, for people; nothing is computed from it."""
    device: str | None = None
    """Which device; absent: the one device the sender knows of."""
    token: int | None = None
    """The lease's fencing token."""
    process: str | None = None
    """The process that sent it."""

    def encode(self) -> bytes:
        """As published: JSON without the absent fields, stamped now."""
        stamped = self.model_copy(update={"timestamp": datetime.now(UTC).isoformat()})
        return stamped.model_dump_json(exclude_none=True).encode()


def decode(channel: str, body: bytes) -> Message | None:
    """The message, an empty one for an empty body; None, with a line in the log, for what is none."""
    try:
        return Message.model_validate_json(body) if body else Message()
    except ValidationError as error:
        reasons = [detail["msg"] for detail in error.errors(include_url=False, include_input=False)]
        log.warning("accelerator_message_ignored", channel=channel, size_bytes=len(body), reasons=reasons[:3])
        return None
