"""Changes of a session."""

from dataclasses import dataclass, replace
from uuid import UUID

from neuroedge.contract.ports import Visibility
from neuroedge.stores.chat_sessions import Said, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChanges:
    """What to change of a session; None leaves it as it is. An empty model or system prompt removes it."""

    title: str | None = None
    model: str | None = None
    local_only: bool | None = None
    system_prompt: str | None = None
    archived: bool | None = None
    visibility: Visibility | None = None
    leaf_id: UUID | None = None
    """Show the branch of this message, down to its newest end."""

    def said(self, before: Session) -> Said:
        """What is said of the session from now on."""
        settings = before.settings
        if self.local_only is not None:
            settings = replace(settings, local_only=self.local_only)
        if self.system_prompt is not None:
            settings = replace(settings, system_prompt=self.system_prompt or None)
        return Said(
            title=before.title if self.title is None else self.title,
            model=before.model if self.model is None else self.model or None,
            settings=settings,
        )
