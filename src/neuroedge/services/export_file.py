"""The file of an export: a ZIP of JSON lines, one file for each kind of thing, in the clear."""

import asyncio
import zipfile
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from neuroedge.contract.principal import Principal
from neuroedge.stores import privacy
from neuroedge.stores.postgres import Database
from neuroedge.stores.privacy import EXPORTED, Export

_BATCH: Final = 500
_READ_ME: Final = """\
One JSON object a line.

accounts    who
memories    what is remembered; passages of documents too, by document_id and position
recordings  what was said of them; segments hold who said what and when
documents   what was said of them
tasks       with payload and result
usage       calls of engines
audit       what was done

The files that were sent are not in here.
"""


async def write_export(db: Database, service: Principal, order: Export, path: Path) -> dict[str, int]:
    """Write it; how many of each kind are in it. Memory does not grow with the amount."""
    counts = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README.txt", _READ_ME)
        async with db.tenant(service, sees_all=True) as conn:
            accounts = await privacy.accounts_of(conn, org_id=service.org_id, user_id=order.user_id)
        file.writestr("accounts.jsonl", b"".join(to_json(account) + b"\n" for account in accounts))
        counts["accounts"] = len(accounts)
        for table in EXPORTED:
            counts[table] = await _write(db, service, order, table, file)
        file.writestr("manifest.json", to_json({"export": order.id, "user": order.user_id, "counts": counts}))
    return counts


async def _write(db: Database, service: Principal, order: Export, table: str, file: zipfile.ZipFile) -> int:
    count, lines = 0, list[bytes]()
    # One transaction for a table: what is read in it belongs together.
    async with db.tenant(service, sees_all=True) as conn:
        with file.open(f"{table}.jsonl", "w") as target:
            async for row in privacy.rows(conn, table, org_id=service.org_id, user_id=order.user_id, batch=_BATCH):
                lines.append(to_json(row) + b"\n")
                count += 1
                if len(lines) == _BATCH:
                    await asyncio.to_thread(target.write, b"".join(lines))
                    lines.clear()
            await asyncio.to_thread(target.write, b"".join(lines))
    return count
