"""The methods of BrainService: messages in, the services' answers out; no logic of its own."""

from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning import focus
from neuroedge.grpc.brain_pb2 import (
    AnalyzeFocusRequest,
    AnalyzeFocusResponse,
    AnalyzeSpeechRequest,
    AnalyzeSpeechResponse,
    RunInferenceRequest,
    RunInferenceResponse,
)
from neuroedge.grpc.calls import Caller
from neuroedge.grpc.problems import problem_of
from neuroedge.grpc.structs import payload_of, struct_of, value_of
from neuroedge.services import speech
from neuroedge.services.learners import Learners, Name
from neuroedge.services.predictions import Kind, Prediction, Predictions, snake
from neuroedge.services.run_engine import EngineRunner

M = TypeVar("M", bound=BaseModel)
_ALIASES: Final[dict[str, Kind]] = {"content": "recommendation", "recommend": "recommendation"}
_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)} | _ALIASES


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Speech(_Checked):
    sample_rate: Annotated[int, Field(ge=4_000, le=192_000)] | None
    child_age: Annotated[float, Field(ge=1, le=120)] | None
    task_type: Annotated[str, Field(max_length=100)]
    expected_text: Annotated[str, Field(max_length=1000)]
    language: Annotated[str, Field(pattern="^([a-z]{2,3}|auto)?$")]
    learner_id: Annotated[str, Field(max_length=200)]


class _Inference(_Checked):
    model_type: Annotated[str, Field(min_length=1, max_length=100)]
    learner_id: Name | None


class _Focus(_Checked):
    learner_id: Name | None


class Brain:
    """Answers calls of known callers."""

    def __init__(self, *, runner: EngineRunner, learners: Learners) -> None:
        self._runner = runner
        self._predictions = Predictions(runner=runner, learners=learners)

    async def analyze_speech(self, message: AnalyzeSpeechRequest, caller: Caller) -> AnalyzeSpeechResponse:
        """All that is measured of a recording; a part that fails stands in `errors`."""
        asked = _checked(
            _Speech,
            sample_rate=message.sample_rate if message.HasField("sample_rate") else None,
            child_age=message.child_age if message.HasField("child_age") else None,
            task_type=message.task_type,
            expected_text=message.expected_text,
            language=message.language,
            learner_id=message.learner_id,
        )
        heard = speech.sound_of(message.audio, sample_rate_hz=asked.sample_rate)
        ask = speech.asked_for(
            heard,
            task_type=asked.task_type or None,
            expected_text=asked.expected_text or None,
            child_age_years=asked.child_age,
            language=asked.language or None,
        )
        parts = await speech.analyse(self._runner, ask, principal=caller.principal, request_id=caller.request_id)
        results = {name: part.result for name, part in parts.items() if part.result}
        said = results.get("articulation")
        answer = AnalyzeSpeechResponse(
            articulation_errors=[] if said is None else [struct_of(one) for one in speech.articulation_errors(said)],
            errors={name: problem_of(part.error, caller.request_id) for name, part in parts.items() if part.error},
            reliable=speech.reliable(parts) and not heard.warnings,
            warnings=[*heard.warnings, *speech.warnings_of(parts)],
            disclaimer=speech.DISCLAIMER,
            request_id=caller.request_id,
        )
        for name, result in results.items():
            getattr(answer, "fluency_metrics" if name == "fluency" else name).CopyFrom(struct_of(result))
        return answer

    async def run_inference(self, message: RunInferenceRequest, caller: Caller) -> RunInferenceResponse:
        """A prediction for a learner, or any other engine by its name."""
        asked = _checked(_Inference, model_type=message.model_type, learner_id=message.learner_id or None)
        given = payload_of(message.input)
        kind = _KINDS.get(asked.model_type.strip().lower().replace("-", "_"))
        if kind is None:
            found = await self._engine(asked.model_type, snake(given), caller)
        else:
            found = await self._predictions.predict(
                kind, given, learner=asked.learner_id, principal=caller.principal, request_id=caller.request_id
            )
        return RunInferenceResponse(
            prediction=value_of(found.prediction),
            confidence=found.confidence,
            model_type=asked.model_type,
            learner_id=asked.learner_id or "",
            engine=found.engine,
            method=found.method,
            reliable=found.reliable if kind else bool(found.details.get("reliable", True)),
            warnings=found.warnings,
            details=struct_of(found.details),
            request_id=caller.request_id,
        )

    async def analyze_focus(self, message: AnalyzeFocusRequest, caller: Caller) -> AnalyzeFocusResponse:
        """Focus of a session that is given, or of the events that are kept of a learner."""
        asked = _checked(_Focus, learner_id=message.learner_id or None)
        found = await self._predictions.predict(
            "focus_analysis",
            _session(message),
            learner=asked.learner_id,
            principal=caller.principal,
            request_id=caller.request_id,
        )
        told = focus.Output.model_validate(found.details)
        return _focus_answer(told, caller.request_id)

    async def _engine(self, name: str, given: dict[str, Any], caller: Caller) -> Prediction:
        answer = await self._runner.run(name, given, principal=caller.principal, request_id=caller.request_id)
        return Prediction(engine=name, prediction=None, confidence=None, details=answer.model_dump(mode="json"))


def _session(message: AnalyzeFocusRequest) -> dict[str, Any]:
    """The engine's fields; without `responses` where the kept events of a learner are meant."""
    if message.learner_id and not message.responses:
        return {}
    given: dict[str, Any] = {
        "responses": [{"at_s": one.at_s, "reaction_ms": one.reaction_ms} for one in message.responses],
        "idle": [{"start_s": one.start_s, "end_s": one.end_s} for one in message.idle],
        "past": [
            {
                "responses": [{"at_s": one.at_s, "reaction_ms": one.reaction_ms} for one in session.responses],
                "idle": [{"start_s": one.start_s, "end_s": one.end_s} for one in session.idle],
                "duration_s": session.duration_s,
                "ended_by": session.ended_by,
            }
            for session in message.past
        ],
        "pages": list(message.pages),
    }
    return given | ({"elapsed_s": message.elapsed_s} if message.HasField("elapsed_s") else {})


def _focus_answer(told: focus.Output, request_id: str) -> AnalyzeFocusResponse:
    kinds = AnalyzeFocusResponse
    return AnalyzeFocusResponse(
        score=told.score_0_100,
        ci95=None if told.ci95 is None else kinds.Interval(low=told.ci95.low, high=told.ci95.high),
        components=[kinds.Component(name=c.name, value=c.value, usual=c.usual, z=c.z) for c in told.components],
        segments=[
            kinds.Segment(
                start_s=s.start_s, end_s=s.end_s, state=s.state, mean_reaction_ms=s.mean_reaction_ms, responses=s.n
            )
            for s in told.segments
        ],
        p_break_5min=told.p_break_5min,
        suggest_break_at_s=told.suggest_at_s,
        next_pages=[kinds.Page(page=page.page, p=page.p) for page in told.next_pages],
        method=told.method,
        reliable=told.reliable,
        warnings=told.warnings,
        purpose=told.purpose,
        request_id=request_id,
    )


def _checked(model: type[M], **fields: Any) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput(
            "a field of the message is wrong",
            hint="brain.proto says what each takes",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
