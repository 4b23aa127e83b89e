"""The last steps of a recording over a real database, with an encoder under the test's control."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.telemetry import Metrics
from neuroedge.services import recording_steps
from neuroedge.services.recording_process import RecordingProcess
from neuroedge.services.recording_progress import RecordingProgress
from neuroedge.stores import recordings
from neuroedge.stores.postgres import Database
from neuroedge.stores.recordings import Recording
from tests.services.echo_engine import Stream
from tests.services.test_recording_steps import recording
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
SAID = ("hello there", "good bye")


class Encoder:
    """The runner's part: vectors by a model that may be another one from call to call."""

    def __init__(self, db: Database, *models: str, switched: bool = False) -> None:
        """`switched`: the organisation is searched with the model `new` from the first call on."""
        self._db = db
        self._models = list(models)
        self._switched = switched
        self.calls = 0

    async def run(self, name: str, payload: dict[str, Any], *, principal: Principal, **_: Any) -> Any:
        """Embed."""
        assert name == "embedding"
        self.calls += 1
        if self._switched:
            async with self._db.tenant(principal) as conn:
                await conn.execute("UPDATE organisations SET embedding_model = 'new' WHERE id = %s", [principal.org_id])
        vectors = np.eye(384, dtype=np.float32)[: len(payload["texts"])].tolist()
        answer = {"vectors": vectors, "model": self._models.pop(0)}
        return SimpleNamespace(model_dump=lambda mode: answer)


async def _heard(db: Database, caller: Principal) -> Recording:
    """A recording of which all is known but its memories."""
    made = replace(recording(), user_id=caller.user_id, status="queued")
    segments = [
        {"speaker": "S1", "start_s": n, "end_s": n + 1, "text": text, "confidence": 0.9, "words": []}
        for n, text in enumerate(SAID)
    ]
    outputs = {
        "analyse": {"duration_s": 2.0},
        "transcribe": {"segments": [], "language": "en"},
        "diarize": {"segments": segments, "turns": []},
        "identify": {"speakers": []},
        "emotion": {"segments": [{} for _ in SAID]},
    }
    async with db.tenant(caller) as conn:
        await recordings.insert(conn, org_id=caller.org_id, recording=made)
        for step, output in outputs.items():
            await recordings.save_step(
                conn, org_id=caller.org_id, recording_id=made.id, step=step, output=output, seconds=0.1
            )
    return made


async def _run(db: Database, caller: Principal, made: Recording, encoder: Encoder) -> tuple[str, dict[str, int]]:
    """Where the recording then stands, and how many vectors there are by each model."""
    progress = RecordingProgress(db=db, events=cast(Any, Stream()))
    process = RecordingProcess(db=db, runner=cast(Any, encoder), progress=progress, metrics=Metrics())
    try:
        await process.run(caller, made.id, request_id="r")
    finally:
        async with db.tenant(caller) as conn:
            rows = await conn.execute("SELECT model, count(*) AS n FROM memory_vectors_384 GROUP BY model")
            counts = {row["model"]: row["n"] for row in await rows.fetchall()}
            found = await recordings.find(conn, made.id)
    assert found is not None
    return found.status, counts


async def test_a_model_switched_while_a_recording_is_embedded_embeds_it_anew(db: Database) -> None:
    """What nothing would find by its meaning is not stored; the next run does it with the model of then."""
    caller = await new_principal(db)
    made = await _heard(db, caller)
    with pytest.raises(Unavailable, match="searched with new"):
        await _run(db, caller, made, Encoder(db, "old", switched=True))
    assert await _run(db, caller, made, Encoder(db, "new")) == ("done", {"new": 2})


async def test_parts_by_two_models_are_not_stored(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch came between two calls of the encoder: all of it is embedded again."""
    monkeypatch.setattr(recording_steps, "_EMBED_AT_ONCE", 1)
    caller = await new_principal(db)
    made = await _heard(db, caller)
    with pytest.raises(Unavailable, match="with old, the next with new"):
        await _run(db, caller, made, Encoder(db, "old", "new"))
    encoder = Encoder(db, "new", "new")
    assert await _run(db, caller, made, encoder) == ("done", {"new": 2})
    assert encoder.calls == 2


async def test_the_model_is_asked_for_anew(db: Database) -> None:
    """What a process knows of an organisation is up to half a minute old; a recording's vectors are not."""
    caller = await new_principal(db)
    made = await _heard(db, caller)
    assert (await db.known(caller.org_id)).embedding_model is None
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE organisations SET embedding_model = 'new' WHERE id = %s", [caller.org_id])

    class Asking(Encoder):
        """Embeds with the model that is known."""

        async def run(self, name: str, payload: dict[str, Any], *, principal: Principal, **more: Any) -> Any:
            """Embed."""
            self._models = [(await db.known(principal.org_id)).embedding_model or "old"]
            return await super().run(name, payload, principal=principal, **more)

    assert await _run(db, caller, made, Asking(db)) == ("done", {"new": 2})
