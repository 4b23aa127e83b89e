"""What engines take, made of the events kept of learners; other learners stand in it under their rows' ids."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final
from uuid import UUID

from neuroedge.stores.learners import Event

Answers = Sequence[tuple[UUID, Event]]
NEWEST_ANSWERS: Final = 20_000
"""Of an organisation, the most an engine takes."""
NEWEST_OWN: Final = 5_000
_SESSION_GAP: Final = timedelta(minutes=30)
"""Events further apart belong to different sessions, unless the sender names these."""
_MIN_TIMES: Final = 5
"""Other learners' times an item's usual time needs."""
_DAY_S: Final = 86_400.0


def difficulty(learner: UUID, answers: Answers, *, items: Sequence[str]) -> dict[str, Any]:
    """Everybody's answers, and the items to predict for one learner."""
    skills = {e.body["item"]: e.body["skill"] for _, e in answers}
    return {
        "responses": [
            {
                "student": str(who),
                "item": e.body["item"],
                "skill": e.body["skill"],
                "correct": e.body["correct"],
                "at": e.at,
            }
            for who, e in answers
            if e.body["correct"] is not None
        ],
        "predict": [{"student": str(learner), "item": item, "skill": skills.get(item)} for item in items],
    }


def engagement(learner: UUID, answers: Answers) -> dict[str, Any]:
    """The learner's latest session, with usual times from the others' answers."""
    own = _sessions([e for who, e in answers if who == learner and e.body["time_s"] is not None])
    times: dict[str, list[float]] = defaultdict(list)
    for who, e in answers:
        if who != learner and e.body["time_s"]:
            times[e.body["item"]].append(e.body["time_s"])
    latest = own[-1] if own else []
    events = []
    for i, event in enumerate(latest):
        waited_s = (event.at - latest[i - 1].at).total_seconds() - event.body["time_s"] if i else 0.0
        events.append(
            {
                "item": event.body["item"],
                "time_s": min(event.body["time_s"], _DAY_S),
                "correct": event.body["correct"],
                "hints": event.body["hints"],
                "away_s": min(event.body["away_s"], _DAY_S),
                "pause_before_s": min(max(waited_s, 0.0), 604_800.0),
            }
        )
    shown = {event["item"] for event in events}
    usual = [
        {"item": item, "median_s": min(median(seen), _DAY_S)}
        for item, seen in times.items()
        if item in shown and len(seen) >= _MIN_TIMES
    ]
    return {"events": events[-NEWEST_OWN:], "usual_times": usual[:NEWEST_OWN]}


def learning_preference(learner: UUID, answers: Answers) -> dict[str, Any]:
    """Answers whose modality is known: the learner's own, and the others' under their rows' ids."""
    return {
        "outcomes": [
            {
                "item": e.body["item"],
                "modality": e.body["modality"],
                "correct": e.body["correct"],
                "chosen": e.body["chosen"],
                "learner": None if who == learner else str(who),
            }
            for who, e in answers
            if e.body["modality"] is not None and e.body["correct"] is not None
        ]
    }


def focus(events: Sequence[Event]) -> dict[str, Any]:
    """The latest session, the earlier ones to compare with, and the pages of all."""
    sessions = [_session(own) for own in _sessions(events)]
    now = sessions[-1] if sessions else {"responses": [], "idle": [], "duration_s": 0.0}
    past = [s for s in sessions[:-1] if s["duration_s"] > 0][-100:]
    pages = [e.body["page"] for e in events if e.kind == "page"]
    return {"responses": now["responses"], "idle": now["idle"], "past": past, "pages": pages[-1000:]}


def _session(own: Sequence[Event]) -> dict[str, Any]:
    start = own[0].at
    duration_s = min(_second(own[-1].at, start), _DAY_S)
    return {
        "responses": [
            {"at_s": _second(e.at, start), "reaction_ms": min(max(e.body["time_s"] * 1000, 1.0), 3_600_000)}
            for e in own
            if e.kind == "answer" and e.body["time_s"] is not None and _second(e.at, start) <= _DAY_S
        ][-1000:],
        "idle": [
            {"start_s": _second(e.at, start), "end_s": min(_second(e.at, start) + e.body["duration_s"], _DAY_S)}
            for e in own
            if e.kind == "idle" and _second(e.at, start) <= _DAY_S
        ][-1000:],
        "duration_s": duration_s,
        "ended_by": "break" if own[-1].kind == "break" else "other",
    }


def _second(at: datetime, start: datetime) -> float:
    return (at - start).total_seconds()


def _sessions(events: Sequence[Event]) -> list[list[Event]]:
    """By the sender's names where given, else by pauses; in the order of time."""
    sessions: list[list[Event]] = []
    for event in events:
        last = sessions[-1][-1] if sessions else None
        same = last is not None and (
            last.body["session"] == event.body["session"]
            if last.body["session"] or event.body["session"]
            else event.at - last.at <= _SESSION_GAP
        )
        if same:
            sessions[-1].append(event)
        else:
            sessions.append([event])
    return sessions
