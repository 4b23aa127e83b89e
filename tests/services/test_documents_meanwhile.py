"""What changes between two files or two runs of a document: the model, the length of passages, who is where, names."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from neuroedge.contract.errors import InvalidInput, NotFound, Unavailable
from neuroedge.contract.models import Embeddings
from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.services.divisions import Divisions
from neuroedge.services.document_process import BATCH
from neuroedge.services.documents import Labels
from neuroedge.services.recordings import Upload
from neuroedge.stores import memories
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.audio_samples import tone, wav8
from tests.infra.documents import samples
from tests.services.test_documents import Bench, Reader, bench, caller
from tests.services.test_memory import colleague

__all__ = ["bench", "caller"]
pytestmark = pytest.mark.anyio


def _sentences(*numbers: int) -> str:
    """A paragraph for each, long enough for a passage of its own."""
    words = "turbine bearing valve pump hall cleaned greased checked"
    return "\n\n".join(f"Paragraph {n} says: {words}." for n in numbers)


async def _switch(db: Database, caller: Principal, model: str) -> None:
    """Search the organisation's memories with another model, as the end of a rebuild does."""
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE organisations SET embedding_model = %s WHERE id = %s", [model, caller.org_id])


async def _models(db: Database, caller: Principal) -> dict[str, int]:
    """How many vectors there are by each model."""
    async with db.tenant(caller) as conn:
        rows = await conn.execute("SELECT model, count(*) AS n FROM memory_vectors_384 GROUP BY model")
        return {row["model"]: row["n"] for row in await rows.fetchall()}


def _switching(bench: Bench, caller: Principal) -> None:
    """Let the model be switched while the first batch is embedded."""
    encode = bench.encoder.encode

    async def switched(texts: Sequence[str], *, kind: str = "passage") -> Embeddings:
        await _switch(bench.db, caller, "other")
        return await encode(texts, kind=kind)

    bench.encoder.encode = switched  # type: ignore[method-assign]


async def test_a_model_switched_while_a_document_is_embedded_embeds_it_anew(
    bench: Bench, caller: Principal, db: Database
) -> None:
    """What nothing would find by its meaning is not stored; the next run does it with the model of then."""
    added = await bench.add(caller, _sentences(*range(BATCH + 5)))
    assert added.document is not None
    _switching(bench, caller)
    with pytest.raises(Unavailable, match="searched with other"):
        await bench.run(caller, added.document.id)
    assert await bench.texts(caller, added.document.id) == []
    bench.encoder.model_id = "other"
    document = await bench.run(caller, added.document.id)
    assert (document.status, await _models(db, caller)) == ("done", {"other": document.chunks})


async def test_batches_of_another_model_are_not_gone_on_with(bench: Bench, caller: Principal, db: Database) -> None:
    """A job cut off before the switch and resumed after it embeds all of the document with the new model."""
    added = await bench.add(caller, _sentences(*range(2 * BATCH)))
    assert added.document is not None
    bench.encoder.breaks_after = BATCH
    with pytest.raises(Unavailable):
        await bench.run(caller, added.document.id)
    bench.encoder.breaks_after, bench.encoder.model_id = None, "other"
    await _switch(db, caller, "other")
    document = await bench.run(caller, added.document.id)
    assert (document.status, await _models(db, caller)) == ("done", {"other": document.chunks})


async def test_a_document_cut_in_another_way_when_it_is_resumed_loses_no_text(bench: Bench, caller: Principal) -> None:
    """Longer passages by then: batches of shorter ones are not the beginning of these."""
    added = await bench.add(caller, _sentences(*range(3 * BATCH)))
    assert added.document is not None
    bench.encoder.max_tokens, bench.encoder.breaks_after = 18, BATCH
    with pytest.raises(Unavailable):
        await bench.run(caller, added.document.id)
    bench.encoder.max_tokens, bench.encoder.breaks_after = 256, None
    document = await bench.run(caller, added.document.id)
    assert document.status == "done"
    text = "\n\n".join(await bench.texts(caller, document.id))
    assert text == _sentences(*range(3 * BATCH))
    assert len(bench.files()) == 2


async def test_pages_that_were_read_stay_read_when_the_batches_go(
    db: Database, caller: Principal, tmp_path: Path
) -> None:
    """Optical character recognition does not depend on the encoder."""
    reader = Reader()
    reader.pages = 3
    bench = await Bench.opened(db, tmp_path, reader=reader)
    added = await bench.add(caller, samples.PNG, "fax.tiff")
    assert added.document is not None
    _switching(bench, caller)
    with pytest.raises(Unavailable):
        await bench.run(caller, added.document.id)
    bench.encoder.model_id = "other"
    assert (await bench.run(caller, added.document.id)).status == "done"
    assert reader.read_pages == [1, 2, 3]
    assert set(await _models(db, caller)) == {"other"}


class Staff:
    """An owner of two divisions, and members of the first."""

    def __init__(self, db: Database, owner: Principal) -> None:
        self.owner = owner
        self._db = db
        self._divisions = Divisions(db=db)

    async def make(self) -> None:
        """The divisions."""
        self.first, self.second = [
            (await self._divisions.create(self.owner, name=name, request_id="r")).id for name in ("First", "Second")
        ]

    async def member(self) -> Principal:
        """A new one, of the first division."""
        who = await colleague(self._db, self.owner)
        await self.move(who, self.first)
        return who

    async def move(self, who: Principal, division_id: UUID) -> None:
        """Into another division."""
        await self._divisions.assign(self.owner, division_id, who.user_id, request_id="r")

    async def leave(self, who: Principal, division_id: UUID) -> None:
        """Into none."""
        await self._divisions.remove(self.owner, division_id, who.user_id, request_id="r")


@pytest.fixture
async def staff(db: Database, caller: Principal) -> Staff:
    """Two divisions."""
    made = Staff(db, caller)
    await made.make()
    return made


async def test_a_documents_new_passages_are_of_its_division_wherever_its_owner_is(
    bench: Bench, staff: Staff, db: Database
) -> None:
    """Who went to another division changes a file of the one before: that one sees the text, the other does not."""
    ann, near, far = await staff.member(), await staff.member(), await staff.member()
    await staff.move(far, staff.second)
    document = await bench.done(ann, _sentences(1, 2), visibility="division")
    for moves in (lambda: staff.move(ann, staff.second), lambda: staff.leave(ann, staff.second)):
        await moves()
        changed = _sentences(1, document.version + 2)
        await bench.documents.replace(bench.upload(changed), document.id, principal=ann, request_id="r")
        document = await bench.run(ann, document.id)
        assert document.status == "done"
        assert "\n\n".join(await bench.texts(near, document.id)) == changed
        async with db.tenant(far) as conn:
            seen = await memories.recent(conn, org_id=far.org_id, limit=9, before=None, where=MemoryFilter())
        assert seen == []


async def test_a_file_is_processed_though_its_sender_left_the_division(bench: Bench, staff: Staff) -> None:
    """It does not wait for ever, also when pages of it are still to be kept."""
    ann, bob = await staff.member(), await staff.member()
    document = await bench.done(ann, _sentences(1, 2), visibility="division")
    await bench.documents.replace(bench.upload(_sentences(1, 3)), document.id, principal=bob, request_id="r")
    await staff.leave(bob, staff.first)
    await bench.process.run(bob, document.id, version=2, request_id="r")
    after = await bench.documents.get(ann, document.id)
    assert (after.status, await bench.texts(ann, document.id)) == ("done", [*_sentences(1, 3).split("\n\n")])
    with pytest.raises(NotFound):
        await bench.documents.get(bob, document.id)


async def test_passages_that_stay_name_the_file_they_are_of_now(bench: Bench, caller: Principal, db: Database) -> None:
    """In metadata and source, where a search finds it; labels they got since stay, and nothing is embedded again."""
    before = await bench.done(caller, _sentences(1, 2), "draft.txt", metadata={"hall": 3})
    [kept, _] = await bench.documents.chunks(caller, before.id, limit=9)
    async with db.tenant(caller) as conn:
        item = memories.item_of(kept, {"tags": ["plant"]})
        await memories.rewrite(conn, org_id=caller.org_id, memory_id=kept.id, item=item)
    bench.encoder.texts.clear()
    upload = bench.upload(_sentences(1, 3), "final.txt")
    await bench.documents.replace(upload, before.id, principal=caller, request_id="r")
    await bench.run(caller, before.id)
    [stayed, new] = await bench.documents.chunks(caller, before.id, limit=9)
    assert (stayed.id, stayed.tags, stayed.content) == (kept.id, ["plant"], kept.content)
    assert {(one.metadata["filename"], one.source, one.metadata["hall"]) for one in (stayed, new)} == {
        ("final.txt", "final.txt", 3)
    }
    assert len(bench.encoder.texts) == 1
    for name, count in (("draft.txt", 0), ("final.txt", 2)):
        async with db.tenant(caller) as conn:
            where = MemoryFilter(source=name, metadata={"filename": name})
            found = await memories.recent(conn, org_id=caller.org_id, limit=9, before=None, where=where)
        assert len(found) == count


class Recorded:
    """Stands for the recordings: notes what is sent to them."""

    def __init__(self) -> None:
        self.titles: list[str | None] = []

    async def add(self, upload: Upload, *, principal: Principal, request_id: str, title: str | None) -> Any:
        """One that is queued."""
        self.titles.append(title)
        return SimpleNamespace(id=new_id())


async def test_sound_is_refused_where_its_labels_would_be_lost(bench: Bench, caller: Principal) -> None:
    """A recording is the whole organisation's: private sound must not become one. A title it has."""
    recorded = bench.documents._recordings = cast(Any, Recorded())
    sound = wav8(tone(1.0)[None], rate_hz=16_000)
    for labels in (
        {"visibility": "private"},
        {"visibility": "division"},
        {"tags": ["board"]},
        {"metadata": {"hall": 3}},
        {"extract": True},
    ):
        with pytest.raises(InvalidInput, match=next(iter(labels))) as refused:
            await bench.add(caller, sound, "call.wav", title="Call", **labels)
        assert "/v1/recordings" in (refused.value.hint or "")
    assert recorded.titles == []
    assert (await bench.add(caller, sound, "call.wav", title="Call")).recording_id is not None
    assert recorded.titles == ["Call"]


async def test_sound_among_files_fails_alone(bench: Bench, caller: Principal) -> None:
    """The others of a batch are taken in with the labels."""
    bench.documents._recordings = cast(Any, Recorded())
    uploads = [bench.upload(wav8(tone(1.0)[None], rate_hz=16_000), "call.wav"), bench.upload("One.", "one.txt")]
    [sound, text] = await bench.documents.add_files(
        uploads, principal=caller, request_id="r", labels=Labels(visibility="private")
    )
    assert (type(sound.error), sound.recording_id) == (InvalidInput, None)
    assert text.document is not None
    assert text.document.visibility == "private"
