"""What an organisation must allow on purpose before the platform does it, and the terms its recordings are heard with.

A switch is off until a manager of the organisation switches it on, and says what for where the law asks that; every
change is kept and audited.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.ports import VOICE_EMOTION
from neuroedge.contract.principal import Principal
from neuroedge.stores import ledgers, switches
from neuroedge.stores.postgres import Database
from neuroedge.stores.switches import KNOWLEDGE_EXTRACTION, SwitchRow

Name = Literal["voice_emotion", "knowledge_extraction"]
Ground = Literal["medical", "safety", "other"]
MEANING: Final[dict[str, str]] = {
    VOICE_EMOTION: (
        "How activated a voice sounds is inferred from recordings. The EU AI Act, Art. 5(1)(f), prohibits inferring"
        " emotions of people at work or in education from their voice, but for medical or safety reasons."
    ),
    KNOWLEDGE_EXTRACTION: (
        "Documents and memories are read into the knowledge graph by themselves, in the background, when they arrive or"
        " change; else only on POST /v1/knowledge/extract, or for a document sent with extract=true."
    ),
}
"""Every switch there is, and what switching it on means."""
_WITH_GROUND: Final = frozenset({VOICE_EMOTION})
"""Switches that need a purpose and a ground."""
MAX_TERMS: Final = 50
HISTORY: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch as it stands; the last four are None while nobody ever changed it."""

    name: str
    allowed: bool
    meaning: str
    purpose: str | None
    ground: str | None
    changed_by: UUID | None
    changed_at: datetime | None


class Switches:
    """Switches and glossary of the caller's organisation."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def show(self, principal: Principal) -> tuple[list[Switch], list[SwitchRow]]:
        """Every switch as it stands, and the latest changes, newest first."""
        async with self._db.tenant(principal) as conn:
            found = await switches.in_force(conn, org_id=principal.org_id)
            history = await switches.history(conn, org_id=principal.org_id, limit=HISTORY)
        return [_switch(name, found.get(name)) for name in MEANING], history

    async def set(
        self,
        principal: Principal,
        name: Name,
        *,
        allowed: bool,
        purpose: str | None,
        ground: Ground | None,
        request_id: str,
    ) -> Switch:
        """Switch on or off. Raises InvalidInput when one that needs it is switched on without saying what for."""
        if allowed and name in _WITH_GROUND and (not purpose or not ground):
            raise InvalidInput(
                "switching this on needs a purpose and a ground",
                hint=MEANING[name],
                errors=[
                    {"loc": ("body", field), "msg": "needed to switch it on", "type": "missing"}
                    for field, given in (("purpose", purpose), ("ground", ground))
                    if not given
                ],
            )
        async with self._db.tenant(principal) as conn:
            row = await switches.set_switch(
                conn,
                org_id=principal.org_id,
                name=name,
                allowed=allowed,
                purpose=purpose,
                ground=ground,
                changed_by=principal.user_id,
            )
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="switch.allowed" if allowed else "switch.forbidden",
                target=f"switch:{name}",
            )
        return _switch(name, row)

    async def glossary(self, principal: Principal) -> list[str]:
        """Terms every recording of the organisation is heard with."""
        async with self._db.tenant(principal) as conn:
            return await switches.glossary(conn, org_id=principal.org_id)

    async def set_glossary(self, principal: Principal, terms: list[str], *, request_id: str) -> list[str]:
        """Replace them; repeated ones count once."""
        kept = list(dict.fromkeys(terms))
        async with self._db.tenant(principal) as conn:
            await switches.set_glossary(conn, org_id=principal.org_id, terms=kept, changed_by=principal.user_id)
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="glossary.set",
                target="glossary",
            )
        return kept


def _switch(name: str, row: SwitchRow | None) -> Switch:
    return Switch(
        name=name,
        allowed=row is not None and row.allowed,
        meaning=MEANING[name],
        purpose=row.purpose if row else None,
        ground=row.ground if row else None,
        changed_by=row.changed_by if row else None,
        changed_at=row.changed_at if row else None,
    )
