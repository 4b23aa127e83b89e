"""What a caller did to something, for the audit ledger."""

from collections.abc import Mapping
from typing import Any

from neuroedge.contract.principal import Principal
from neuroedge.stores import ledgers
from neuroedge.stores.postgres import Connection


async def audited(
    conn: Connection,
    principal: Principal,
    *,
    request_id: str,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add it in the transaction in which it was done; `target` is "kind:id"."""
    await ledgers.add_audit(
        conn,
        org_id=principal.org_id,
        user_id=principal.user_id,
        request_id=request_id,
        action=action,
        target=target,
        detail=detail,
    )
