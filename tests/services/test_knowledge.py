"""Reading memories into the graph: resumable, complete, by the rights of the caller; asking for what was read."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from neuroedge.contract.errors import NotFound, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.engines.knowledge.knowledge import Entity, Evidence, Input, KnowledgeEngine, Mention, Output, Relation
from neuroedge.infra.queue import JobQueue
from neuroedge.services.engines import Registry
from neuroedge.services.knowledge import BATCH, EXTRACT_DOCUMENT_TASK, EXTRACT_TASK, Knowledge
from neuroedge.services.switches import Switches
from neuroedge.stores.postgres import Database
from neuroedge.stores.switches import KNOWLEDGE_EXTRACTION
from tests.everything_stored import store_document
from tests.fakes import make_context
from tests.stores.conftest import new_principal
from tests.stores.test_knowledge import remember

pytestmark = pytest.mark.anyio


class Reader:
    """An engine runner that reads "A likes B." sentences."""

    def __init__(self) -> None:
        self.registry = Registry([KnowledgeEngine(probe=make_context())])
        self.read: list[str] = []
        self.act: Callable[[], None] = lambda: None

    def context(self, principal: Principal, *, request_id: str) -> Any:
        """Ports without a world behind them."""
        return make_context()

    async def run(self, name: str, payload: BaseModel, **caller: Any) -> Output:
        """Words with a capital are persons; the first likes the last."""
        self.act()
        assert isinstance(payload, Input)
        self.read += payload.texts
        found: dict[str, Entity] = {}
        relations = []
        for number, text in enumerate(payload.texts):
            for word in (word for word in text.rstrip(".").split() if word[0].isupper()):
                entity = found.setdefault(
                    word, Entity(name=word, key=word.lower(), type="person", aliases=[word], mentions=[])
                )
                at = text.index(word)
                entity.mentions.append(Mention(text=number, start=at, end=at + len(word)))
            order = {name: position for position, name in enumerate(found)}
            words = text.rstrip(".").split()
            if words[0] not in order or words[-1] not in order:
                continue
            relations.append(
                Relation(
                    subject=order[words[0]],
                    predicate="like",
                    object=order[words[-1]],
                    negated=False,
                    modal=None,
                    reported=False,
                    evidence=Evidence(text=number, start=0, end=len(text), sentence=text),
                )
            )
        return Output(entities=list(found.values()), relations=relations, method="test")


@pytest.fixture
async def queue(db: Database) -> JobQueue:
    """The job queue on the tests' database."""
    jobs = JobQueue(db.pool)
    await jobs.open()
    for task in (EXTRACT_TASK, EXTRACT_DOCUMENT_TASK):
        jobs.app.task(name=task)(_unused)
    return jobs


async def _unused(**_: Any) -> None:
    """Jobs are counted here, not run."""


@pytest.fixture
def reader() -> Reader:
    """The engine under the test's control."""
    return Reader()


@pytest.fixture
def service(db: Database, queue: JobQueue, reader: Reader) -> Knowledge:
    """The service over it."""
    return Knowledge(db=db, runner=reader, queue=queue)  # type: ignore[arg-type]


async def _entity(service: Knowledge, caller: Principal, name: str) -> UUID:
    [found] = await service.entities(caller, name=name, type_=None, limit=9, offset=0)
    return found.id


async def test_all_memories_are_read_once(db: Database, service: Knowledge, reader: Reader) -> None:
    """More than a batch of them; a second run finds nothing to do."""
    caller = await new_principal(db)
    for n in range(BATCH + 3):
        await remember(db, caller, f"Ann likes Bob{n}.")
    assert await service.run(caller, request_id="r") == BATCH + 3
    standing = await service.standing(caller)
    assert (standing.memories, standing.read, standing.entities) == (BATCH + 3, BATCH + 3, BATCH + 4)
    assert await service.run(caller, request_id="r") == 0
    assert len(reader.read) == BATCH + 3


async def test_a_run_cut_off_goes_on_where_it_stopped(db: Database, service: Knowledge, reader: Reader) -> None:
    """What was read stays, nothing is read twice."""
    caller = await new_principal(db)
    for n in range(BATCH * 2):
        await remember(db, caller, f"Ann likes Bob{n}.")
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Unavailable("the model is away")

    reader.act = fail
    with pytest.raises(Unavailable):
        await service.run(caller, request_id="r")
    assert (await service.standing(caller)).read == BATCH
    assert await service.run(caller, request_id="r") == BATCH
    assert sorted(reader.read) == sorted(f"Ann likes Bob{n}." for n in range(BATCH * 2))


async def test_a_long_memory_is_read_in_pieces_with_places_of_the_whole(db: Database, service: Knowledge) -> None:
    """The engine takes 20,000 characters; an empty memory counts as read."""
    caller = await new_principal(db)
    text = "Ann likes " + "x" * 19_989 + " Zoe likes Bob."
    await remember(db, caller, text)
    await remember(db, caller, "")
    assert await service.run(caller, request_id="r") == 2
    detail = await service.entity(caller, await _entity(service, caller, "bob"), predicate=None, depth=1, limit=9)
    [(start, end)] = detail.mentions[0].places
    assert text[start:end] == "Bob"


async def test_a_thing_is_told_with_what_is_said_of_it(db: Database, service: Knowledge) -> None:
    """Relations with evidence, neighbours with distance, a path; unknown things are NotFound."""
    caller = await new_principal(db)
    for text in ("Ann likes Bob.", "Bob likes Cid."):
        await remember(db, caller, text)
    await service.run(caller, request_id="r")
    ann, cid = await _entity(service, caller, "Ann"), await _entity(service, caller, "the CID")
    detail = await service.entity(caller, ann, predicate=None, depth=2, limit=9)
    assert [(r.predicate, r.sentence) for r in detail.relations] == [("like", "Ann likes Bob.")]
    assert [(near.entity.name, near.distance) for near in detail.neighbours] == [("Bob", 1), ("Cid", 2)]
    way = await service.path(caller, start=ann, end=cid, depth=4)
    assert [entity.name for entity in way.entities] == ["Ann", "Bob", "Cid"]
    assert {r.sentence for r in way.relations} == {"Ann likes Bob.", "Bob likes Cid."}
    assert await service.entities(caller, name="?!", type_=None, limit=9, offset=0) == []
    for unknown in (lambda: service.path(caller, start=ann, end=uuid4(), depth=4), lambda: _detail(service, caller)):
        with pytest.raises(NotFound):
            await unknown()


async def _detail(service: Knowledge, caller: Principal) -> Any:
    return await service.entity(caller, uuid4(), predicate=None, depth=1, limit=9)


async def test_another_tenant_is_told_nothing(db: Database, service: Knowledge) -> None:
    """Not by name, not by id, not as the end of a path."""
    caller, stranger = await new_principal(db), await new_principal(db)
    await remember(db, caller, "Ann likes Bob.")
    await service.run(caller, request_id="r")
    ann, bob = await _entity(service, caller, "ann"), await _entity(service, caller, "bob")
    assert await service.entities(stranger, name="ann", type_=None, limit=9, offset=0) == []
    assert (await service.standing(stranger)).entities == 0
    with pytest.raises(NotFound):
        await service.entity(stranger, ann, predicate=None, depth=1, limit=9)
    with pytest.raises(NotFound):
        await service.path(stranger, start=ann, end=bob, depth=4)
    assert await service.run(stranger, request_id="r") == 0


async def orders(db: Database, caller: Principal, task: str = EXTRACT_TASK) -> list[dict[str, Any]]:
    """The arguments of the organisation's jobs."""
    async with db.tenant(caller) as conn:
        cursor = await conn.execute(
            "SELECT args FROM queue.procrastinate_jobs WHERE task_name = %s AND args->>'org_id' = %s",
            [task, str(caller.org_id)],
        )
        return [row["args"] for row in await cursor.fetchall()]


async def switch_on(db: Database, caller: Principal) -> None:
    """What is remembered from now on is read by itself."""
    switches = Switches(db=db)
    await switches.set(caller, KNOWLEDGE_EXTRACTION, allowed=True, purpose=None, ground=None, request_id="r")


async def test_what_changes_is_read_by_itself_only_where_it_is_switched_on(db: Database, service: Knowledge) -> None:
    """One order waits at a time, of each member: what a colleague may see is another thing. Off again, none comes."""
    caller, stranger = await new_principal(db), await new_principal(db)
    await service.changed(caller, request_id="r")
    assert await orders(db, caller) == []
    await switch_on(db, caller)
    for request_id in ("first", "second"):
        await service.changed(caller, request_id=request_id)
    await service.changed(stranger, request_id="r")
    assert [args["request_id"] for args in await orders(db, caller)] == ["first"]
    assert await orders(db, stranger) == []
    colleague = replace(caller, user_id=uuid4())
    await service.changed(colleague, request_id="third")
    assert [args["user_id"] for args in await orders(db, caller)] == [str(caller.user_id), str(colleague.user_id)]


async def test_a_stored_document_is_read_when_asked_or_switched_on(db: Database, service: Knowledge) -> None:
    """Its passages alone; the order exists only when what stored them is committed."""
    caller, document_id = await new_principal(db), uuid4()

    async def stored(*, asked: bool, error: Exception | None = None) -> int:
        async with db.tenant(caller) as conn:
            await service.document_stored(conn, caller, document_id, asked=asked, request_id="r")
            if error is not None:
                raise error
        return len(await orders(db, caller, EXTRACT_DOCUMENT_TASK))

    assert await stored(asked=False) == 0
    assert await stored(asked=True) == 1
    await switch_on(db, caller)
    assert await stored(asked=False) == 2
    assert {args["document_id"] for args in await orders(db, caller, EXTRACT_DOCUMENT_TASK)} == {str(document_id)}
    with pytest.raises(Unavailable):
        await stored(asked=True, error=Unavailable("cut off"))
    assert len(await orders(db, caller, EXTRACT_DOCUMENT_TASK)) == 2


async def test_an_order_that_cannot_be_given_is_no_error_of_what_was_remembered(
    db: Database, queue: JobQueue, service: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is stored by then; the next change orders again."""
    caller = await new_principal(db)
    await switch_on(db, caller)

    async def away(*_: Any, **__: Any) -> int:
        raise Unavailable("the job could not be queued")

    with monkeypatch.context() as patched:
        patched.setattr(queue, "defer", away)
        await service.changed(caller, request_id="r")
    assert await orders(db, caller) == []
    await service.changed(caller, request_id="r")
    assert len(await orders(db, caller)) == 1


async def test_the_reading_of_a_document_leaves_other_memories(
    db: Database, service: Knowledge, reader: Reader
) -> None:
    """Only passages of that document are read; the rest is still to be done."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        document_id = await store_document(conn, caller, "Ann")
    await remember(db, caller, "Bob likes Cid.")
    assert await service.run(caller, request_id="r", document_id=document_id) == 1
    assert reader.read == ["passage Ann"]
    assert await service.run(caller, request_id="r", document_id=uuid4()) == 0
    assert await service.run(caller, request_id="r") == 1


async def test_an_order_queues_a_job_only_when_something_is_unread(db: Database, service: Knowledge) -> None:
    """The job carries the caller, whose rights are read again when it runs."""
    caller = await new_principal(db)
    assert (await service.extract(caller, request_id="r")).memories == 0
    assert await orders(db, caller) == []
    await remember(db, caller, "Ann likes Bob.")
    standing = await service.extract(caller, request_id="r")
    assert (standing.memories, standing.read) == (1, 0)
    [args] = await orders(db, caller)
    assert args == {"org_id": str(caller.org_id), "user_id": str(caller.user_id), "request_id": "r"}
    known = await service.caller(caller.org_id, caller.user_id)
    assert known is not None
    assert (known.role, known.org_id) == ("owner", caller.org_id)
    assert await service.caller(caller.org_id, uuid4()) is None
