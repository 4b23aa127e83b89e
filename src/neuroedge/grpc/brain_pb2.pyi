# ruff: noqa
# fmt: off
# mypy: disable-error-code=type-arg
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalyzeSpeechRequest(_message.Message):
    __slots__ = ("audio", "sample_rate", "child_age", "task_type", "expected_text", "language", "learner_id")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    CHILD_AGE_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ID_FIELD_NUMBER: _ClassVar[int]
    audio: bytes
    sample_rate: int
    child_age: float
    task_type: str
    expected_text: str
    language: str
    learner_id: str
    def __init__(self, audio: _Optional[bytes] = ..., sample_rate: _Optional[int] = ..., child_age: _Optional[float] = ..., task_type: _Optional[str] = ..., expected_text: _Optional[str] = ..., language: _Optional[str] = ..., learner_id: _Optional[str] = ...) -> None: ...

class AnalyzeSpeechResponse(_message.Message):
    __slots__ = ("transcription", "articulation_errors", "articulation", "fluency_metrics", "prosody", "errors", "reliable", "warnings", "disclaimer", "request_id")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Problem
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...
    TRANSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ARTICULATION_ERRORS_FIELD_NUMBER: _ClassVar[int]
    ARTICULATION_FIELD_NUMBER: _ClassVar[int]
    FLUENCY_METRICS_FIELD_NUMBER: _ClassVar[int]
    PROSODY_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    RELIABLE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    DISCLAIMER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    transcription: _struct_pb2.Struct
    articulation_errors: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    articulation: _struct_pb2.Struct
    fluency_metrics: _struct_pb2.Struct
    prosody: _struct_pb2.Struct
    errors: _containers.MessageMap[str, Problem]
    reliable: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    disclaimer: str
    request_id: str
    def __init__(self, transcription: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., articulation_errors: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., articulation: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., fluency_metrics: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., prosody: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., errors: _Optional[_Mapping[str, Problem]] = ..., reliable: _Optional[bool] = ..., warnings: _Optional[_Iterable[str]] = ..., disclaimer: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RunInferenceRequest(_message.Message):
    __slots__ = ("model_type", "input", "learner_id")
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ID_FIELD_NUMBER: _ClassVar[int]
    model_type: str
    input: _struct_pb2.Struct
    learner_id: str
    def __init__(self, model_type: _Optional[str] = ..., input: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., learner_id: _Optional[str] = ...) -> None: ...

class RunInferenceResponse(_message.Message):
    __slots__ = ("prediction", "confidence", "model_type", "learner_id", "engine", "method", "reliable", "warnings", "details", "request_id")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RELIABLE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    prediction: _struct_pb2.Value
    confidence: float
    model_type: str
    learner_id: str
    engine: str
    method: str
    reliable: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    details: _struct_pb2.Struct
    request_id: str
    def __init__(self, prediction: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., confidence: _Optional[float] = ..., model_type: _Optional[str] = ..., learner_id: _Optional[str] = ..., engine: _Optional[str] = ..., method: _Optional[str] = ..., reliable: _Optional[bool] = ..., warnings: _Optional[_Iterable[str]] = ..., details: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class FocusEvent(_message.Message):
    __slots__ = ("at_s", "reaction_ms")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    REACTION_MS_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    reaction_ms: float
    def __init__(self, at_s: _Optional[float] = ..., reaction_ms: _Optional[float] = ...) -> None: ...

class IdleStretch(_message.Message):
    __slots__ = ("start_s", "end_s")
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    start_s: float
    end_s: float
    def __init__(self, start_s: _Optional[float] = ..., end_s: _Optional[float] = ...) -> None: ...

class PastSession(_message.Message):
    __slots__ = ("responses", "idle", "duration_s", "ended_by")
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[FocusEvent]
    idle: _containers.RepeatedCompositeFieldContainer[IdleStretch]
    duration_s: float
    ended_by: str
    def __init__(self, responses: _Optional[_Iterable[_Union[FocusEvent, _Mapping]]] = ..., idle: _Optional[_Iterable[_Union[IdleStretch, _Mapping]]] = ..., duration_s: _Optional[float] = ..., ended_by: _Optional[str] = ...) -> None: ...

class AnalyzeFocusRequest(_message.Message):
    __slots__ = ("responses", "idle", "elapsed_s", "past", "pages", "learner_id")
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ID_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[FocusEvent]
    idle: _containers.RepeatedCompositeFieldContainer[IdleStretch]
    elapsed_s: float
    past: _containers.RepeatedCompositeFieldContainer[PastSession]
    pages: _containers.RepeatedScalarFieldContainer[str]
    learner_id: str
    def __init__(self, responses: _Optional[_Iterable[_Union[FocusEvent, _Mapping]]] = ..., idle: _Optional[_Iterable[_Union[IdleStretch, _Mapping]]] = ..., elapsed_s: _Optional[float] = ..., past: _Optional[_Iterable[_Union[PastSession, _Mapping]]] = ..., pages: _Optional[_Iterable[str]] = ..., learner_id: _Optional[str] = ...) -> None: ...

class AnalyzeFocusResponse(_message.Message):
    __slots__ = ("score", "ci95", "components", "segments", "p_break_5min", "suggest_break_at_s", "next_pages", "method", "reliable", "warnings", "purpose", "request_id")
    class Interval(_message.Message):
        __slots__ = ("low", "high")
        LOW_FIELD_NUMBER: _ClassVar[int]
        HIGH_FIELD_NUMBER: _ClassVar[int]
        low: float
        high: float
        def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...
    class Component(_message.Message):
        __slots__ = ("name", "value", "usual", "z")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        USUAL_FIELD_NUMBER: _ClassVar[int]
        Z_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: float
        usual: float
        z: float
        def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., usual: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...
    class Segment(_message.Message):
        __slots__ = ("start_s", "end_s", "state", "mean_reaction_ms", "responses")
        START_S_FIELD_NUMBER: _ClassVar[int]
        END_S_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        MEAN_REACTION_MS_FIELD_NUMBER: _ClassVar[int]
        RESPONSES_FIELD_NUMBER: _ClassVar[int]
        start_s: float
        end_s: float
        state: str
        mean_reaction_ms: float
        responses: int
        def __init__(self, start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., state: _Optional[str] = ..., mean_reaction_ms: _Optional[float] = ..., responses: _Optional[int] = ...) -> None: ...
    class Page(_message.Message):
        __slots__ = ("page", "p")
        PAGE_FIELD_NUMBER: _ClassVar[int]
        P_FIELD_NUMBER: _ClassVar[int]
        page: str
        p: float
        def __init__(self, page: _Optional[str] = ..., p: _Optional[float] = ...) -> None: ...
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CI95_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    P_BREAK_5MIN_FIELD_NUMBER: _ClassVar[int]
    SUGGEST_BREAK_AT_S_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGES_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RELIABLE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    score: float
    ci95: AnalyzeFocusResponse.Interval
    components: _containers.RepeatedCompositeFieldContainer[AnalyzeFocusResponse.Component]
    segments: _containers.RepeatedCompositeFieldContainer[AnalyzeFocusResponse.Segment]
    p_break_5min: float
    suggest_break_at_s: float
    next_pages: _containers.RepeatedCompositeFieldContainer[AnalyzeFocusResponse.Page]
    method: str
    reliable: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    request_id: str
    def __init__(self, score: _Optional[float] = ..., ci95: _Optional[_Union[AnalyzeFocusResponse.Interval, _Mapping]] = ..., components: _Optional[_Iterable[_Union[AnalyzeFocusResponse.Component, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[AnalyzeFocusResponse.Segment, _Mapping]]] = ..., p_break_5min: _Optional[float] = ..., suggest_break_at_s: _Optional[float] = ..., next_pages: _Optional[_Iterable[_Union[AnalyzeFocusResponse.Page, _Mapping]]] = ..., method: _Optional[str] = ..., reliable: _Optional[bool] = ..., warnings: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "detail", "hint", "errors", "request_id", "retry_after_s")
    class FieldError(_message.Message):
        __slots__ = ("field", "message", "type")
        FIELD_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        field: str
        message: str
        type: str
        def __init__(self, field: _Optional[str] = ..., message: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    hint: str
    errors: _containers.RepeatedCompositeFieldContainer[Problem.FieldError]
    request_id: str
    retry_after_s: int
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ..., errors: _Optional[_Iterable[_Union[Problem.FieldError, _Mapping]]] = ..., request_id: _Optional[str] = ..., retry_after_s: _Optional[int] = ...) -> None: ...
