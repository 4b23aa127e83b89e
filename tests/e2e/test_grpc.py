"""BrainService over gRPC beside HTTP: the same accounts, engines, learners and limits."""

import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc

from neuroedge.grpc.brain_pb2 import (
    AnalyzeFocusRequest,
    AnalyzeSpeechRequest,
    FocusEvent,
    IdleStretch,
    PastSession,
    RunInferenceRequest,
)
from tests.conftest import SampleCall, Server, running_server
from tests.grpc_server.client import BrainClient, problem_of

pytestmark = pytest.mark.models


@dataclass(frozen=True)
class Both:
    """A server that answers HTTP and gRPC."""

    server: Server
    address: str

    def brain(self, account: httpx.Client) -> BrainClient:
        """A gRPC client with an account's token."""
        token = account.headers["authorization"].removeprefix("Bearer ")
        return BrainClient(grpc.insecure_channel(self.address), token=token)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, models_dir: Any) -> Iterator[Both]:
    """A server of its own, with a gRPC port, which its log names, and small messages."""
    folder = tmp_path_factory.mktemp("grpc")
    settings = {"NEUROEDGE_GRPC_PORT": "0", "NEUROEDGE_MAX_BODY_BYTES": str(2 << 20)}
    with running_server(folder / "data", models_dir, **settings) as server:
        lines = (folder / "data.log").read_text().splitlines()
        (told,) = [json.loads(line) for line in lines if '"grpc_listening"' in line]
        yield Both(server, f"127.0.0.1:{told['port']}")


@pytest.fixture(scope="module")
def school(both: Both) -> Iterator[httpx.Client]:
    """An organisation with twelve learners who answered ten items each."""
    with both.server.new_account() as client:
        start = datetime(2026, 1, 5, 8, tzinfo=UTC)
        for k in range(12):
            client.put(f"/v1/learners/l{k}/consent", json={"granted": True, "by": "school"})
            events = [
                {
                    "id": f"e{i}",
                    "at": (start + timedelta(minutes=i)).isoformat(),
                    "item": f"i{i}",
                    "skill": "fractions",
                    "correct": (i * 7 + k * 3) % 10 < 6,
                    "time_s": 20.0 + i,
                }
                for i in range(10)
            ]
            assert client.post(f"/v1/learners/l{k}/events", json={"events": events}).status_code == 200
        yield client


@pytest.fixture(scope="module")
def brain(both: Both, school: httpx.Client) -> Iterator[BrainClient]:
    """A client of that organisation."""
    with both.brain(school) as client:
        yield client


def _struct(**fields: Any) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def test_speech_is_analysed_as_over_http(brain: BrainClient, sample_call: SampleCall) -> None:
    """Eight seconds of real speech as raw PCM16: every part by its engine."""
    with wave.open(str(sample_call.wav)) as file:
        file.setpos(6 * 16_000)
        pcm = file.readframes(8 * 16_000)
    asked = AnalyzeSpeechRequest(audio=pcm, sample_rate=16_000, expected_text="hello", language="en")
    answer = brain.call("AnalyzeSpeech", asked, timeout_s=120)
    assert dict(answer.errors) == {}
    said = MessageToDict(answer.transcription)
    assert said["text"]
    assert answer.fluency_metrics["articulation_rate_syl_s"] > 1
    assert 75 < answer.prosody["f0_median_hz"] < 400
    assert answer.articulation["method"]
    assert "diagnosis" in answer.disclaimer
    assert answer.request_id == brain.initial["x-request-id"]


def test_a_part_that_cannot_be_judged_says_why(brain: BrainClient) -> None:
    """Without expected text there is no articulation; silence spoils, noise is suspected."""
    noise = np.random.default_rng(1).integers(-9000, 9000, 32_000).astype("<i2").tobytes()
    answer = brain.call("AnalyzeSpeech", AnalyzeSpeechRequest(audio=noise, sample_rate=16_000), timeout_s=120)
    assert answer.errors["articulation"].code == "not_asked"
    assert not answer.reliable
    assert any("noise" in warning for warning in answer.warnings)


def test_a_prediction_rests_on_kept_answers(brain: BrainClient, school: httpx.Client) -> None:
    """The same number as over HTTP."""
    asked = RunInferenceRequest(model_type="difficulty", learner_id="l3", input=_struct(items=["i0", "i9"]))
    answer = brain.call("RunInference", asked)
    body = {"learnerId": "l3", "input": {"items": ["i0", "i9"]}}
    over_http = school.post("/api/v1/ml/predict/difficulty", json=body).json()
    assert MessageToDict(answer.prediction) == pytest.approx(over_http["prediction"])
    assert (answer.engine, answer.method, answer.learner_id) == ("difficulty", over_http["method"], "l3")
    assert not answer.HasField("confidence")
    words = RunInferenceRequest(model_type="emotion", input=_struct(text="I am so happy and grateful for this gift!"))
    found = brain.call("RunInference", words)
    assert found.prediction.string_value in ("joy", "gratitude")
    assert 0 < found.confidence <= 1


def test_any_engine_answers_by_its_name(brain: BrainClient) -> None:
    """Its whole output in `details`; whole numbers are taken as such."""
    asked = RunInferenceRequest(model_type="embedding", input=_struct(texts=["a", "b"]))
    answer = brain.call("RunInference", asked)
    assert len(answer.details["vectors"]) == 2
    assert answer.prediction.WhichOneof("kind") == "null_value"


def test_focus_of_a_session_that_is_given(brain: BrainClient) -> None:
    """Score, interval, components and segments as the engine makes them."""
    past = [
        PastSession(
            responses=[FocusEvent(at_s=25.0 * i, reaction_ms=850 + 40 * ((i * 3 + day) % 7)) for i in range(40)],
            duration_s=1200 + 150.0 * day,
            ended_by="break" if day % 4 else "other",
        )
        for day in range(10)
    ]
    now = [FocusEvent(at_s=20.0 * i, reaction_ms=2600 + 35 * (i % 7)) for i in range(30)]
    idle = [IdleStretch(start_s=100, end_s=110)]
    answer = brain.call("AnalyzeFocus", AnalyzeFocusRequest(responses=now, idle=idle, past=past, pages=["a", "b"]))
    assert answer.score < 50
    assert answer.ci95.low <= answer.score <= answer.ci95.high
    assert {c.name for c in answer.components} >= {"log_reaction", "lapses"}
    assert answer.segments
    assert "never for grading" in answer.purpose
    little = brain.call("AnalyzeFocus", AnalyzeFocusRequest(responses=now[:2]))
    assert (little.HasField("score"), little.reliable) == (False, False)
    kept = brain.call("AnalyzeFocus", AnalyzeFocusRequest(learner_id="l2"))
    assert kept.method == answer.method


def test_nobody_gets_in_without_a_token(both: Both) -> None:
    """No token, a forged one; health needs none."""
    for token in (None, "forged.token.here", "sk-ne-0123456789ab-nothing"):
        with BrainClient(grpc.insecure_channel(both.address), token=token) as client:
            for method in ("AnalyzeSpeech", "RunInference", "AnalyzeFocus"):
                with pytest.raises(grpc.RpcError) as caught:
                    client.call(method, data=b"")
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(both.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_an_api_key_is_a_token_with_its_limits(both: Both, school: httpx.Client) -> None:
    """One for a single engine runs that one only."""
    key = school.post("/v1/api-keys", json={"name": "k", "engines": ["embedding"]}).json()["key"]
    with BrainClient(grpc.insecure_channel(both.address), token=key) as client:
        client.call("RunInference", RunInferenceRequest(model_type="embedding", input=_struct(texts=["a"])))
        with pytest.raises(grpc.RpcError) as caught:
            client.call("RunInference", RunInferenceRequest(model_type="emotion", input=_struct(text="a")))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.usefixtures("school")
def test_another_tenants_learner_is_not_there(both: Both) -> None:
    """NOT_FOUND, as for one that never was."""
    with both.server.new_account() as stranger, both.brain(stranger) as client:
        for message in (
            RunInferenceRequest(model_type="focus", learner_id="l2"),
            RunInferenceRequest(model_type="difficulty", learner_id="l2", input=_struct(items=["i0"])),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                client.call("RunInference", message)
            assert (caught.value.code(), problem_of(caught.value).code) == (grpc.StatusCode.NOT_FOUND, "not_found")
        with pytest.raises(grpc.RpcError) as caught:
            client.call("AnalyzeFocus", AnalyzeFocusRequest(learner_id="l2"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "message", "told"),
    [
        ("AnalyzeSpeech", AnalyzeSpeechRequest(), "no bytes"),
        ("AnalyzeSpeech", AnalyzeSpeechRequest(audio=b"\x00\x01"), "PCM16"),
        ("AnalyzeSpeech", AnalyzeSpeechRequest(audio=b"abc", sample_rate=16_000), "even number"),
        ("AnalyzeSpeech", AnalyzeSpeechRequest(audio=b"ab", sample_rate=1), "sample_rate"),
        ("AnalyzeSpeech", AnalyzeSpeechRequest(audio=b"ab", child_age=float("nan")), "child_age"),
        ("AnalyzeSpeech", AnalyzeSpeechRequest(audio=b"ab", language="English"), "language"),
        ("RunInference", RunInferenceRequest(model_type="focus"), "learnerId"),
        ("RunInference", RunInferenceRequest(model_type="emotion", input=_struct(text=5)), "text"),
        ("RunInference", RunInferenceRequest(model_type="embedding", input=_struct(texts=[], other=1)), "other"),
        ("RunInference", RunInferenceRequest(model_type="focus", learner_id="a\x00b"), "learner_id"),
        ("AnalyzeFocus", AnalyzeFocusRequest(responses=[FocusEvent(at_s=-1, reaction_ms=5)]), "at_s"),
        ("AnalyzeFocus", AnalyzeFocusRequest(responses=[FocusEvent(at_s=1, reaction_ms=float("nan"))]), "reaction_ms"),
        ("AnalyzeFocus", AnalyzeFocusRequest(responses=[FocusEvent(at_s=1, reaction_ms=9)] * 5001), "responses"),
        ("AnalyzeFocus", AnalyzeFocusRequest(past=[PastSession(duration_s=5, ended_by="never")]), "ended_by"),
    ],
)
def test_bad_input_is_an_invalid_argument(brain: BrainClient, method: str, message: Any, told: str) -> None:
    """With what is wrong, by field where there is one; never INTERNAL."""
    with pytest.raises(grpc.RpcError) as caught:
        brain.call(method, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert told in str(problem_of(caught.value))


def test_a_message_over_the_limit_is_refused(brain: BrainClient) -> None:
    """That of other bodies (NEUROEDGE_MAX_BODY_BYTES); the next call is answered."""
    with pytest.raises(grpc.RpcError) as caught:
        brain.call("AnalyzeSpeech", AnalyzeSpeechRequest(audio=bytes(3 << 20), sample_rate=16_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    brain.call("RunInference", RunInferenceRequest(model_type="embedding", input=_struct(texts=["a"])))


def test_a_deadline_that_is_too_short_is_kept(brain: BrainClient, sample_call: SampleCall) -> None:
    """The call ends in time and the server goes on; so short that no part is measured, which would be an answer."""
    with pytest.raises(grpc.RpcError) as caught:
        brain.call("AnalyzeSpeech", AnalyzeSpeechRequest(audio=sample_call.wav.read_bytes()), timeout_s=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    brain.call("RunInference", RunInferenceRequest(model_type="embedding", input=_struct(texts=["a"])))


def test_calls_are_counted(both: Both, school: httpx.Client, brain: BrainClient) -> None:
    """In the metrics by method and status, and in the organisation's usage with the engine."""
    brain.call("RunInference", RunInferenceRequest(model_type="embedding", input=_struct(texts=["counted"])))
    metrics = httpx.get(f"{both.server.url}/metrics", timeout=60).text
    assert 'neuroedge_grpc_request_seconds_count{method="RunInference",status="OK"}' in metrics
    assert 'status="UNAUTHENTICATED"' in metrics
