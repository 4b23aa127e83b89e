"""Sessions and messages: branches kept, answers ended once, nothing left of what was deleted, nobody else lets in."""

from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.services.chat import sessions
from neuroedge.services.chat.changes import SessionChanges
from neuroedge.services.chat.checks import MAX_ATTACHMENTS, MAX_CONTENT
from neuroedge.services.chat.remembering import REMEMBER_TASK
from neuroedge.services.chat.titles import LENGTH, title_of
from neuroedge.services.chat.transfer import ImportedSession
from neuroedge.stores.chat_messages import Failure, Feedback, Usage
from neuroedge.stores.chat_sessions import Session, SessionSettings
from neuroedge.stores.ids import new_id
from neuroedge.stores.memory_filters import CHAT_MESSAGE
from neuroedge.stores.postgres import Database
from tests.services.chat.chat_bench import Bench
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(db: Database, tmp_path: Path) -> Bench:
    """Everything of chats but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    return Bench(db, queue, tmp_path)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


@pytest.fixture
async def session(bench: Bench, caller: Principal) -> Session:
    """An empty session."""
    return await bench.chats.create(caller, request_id="r")


async def _rows(db: Database, caller: Principal) -> dict[str, int]:
    counts = {}
    async with db.tenant(caller, sees_all=True) as conn:
        for table in ("chat_sessions", "chat_messages", "chat_attachments", "memories", "memory_vectors_384"):
            row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
            counts[table] = row["n"] if row else -1
    return counts


async def test_a_conversation_is_kept_in_order(bench: Bench, caller: Principal, session: Session) -> None:
    """Title from the first question, path from root to leaf, the latest session first; listeners learn ids only."""
    question, answer = await bench.turn(caller, session.id, "Hello! How hot is the north boiler?", "90 degrees.")
    await bench.turn(caller, session.id, "And the south one?", "70 degrees.")
    path = await bench.chats.path(caller, session.id)
    assert [(one.role, one.content) for one in path] == [
        ("user", "Hello! How hot is the north boiler?"),
        ("assistant", "90 degrees."),
        ("user", "And the south one?"),
        ("assistant", "70 degrees."),
    ]
    assert [one.parent_id for one in path] == [None, *(one.id for one in path[:-1])]
    assert [one.id for one in await bench.chats.path(caller, session.id, answer.id)] == [question.id, answer.id]
    now = await bench.chats.get(caller, session.id)
    assert now.title == "How hot is the north boiler?"
    assert now.leaf_id == path[-1].id
    newer = await bench.chats.create(caller, request_id="r", title="Other")
    assert [one.id for one in await bench.chats.page(caller, limit=9)] == [newer.id, session.id]
    await bench.chats.append(caller, session.id, parent_id=now.leaf_id, role="user", content="Thanks")
    first, second = await bench.chats.page(caller, limit=9)
    assert first.id == session.id
    assert await bench.chats.page(caller, limit=9, before=(first.updated_at, first.id)) == [second]
    assert [name for name, _ in bench.told[:3]] == ["message.finished", "message.started", "message.finished"]
    assert "boiler" not in str(bench.told)


async def test_editing_and_asking_again_branch(bench: Bench, caller: Principal, session: Session) -> None:
    """The old branch stays as it was and can be shown again; pages walk up one branch and name the others."""
    question, answer = await bench.turn(caller, session.id, "Who built it?", "Smith.")
    await bench.turn(caller, session.id, "When?", "In 1901.")
    again = await bench.chats.append(caller, session.id, parent_id=question.id, role="assistant", content="Jones.")
    edited = await bench.chats.edit(caller, session.id, question.id, content="Who designed it?")
    assert (edited.parent_id, edited.role) == (None, "user")
    assert [one.content for one in await bench.chats.path(caller, session.id)] == ["Who designed it?"]
    versions = await bench.chats.branches(caller, session.id, edited.id)
    assert [one.content for one in versions] == ["Who built it?", "Who designed it?"]
    shown = await bench.chats.update(caller, session.id, SessionChanges(leaf_id=answer.id), request_id="r")
    contents = [one.content for one in await bench.chats.path(caller, session.id)]
    assert contents == ["Who built it?", "Smith.", "When?", "In 1901."]
    page = await bench.chats.messages(caller, session.id, limit=3)
    assert [one.content for one in page.messages] == contents[1:]
    assert page.branches[answer.id] == [answer.id, again.id]
    assert page.previous == question.id
    before = await bench.chats.messages(caller, session.id, limit=3, leaf=page.previous)
    assert [one.id for one in before.messages] == [question.id]
    assert before.branches[question.id] == [question.id, edited.id]
    assert before.previous is None
    assert shown.leaf_id == page.messages[-1].id


async def test_an_answer_ends_once(bench: Bench, caller: Principal, session: Session) -> None:
    """With all that belongs to it; nothing follows below it before, nothing changes it afterwards."""
    question = await bench.chats.append(caller, session.id, parent_id=None, role="user", content="Why?")
    begun = await bench.chats.append(
        caller, session.id, parent_id=question.id, role="assistant", content="", state="running"
    )
    with pytest.raises(Conflict, match="being generated"):
        await bench.chats.append(caller, session.id, parent_id=begun.id, role="user", content="And?")
    with pytest.raises(Conflict, match="being generated"):
        await bench.chats.edit(caller, session.id, begun.id, content="Because.")
    usage = Usage(prompt_tokens=5, completion_tokens=2, cost="0.001")
    ended = await bench.chats.finish(
        caller,
        begun.id,
        content="Bec",
        state="cancelled",
        citations=[{"page": 1}],
        usage=usage,
        model="local/m",
        error=Failure(code="cancelled", detail="you cancelled"),
    )
    assert (ended.state, ended.content, ended.usage, ended.model) == ("cancelled", "Bec", usage, "local/m")
    with pytest.raises(Conflict, match="ended already"):
        await bench.chats.finish(caller, begun.id, content="Because.")
    assert await bench.chats.message(caller, session.id, begun.id) == ended


async def test_a_session_deleted_while_it_is_answered_stays_away(
    bench: Bench, caller: Principal, session: Session, db: Database
) -> None:
    """The late end says so and stores nothing; the same for a message deleted alone."""
    question = await bench.chats.append(caller, session.id, parent_id=None, role="user", content="Why?")
    for _ in range(2):
        begun = await bench.chats.append(
            caller, session.id, parent_id=question.id, role="assistant", content="", state="running"
        )
    await bench.chats.delete_message(caller, session.id, begun.id)
    with pytest.raises(NotFound):
        await bench.chats.finish(caller, begun.id, content="Because.")
    other = (await bench.chats.get(caller, session.id)).leaf_id
    assert other is not None
    await bench.chats.delete(caller, session.id, request_id="r")
    with pytest.raises(NotFound):
        await bench.chats.finish(caller, other, content="Because.")
    await bench.search.remember(caller, [question.id], request_id="r")
    assert set((await _rows(db, caller)).values()) == {0}
    assert bench.told[-1][0] == "deleted"


async def test_deleting_a_message_shows_what_is_left(bench: Bench, caller: Principal, session: Session) -> None:
    """With its answers; the active branch then ends before it, or at another first message."""
    question, answer = await bench.turn(caller, session.id, "One?", "1.")
    following, _ = await bench.turn(caller, session.id, "Two?", "2.")
    await bench.chats.delete_message(caller, session.id, following.id)
    assert (await bench.chats.get(caller, session.id)).leaf_id == answer.id
    edited = await bench.chats.edit(caller, session.id, question.id, content="Three?")
    await bench.chats.delete_message(caller, session.id, edited.id)
    assert (await bench.chats.get(caller, session.id)).leaf_id == answer.id
    await bench.chats.delete_message(caller, session.id, question.id)
    assert (await bench.chats.get(caller, session.id)).leaf_id is None
    assert await bench.chats.path(caller, session.id) == []


async def test_nobody_else_gets_in(bench: Bench, caller: Principal, session: Session, db: Database) -> None:
    """A colleague and a stranger find nothing; who it is shared with may read, and is told that this is all."""
    question, answer = await bench.turn(caller, session.id, "Secret?", "Yes.")
    chats = bench.chats
    outsiders = (colleague(caller), await new_principal(db))

    def writings(who: Principal) -> list[Any]:
        return [
            chats.append(who, session.id, parent_id=answer.id, role="user", content="x"),
            chats.edit(who, session.id, question.id, content="x"),
            chats.delete_message(who, session.id, question.id),
            chats.set_feedback(who, session.id, answer.id, Feedback(rating="up")),
            chats.update(who, session.id, SessionChanges(title="x"), request_id="r"),
            chats.delete(who, session.id, request_id="r"),
        ]

    for who in outsiders:
        reading = [
            chats.get(who, session.id),
            chats.path(who, session.id),
            chats.message(who, session.id, answer.id),
            bench.transfer.export(who, session.id, format="json"),
            bench.progress.follow(who, session.id),
        ]
        for attempt in [*reading, *writings(who)]:
            with pytest.raises(NotFound):
                await attempt
    await chats.update(caller, session.id, SessionChanges(visibility="organisation"), request_id="r")
    reader, stranger = outsiders
    assert [one.content for one in await chats.path(reader, session.id)] == ["Secret?", "Yes."]
    assert [one.id for one in await chats.page(reader, limit=9, shared=True)] == [session.id]
    assert await chats.page(reader, limit=9) == []
    for attempt in writings(reader):
        with pytest.raises(Forbidden):
            await attempt
    for attempt in writings(stranger):
        with pytest.raises(NotFound):
            await attempt
    assert len(await chats.path(caller, session.id)) == 2


async def test_a_session_is_changed_bit_by_bit(bench: Bench, caller: Principal, session: Session) -> None:
    """What is not given stays; empty texts remove; a title that was given is not replaced by a question."""
    made = await bench.chats.update(
        caller,
        session.id,
        SessionChanges(title="Mine", model="local/m", system_prompt="Be brief.", local_only=True),
        request_id="r",
    )
    assert made.settings == SessionSettings(local_only=True, system_prompt="Be brief.")
    await bench.turn(caller, session.id, "What is this?", "A test.")
    changed = await bench.chats.update(
        caller, session.id, SessionChanges(archived=True, model="", system_prompt=""), request_id="r"
    )
    assert (changed.title, changed.model, changed.settings) == ("Mine", None, SessionSettings(local_only=True))
    assert await bench.chats.page(caller, limit=9) == []
    assert [one.id for one in await bench.chats.page(caller, limit=9, archived=True)] == [session.id]
    with pytest.raises(InvalidInput, match="division"):
        await bench.chats.update(caller, session.id, SessionChanges(visibility="division"), request_id="r")
    with pytest.raises(NotFound):
        await bench.chats.update(caller, session.id, SessionChanges(leaf_id=new_id()), request_id="r")


async def test_bad_messages_are_refused(
    bench: Bench, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, too long, below nothing, with files nobody sent or too many of them, or beyond what a session holds."""

    async def append(**change: Any) -> Any:
        return await bench.chats.append(
            caller, session.id, **{"parent_id": None, "role": "user", "content": "x", **change}
        )

    with pytest.raises(InvalidInput, match="empty"):
        await append(content=" \n")
    with pytest.raises(TooLarge, match=str(MAX_CONTENT)):
        await append(content="x" * (MAX_CONTENT + 1))
    with pytest.raises(NotFound):
        await append(parent_id=new_id())
    with pytest.raises(NotFound, match="attachment"):
        await append(attachments=[new_id()])
    with pytest.raises(TooLarge, match=str(MAX_ATTACHMENTS)):
        await append(attachments=[new_id() for _ in range(MAX_ATTACHMENTS + 1)])
    with pytest.raises(InvalidInput):
        await append(content="broken \ud800")
    assert await bench.chats.path(caller, session.id) == []
    monkeypatch.setattr(sessions, "MAX_MESSAGES", 1)
    await append()
    with pytest.raises(TooLarge, match="holds 1"):
        await append()


async def test_answers_are_judged(bench: Bench, caller: Principal, session: Session) -> None:
    """Up or down with a reason, replaced, taken back; questions are not judged."""
    question, answer = await bench.turn(caller, session.id, "Why?", "Because.")
    feedback = Feedback(rating="down", reason="wrong", comment="It is not so.")
    judged = await bench.chats.set_feedback(caller, session.id, answer.id, feedback)
    assert judged.feedback == feedback
    judged = await bench.chats.set_feedback(caller, session.id, answer.id, Feedback(rating="up"))
    assert judged.feedback == Feedback(rating="up")
    assert (await bench.chats.set_feedback(caller, session.id, answer.id, None)).feedback is None
    with pytest.raises(InvalidInput, match="only answers"):
        await bench.chats.set_feedback(caller, session.id, question.id, feedback)


async def test_own_messages_are_found(bench: Bench, caller: Principal, session: Session, db: Database) -> None:
    """Finished ones, by the job that is queued with them; as private memories, once, gone with the message."""
    question, answer = await bench.turn(caller, session.id, "Where is the turbine?", "In hall three.")
    other = await bench.chats.create(caller, request_id="r")
    await bench.turn(caller, other.id, "Is the turbine red?", "It is green.")
    jobs = [job for job in await bench.jobs(REMEMBER_TASK) if job["org_id"] == str(caller.org_id)]
    assert [job["message_ids"] for job in jobs[:2]] == [[str(question.id)], [str(answer.id)]]
    ids = [message.id for s in (session, other) for message in await bench.chats.path(caller, s.id)]
    assert await bench.search.remember(caller, ids, request_id="r") == 4
    assert await bench.search.remember(caller, ids, request_id="r") == 0

    async def found(who: Principal, **change: Any) -> list[str]:
        asked: dict[str, Any] = {"limit": 9, "session_id": None, "request_id": "r", **change}
        return sorted(hit.message.content for hit in await bench.search.find(who, "turbine hall", **asked))

    assert await found(caller) == ["In hall three.", "Is the turbine red?", "Where is the turbine?"]
    assert await found(caller, session_id=other.id) == ["Is the turbine red?"]
    await bench.chats.update(caller, session.id, SessionChanges(visibility="organisation"), request_id="r")
    assert await found(colleague(caller)) == []
    await bench.chats.delete_message(caller, session.id, answer.id)
    assert await found(caller) == ["Is the turbine red?", "Where is the turbine?"]
    await bench.chats.delete(caller, session.id, request_id="r")
    assert await found(caller) == ["Is the turbine red?"]
    async with db.tenant(caller) as conn:
        rows = await (await conn.execute("SELECT memory_type, visibility FROM memories")).fetchall()
    assert rows == [{"memory_type": CHAT_MESSAGE, "visibility": "private"}] * 2


async def test_an_export_comes_back(bench: Bench, caller: Principal, session: Session) -> None:
    """All branches with their words and sources, as a session of its own; Markdown holds the branch that is shown."""
    question, _ = await bench.turn(caller, session.id, "Who built it?", "Smith, says the plaque.")
    await bench.chats.append(
        caller,
        session.id,
        parent_id=question.id,
        role="assistant",
        content="Jones.",
        citations=[{"title": "Report", "page": 3}],
        model="local/m",
    )
    _, data = await bench.transfer.export(caller, session.id, format="json")
    given = ImportedSession.model_validate_json(data)
    taken = await bench.transfer.take_in(caller, given, request_id="r")
    assert taken.id != session.id
    assert (taken.title, taken.visibility) == ("Who built it?", "private")
    path = await bench.chats.path(caller, taken.id)
    assert [(one.content, one.citations, one.model) for one in path] == [
        ("Who built it?", [], None),
        ("Jones.", [{"title": "Report", "page": 3}], "local/m"),
    ]
    versions = await bench.chats.branches(caller, taken.id, path[1].id)
    assert [one.content for one in versions] == ["Smith, says the plaque.", "Jones."]
    _, text = await bench.transfer.export(caller, session.id, format="markdown")
    shown = text.decode()
    assert shown.startswith("# Who built it?\n")
    assert "## Assistant (local/m)\n\nJones.\n\n1. Report, 3\n" in shown
    assert "Smith" not in shown


@pytest.mark.parametrize(
    "messages",
    [
        [{"id": "1", "role": "user", "content": "x"}, {"id": "1", "role": "user", "content": "y"}],
        [{"id": "1", "parent_id": "2", "role": "user", "content": "x"}],
        [{"id": "1", "parent_id": "1", "role": "user", "content": "x"}],
    ],
)
async def test_a_broken_export_makes_no_session(
    bench: Bench, caller: Principal, messages: list[dict[str, Any]]
) -> None:
    """Ids given twice, parents that are not there or not before."""
    given = ImportedSession.model_validate({"format": "neuroedge.chat/1", "messages": messages})
    with pytest.raises(InvalidInput):
        await bench.transfer.take_in(caller, given, request_id="r")
    assert await bench.chats.page(caller, limit=9) == []


async def test_the_sweep_ends_what_a_crash_cut_off(bench: Bench, caller: Principal, session: Session) -> None:
    """An answer that began long ago fails with a reason and can be asked for again; one taken up just now goes on."""
    question = await bench.chats.append(caller, session.id, parent_id=None, role="user", content="Why?")
    old, fresh = [
        await bench.chats.append(
            caller, session.id, parent_id=question.id, role="assistant", content="", state="running"
        )
        for _ in range(2)
    ]
    async with bench.db.tenant(caller) as conn:
        await conn.execute("UPDATE chat_messages SET created_at = now() - interval '2 hours'")
        await conn.execute("UPDATE chat_messages SET updated_at = now() - interval '2 hours' WHERE id = %s", [old.id])
    assert await bench.sweep.run() >= 1
    ended = await bench.chats.message(caller, session.id, old.id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error.code == "interrupted"
    assert (await bench.chats.message(caller, session.id, fresh.id)).state == "running"


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How hot is the boiler?", "How hot is the boiler?"),
        ("Hi there, can you please summarise the shift report?", "Summarise the shift report?"),
        ("Hello!\n\nWhat broke?", "What broke?"),
        ("# Plan\n\nWrite a plan.", "Plan"),
        ("```python\nprint(1)\n```\nWhy does **this** print?", "Why does this print?"),
        ("See [the report](https://example.org/r.pdf) first.", "See the report first"),
        ("你好，锅炉有多热？", "你好，锅炉有多热？"),
        ("Hello", "Hello"),
        ("?!", None),
        ("", None),
    ],
)
def test_titles_are_made_of_the_question(question: str, title: str | None) -> None:
    """Without greeting, courtesies and Markdown."""
    assert title_of(question) == title


def test_long_titles_end_at_a_word() -> None:
    """And never run over their length, nor take long, whatever is in the question."""
    title = title_of("Explain " + "photosynthesis " * 50)
    assert title is not None
    assert title.endswith("photosynthesis…")
    assert len(title) <= LENGTH
    for question in ("a" * 100_000, "[" * 100_000, "hi " * 30_000, "`" * 100_000, "好" * 5000, "# " * 50_000):
        assert len(title_of(question) or "") <= LENGTH
