"""Predictions for learners, of the data that is given or of the events that are kept of a learner.

Each kind is an engine of learning with the one value a client asks for taken out of its answer. Field names of the data
may be in snake_case or camelCase.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.services import learner_inputs
from neuroedge.services.learners import Learners
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores.learners import Event

Kind = Literal[
    "difficulty",
    "engagement",
    "learning_style",
    "emotion",
    "focus",
    "focus_analysis",
    "break",
    "attention",
    "personalize",
    "recommendation",
]
_HUMP: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
_MAX_ITEMS: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An engine's answer and what was asked for in it."""

    engine: str
    prediction: Any
    """None: it rests on too little."""
    confidence: float | None
    """Probability of what `prediction` says, as the engine gives it; None: it gives none."""
    details: dict[str, Any]
    """The engine's whole answer."""

    @property
    def method(self) -> str:
        """What answered."""
        return str(self.details["method"])

    @property
    def reliable(self) -> bool:
        """Whether it rests on enough."""
        return bool(self.details.get("reliable", self.prediction is not None))

    @property
    def warnings(self) -> list[str]:
        """What is missing or uncertain."""
        return list(self.details.get("warnings", []))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    principal: Principal
    learner: str | None
    request_id: str
    given: dict[str, Any] = field(default_factory=dict)


class Predictions:
    """Asks the engines of learning."""

    def __init__(self, *, runner: EngineRunner, learners: Learners) -> None:
        self._runner = runner
        self._learners = learners
        self._kinds: dict[Kind, Callable[[_Call], Awaitable[Prediction]]] = {
            "difficulty": self._difficulty,
            "engagement": self._engagement,
            "learning_style": self._learning_style,
            "emotion": self._emotion,
            "focus": self._focus,
            "focus_analysis": self._focus_analysis,
            "break": self._break,
            "attention": self._attention,
            "personalize": self._personalize,
            "recommendation": self._recommendation,
        }

    async def predict(
        self, kind: Kind, given: Mapping[str, Any], *, learner: str | None, principal: Principal, request_id: str
    ) -> Prediction:
        """Of the engine's own fields in `given`, or without its data of what is kept of `learner`.

        Raises InvalidInput, NotFound, Forbidden without consent, what the engine raises.
        """
        call = _Call(principal=principal, learner=learner, request_id=request_id, given=snake(dict(given)))
        return await self._kinds[kind](call)

    async def _difficulty(self, call: _Call) -> Prediction:
        """The chance of a right answer, or a list of them."""
        if "responses" in call.given:
            told = await self._run("difficulty", call.given, call)
        else:
            items = _items(call.given)
            learner, answers = await self._answers(call)
            told = await self._run("difficulty", learner_inputs.difficulty(learner, answers, items=items), call)
            # The others' answers made the scale; their estimates are not this caller's question.
            for part in ("students", "mastery"):
                told[part] = [row for row in told[part] if row["student"] == str(learner)]
        chances = [row["p_correct"] for row in told["predictions"]]
        single = chances[0] if len(chances) == 1 else None
        sure = None if single is None else max(single, 1 - single)
        return _found("difficulty", told, single if len(chances) == 1 else chances, sure)

    async def _engagement(self, call: _Call) -> Prediction:
        """Engaged or disengaged."""
        given = call.given
        if "events" not in given:
            given = learner_inputs.engagement(*await self._answers(call))
        told = await self._run("engagement", given, call)
        p = told["p_disengage"]
        return _found("engagement", told, "disengaged" if p >= 0.5 else "engaged", max(p, 1 - p))

    async def _learning_style(self, call: _Call) -> Prediction:
        """The verdict, which is "insufficient" by default."""
        given = call.given
        if "outcomes" not in given:
            given = learner_inputs.learning_preference(*await self._answers(call))
        told = await self._run("learning_preference", given, call)
        return _found("learning_preference", told, told["verdict"], None)

    async def _emotion(self, call: _Call) -> Prediction:
        """The likeliest label of `text`; None when the engine abstains."""
        given = call.given
        if "text" in given:
            given = {**{k: v for k, v in given.items() if k != "text"}, "segments": [{"text": given["text"]}]}
        told = await self._run("emotion", given, call)
        best = max(told["emotions"], key=lambda found: found["score"], default=None)
        return _found("emotion", told, best and best["label"], best and best["score"])

    async def _focus(self, call: _Call) -> Prediction:
        """A score of 0 to 100, 50 is usual."""
        told = await self._focus_told(call)
        return _found("focus", told, told["score_0_100"], None)

    async def _focus_analysis(self, call: _Call) -> Prediction:
        """Score, interval and components."""
        told = await self._focus_told(call)
        found = {"score": told["score_0_100"], "ci95": told["ci95"], "components": told["components"]}
        return _found("focus", told, found, None)

    async def _break(self, call: _Call) -> Prediction:
        """When to suggest a break, and the chance that one is wanted within five minutes."""
        told = await self._focus_told(call)
        found = {"suggestAtSeconds": told["suggest_at_s"], "pBreak5min": told["p_break_5min"]}
        return _found("focus", told, found, told["p_break_5min"])

    async def _attention(self, call: _Call) -> Prediction:
        """Stretches of the session with their state."""
        told = await self._focus_told(call)
        return _found("focus", told, told["segments"], None)

    async def _personalize(self, call: _Call) -> Prediction:
        """What to learn next, of `skills`, with the learner's kept mastery where none is given."""
        given = dict(call.given)
        if call.learner is not None and "mastery" not in given:
            profile = await self._learners.profile(call.principal, call.learner)
            named = _named(given.get("skills"))
            given["mastery"] = [
                {"skill": s.skill, "p": s.p_mastery, "n": s.n} for s in profile.skills if s.skill in named
            ]
        told = await self._run("learning_path", given, call)
        return _found("learning_path", told, told["next"], None)

    async def _recommendation(self, call: _Call) -> Prediction:
        """What to show next, for the learner where taste is asked for; of the items the first one is drawn."""
        given = dict(call.given)
        if call.learner is not None and given.get("method") in ("uses", "ratings"):
            given.setdefault("user", call.learner)
        told = await self._run("recommendation", given, call)
        return _found("recommendation", told, told["items"], None)

    async def _focus_told(self, call: _Call) -> dict[str, Any]:
        given = call.given
        if "responses" not in given:
            name = _learner(call)
            events = await self._learners.events(call.principal, name, newest=learner_inputs.NEWEST_OWN)
            given = learner_inputs.focus(events)
        return await self._run("focus", given, call)

    async def _answers(self, call: _Call) -> tuple[UUID, list[tuple[UUID, Event]]]:
        name = _learner(call)
        return await self._learners.answers_of_all(call.principal, name, newest=learner_inputs.NEWEST_ANSWERS)

    async def _run(self, engine: str, given: Mapping[str, Any], call: _Call) -> dict[str, Any]:
        answer = await self._runner.run(engine, given, principal=call.principal, request_id=call.request_id)
        return answer.model_dump(mode="json")


def snake(value: Any) -> Any:
    """The same with camelCase keys in snake_case."""
    if isinstance(value, dict):
        return {_HUMP.sub(lambda hump: f"_{hump[1].lower()}", key): snake(inner) for key, inner in value.items()}
    return [snake(inner) for inner in value] if isinstance(value, list) else value


def _found(engine: str, told: dict[str, Any], prediction: Any, confidence: float | None) -> Prediction:
    return Prediction(engine=engine, prediction=prediction, confidence=confidence, details=told)


def _learner(call: _Call) -> str:
    if call.learner is None:
        raise InvalidInput(
            "`input` holds no data and `learnerId` is not given",
            hint="put the engine's fields into `input`, or name a learner whose events are kept",
        )
    return call.learner


def _named(skills: Any) -> set[str]:
    """Ids of a list of skills, as far as it is one; what else it holds is the engine's to refuse."""
    rows = [row for row in skills if isinstance(row, dict)] if isinstance(skills, list) else []
    return {row["id"] for row in rows if isinstance(row.get("id"), str)}


def _items(given: Mapping[str, Any]) -> list[str]:
    items = given.get("items", given.get("item"))
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, list) or not all(isinstance(i, str) and i for i in items) or len(items) > _MAX_ITEMS:
        raise InvalidInput(
            "`input.items` is missing or no list of names", hint=f"name the items to predict, at most {_MAX_ITEMS}"
        )
    return items
