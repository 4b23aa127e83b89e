"""A process that answers half of a question and is killed: run by test_workflow.

Reads the database and the caller as JSON from stdin, prints the id of the message, and dies after the search.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.vault import Vault
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.state import Options, State
from neuroedge.services.chat.turn import Turn
from neuroedge.services.chat.workflow import STEPS
from neuroedge.stores.postgres import Database
from tests.services.chat.assistant_bench import AssistantBench


async def _die(state: State, turn: Turn) -> State:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


async def main(told: dict[str, Any]) -> None:
    """Until the kill."""
    db = Database(told["url"], max_size=4, keys=Vault(told["key"]))
    await db.open()
    queue = JobQueue(db.pool)
    await queue.open()
    caller = Principal(
        user_id=UUID(told["user_id"]),
        org_id=UUID(told["org_id"]),
        username="u",
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )
    bench = AssistantBench(db, queue, Path(tempfile.mkdtemp()), steps={**STEPS, "intent": _die})
    await bench.remember("Sheila lives in Texas.")
    question = Question(text="Where does Sheila live?", options=Options(local_only=True))
    asked = await bench.assistant.begin(caller, UUID(told["session_id"]), question, request_id="r")
    sys.stdout.write(f"{asked.message.id}\n")
    sys.stdout.flush()
    async for _ in bench.assistant.events(asked):
        pass


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
