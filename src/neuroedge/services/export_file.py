"""The file of an export: a ZIP of JSON lines, one file for each kind of thing, in the clear."""

import asyncio
import zipfile
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
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
files       names and purposes of what applications keep
images      what was said of them
voices      people whose voices you enrolled, with consent; voiceprints are their vectors (float32, base64)
learners    with the history of consent; learner_events hold what each one did (the whole organisation's exports)
trained_…   cards of the models that you trained: columns, figures on rows held out
tasks       with payload and result
batch_…     bulk jobs; batch_items hold the payload and the outcome of each call
usage       calls of engines
llm_calls   calls to language models: tokens, cost, how they ended
audit       what was done
artifact_…  every version; `blob` names the file here that holds a large one's content
safety_…    what the safety policy did about texts
reviews     texts for reviewers, with what became of them
chat_…      sessions, messages with what was thought of them, and texts of attachments

The files that were sent are not in here.
"""


async def write_export(
    db: Database, blobs: TenantBlobs, service: Principal, order: Export, path: Path
) -> dict[str, int]:
    """Write it; how many of each kind are in it. Memory does not grow with the amount."""
    counts = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README.txt", _READ_ME)
        async with db.tenant(service, sees_all=True) as conn:
            accounts = await privacy.accounts_of(conn, org_id=service.org_id, user_id=order.user_id)
        file.writestr("accounts.jsonl", b"".join(to_json(account) + b"\n" for account in accounts))
        counts["accounts"] = len(accounts)
        for table in EXPORTED:
            counts[table], large = await _write(db, service, order, table, file)
            for blob in large:
                file.writestr(blob, await blobs.get(blob))
        file.writestr("manifest.json", to_json({"export": order.id, "user": order.user_id, "counts": counts}))
    return counts


async def _write(
    db: Database, service: Principal, order: Export, table: str, file: zipfile.ZipFile
) -> tuple[int, list[str]]:
    """How many rows, and which objects hold what was too large for one."""
    count, lines, large = 0, list[bytes](), list[str]()
    # One transaction for a table: what is read in it belongs together.
    async with db.tenant(service, sees_all=True) as conn:
        with file.open(f"{table}.jsonl", "w") as target:
            async for row in privacy.rows(conn, table, org_id=service.org_id, user_id=order.user_id, batch=_BATCH):
                if table == "artifact_versions" and row["blob"]:
                    large.append(row["blob"])
                lines.append(to_json(row) + b"\n")
                count += 1
                if len(lines) == _BATCH:
                    await asyncio.to_thread(target.write, b"".join(lines))
                    lines.clear()
            await asyncio.to_thread(target.write, b"".join(lines))
    return count, large
