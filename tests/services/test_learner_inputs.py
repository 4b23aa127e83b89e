"""Engines' inputs made of kept events: sessions, usual times of others, and only what each engine may see."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from neuroedge.engines.learning import difficulty, engagement, focus, learning_preference
from neuroedge.services import learner_inputs
from neuroedge.services.learners import LearnerEvent
from neuroedge.stores.learners import Event

ME, OTHER = UUID(int=1), UUID(int=2)
START = datetime(2026, 1, 1, tzinfo=UTC)


def _event(second: float, **more: Any) -> Event:
    told = LearnerEvent.model_validate(
        {"id": str(second), "at": START + timedelta(seconds=second), "item": "i", **more}
    )
    body = told.model_dump(exclude={"id", "at", "kind"}, mode="json")
    return Event(name=told.id, kind=told.kind, at=told.at, body=body, received_at=told.at)


def test_difficulty_takes_everybodys_answers_and_asks_for_one() -> None:
    """Skips are left out; the item's skill is looked up."""
    answers = [
        (ME, _event(0, skill="k", correct=True)),
        (OTHER, _event(1, skill="k", correct=False)),
        (OTHER, _event(2, item="j")),
    ]
    payload = difficulty.Input.model_validate(learner_inputs.difficulty(ME, answers, items=["i", "new"]))
    assert [(r.student, r.correct) for r in payload.responses] == [(str(ME), True), (str(OTHER), False)]
    assert [(q.student, q.item, q.skill) for q in payload.predict] == [(str(ME), "i", "k"), (str(ME), "new", None)]


def test_engagement_takes_the_latest_session_and_others_times() -> None:
    """A pause of more than half an hour begins a session; own times do not make the usual one."""
    own = [_event(s, time_s=20, correct=True) for s in (0, 60, 4000, 4100)]
    others = [_event(s, time_s=30 + s, correct=True) for s in range(5)]
    answers = [*[(OTHER, e) for e in others], *[(ME, e) for e in own]]
    payload = engagement.Input.model_validate(learner_inputs.engagement(ME, answers))
    assert [e.pause_before_s for e in payload.events] == [0.0, 80.0]
    assert [(u.item, u.median_s) for u in payload.usual_times] == [("i", 32.0)]
    assert learner_inputs.engagement(ME, answers[:-4]) == {"events": [], "usual_times": []}


def test_modalities_that_nobody_noted_are_left_out() -> None:
    """The learner stands without a name, others under their row's id."""
    answers = [
        (ME, _event(0, modality="video", correct=True, chosen=False)),
        (ME, _event(1, correct=True)),
        (OTHER, _event(2, modality="text", correct=False)),
    ]
    payload = learning_preference.Input.model_validate(learner_inputs.learning_preference(ME, answers))
    assert [(o.learner, o.modality, o.chosen) for o in payload.outcomes] == [
        (None, "video", False),
        (str(OTHER), "text", None),
    ]


def test_focus_takes_sessions_as_the_sender_names_them() -> None:
    """The last is the present one; earlier ones say how they ended; idle time and pages go along."""
    events = [
        _event(0, time_s=2, session="a"),
        _event(50, kind="break", session="a"),
        _event(60, time_s=3, session="b"),
        _event(70, kind="idle", duration_s=20, session="b"),
        _event(100, kind="page", page="home", session="b"),
    ]
    payload = focus.Input.model_validate(learner_inputs.focus(events))
    assert [(r.at_s, r.reaction_ms) for r in payload.responses] == [(0.0, 3000.0)]
    assert [(i.start_s, i.end_s) for i in payload.idle] == [(10.0, 30.0)]
    assert [(s.duration_s, s.ended_by) for s in payload.past] == [(50.0, "break")]
    assert payload.pages == ["home"]
    assert focus.Input.model_validate(learner_inputs.focus([])).responses == []
