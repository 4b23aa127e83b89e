"""Who is asking: the only source of a tenant anywhere in NeuroEdge."""

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

Role = Literal["owner", "admin", "member", "viewer"]

READ = "read"
WRITE = "write"
RUN_ENGINES = "engines:run"
MANAGE_ORG = "org:manage"

ROLE_PERMISSIONS: dict[Role, frozenset[str]] = {
    "owner": frozenset({READ, WRITE, RUN_ENGINES, MANAGE_ORG}),
    "admin": frozenset({READ, WRITE, RUN_ENGINES, MANAGE_ORG}),
    "member": frozenset({READ, WRITE, RUN_ENGINES}),
    "viewer": frozenset({READ}),
}


NOBODY: Final = UUID(int=0)
"""The user id of the platform itself, in whose name an organisation's own work goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller acting inside one organisation.

    `admin` is the operator of the whole installation, not an organisation's own admin.
    """

    user_id: UUID
    org_id: UUID
    username: str
    role: Role
    permissions: frozenset[str]
    admin: bool = False
    api_key_id: UUID | None = None
    """The API key the caller came with; None: an access token."""
    models: tuple[str, ...] | None = None
    """Language models the caller's key may use, the first one by default; None: any."""
    engines: frozenset[str] | None = None
    """Engines the caller's key may call by name; None: any."""

    def may(self, permission: str) -> bool:
        """Whether the caller holds `permission` in this organisation."""
        return permission in self.permissions

    def may_run(self, engine: str) -> bool:
        """Whether the caller's key, if it is one, may call this engine by name."""
        return self.engines is None or engine in self.engines
