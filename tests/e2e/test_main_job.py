"""The main job on the real recording, over HTTP: heard, told apart, felt, remembered, asked."""

from typing import Any

import httpx
import jiwer
import pytest

from tests.conftest import SampleCall, Server
from tests.e2e.following import events, finished, processed, send

pytestmark = pytest.mark.models

NORMALISE = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.SubstituteRegexes({r"[^\w\s']": " "}),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """The organisation that owns the recording, and has allowed emotion from the voice."""
    with server.new_account() as client:
        body = {"name": "voice_emotion", "allowed": True, "purpose": "a test of the pipeline", "ground": "other"}
        assert client.put("/v1/settings/switches", json=body).status_code == 200
        yield client


@pytest.fixture(scope="module")
def call(caller: httpx.Client, sample_call: SampleCall) -> dict[str, Any]:
    """The sample call, processed."""
    detail = processed(caller, sample_call.wav, title="Sample call")
    assert detail["status"] == "done", detail
    return detail


def _reference_words(sample: SampleCall) -> str:
    rows = [line.split(maxsplit=5) for line in sample.stm.read_text().splitlines() if line and line[0] != ";"]
    return " ".join(row[5].split(">", 1)[-1] for row in sorted(rows, key=lambda row: float(row[3])))


def test_the_words_are_mostly_right(call: dict[str, Any], sample_call: SampleCall) -> None:
    """Word error rate of a telephone call with the base model; a wrong model or lost speech shows at once."""
    error = jiwer.wer(
        _reference_words(sample_call), call["text"], reference_transform=NORMALISE, hypothesis_transform=NORMALISE
    )
    assert error < 0.45


def test_speakers_are_told_apart(call: dict[str, Any], sample_call: SampleCall) -> None:
    """Two speakers found without being told, DER with 0.25 s collar at most 0.25."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    reference, found = Annotation(), Annotation()
    for line in sample_call.rttm.read_text().splitlines():
        row = line.split()
        reference[Segment(float(row[3]), float(row[3]) + float(row[4])), row[7]] = row[7]
    for n, segment in enumerate(call["segments"]):
        found[Segment(segment["start_s"], segment["end_s"]), n] = segment["speaker"]
    assert len(call["speakers"]) == 2
    # pyannote's collar is the whole no-score zone: 0.5 s is 0.25 s on each side of a boundary.
    scored = Timeline([Segment(0, call["analysis"]["duration_s"])])
    assert DiarizationErrorRate(collar=0.5)(reference, found, uem=scored) <= 0.25


def test_each_segment_has_speaker_times_text_words_confidence_and_emotion(call: dict[str, Any]) -> None:
    """Segments are in order, inside the recording, and made of their words."""
    last = 0.0
    for segment in call["segments"]:
        assert last <= segment["start_s"] + 1.0
        assert segment["start_s"] < segment["end_s"] <= call["analysis"]["duration_s"] + 0.5
        assert segment["words"]
        assert 0 < segment["confidence"] <= 1
        assert segment["text"].strip()
        assert segment["emotion"]["text_method"]
        assert segment["emotion"]["voice_method"]
        last = segment["start_s"]
    assert any(segment["emotion"]["labels"] for segment in call["segments"])
    assert any(segment["emotion"]["arousal"] is not None for segment in call["segments"])


def test_every_segment_is_remembered(caller: httpx.Client, call: dict[str, Any]) -> None:
    """Each segment can be found by its own words, with speaker and second."""
    for segment in call["segments"]:
        query = {"query": segment["text"][:500], "recording_id": call["id"], "top_k": 3}
        hits = caller.post("/v1/engines/search/run", json=query).json()["result"]["hits"]
        assert segment["text"] in [hit["content"] for hit in hits]
        hit = next(hit for hit in hits if hit["content"] == segment["text"])
        assert hit["metadata"]["speaker"] == segment["speaker"]


def test_questions_are_answered_with_speaker_and_second(caller: httpx.Client, call: dict[str, Any]) -> None:
    """An answer that the recording holds cites who said it and when."""
    from neuroedge.cli.demo import SAMPLE_QUESTIONS

    starts = {round(segment["start_s"], 2) for segment in call["segments"]}
    for question in SAMPLE_QUESTIONS[:2]:
        answer = caller.post("/v1/engines/chat/run", json={"message": question, "recording_id": call["id"]}).json()[
            "result"
        ]
        assert answer["answered"], answer
        assert answer["citations"], answer
        for citation in answer["citations"]:
            assert citation["speaker"] in {s["label"] for s in call["speakers"]}
            assert round(citation["start_s"], 2) in starts
            assert citation["quote"].strip()


def test_what_the_recording_does_not_say_is_not_invented(caller: httpx.Client, call: dict[str, Any]) -> None:
    """Questions without an answer in the call get a refusal, with a reason and no citation."""
    from neuroedge.cli.demo import SAMPLE_QUESTIONS

    for question in (SAMPLE_QUESTIONS[2], "Which airline did they book?", "Who won the football match?"):
        answer = caller.post("/v1/engines/chat/run", json={"message": question, "recording_id": call["id"]}).json()[
            "result"
        ]
        assert not answer["answered"], answer
        assert "not in the recording" in answer["message"].lower()
        assert answer["reason"]
        assert answer["citations"] == []


def test_events_tell_each_step_and_can_be_resumed(caller: httpx.Client, call: dict[str, Any]) -> None:
    """A late listener sees all steps in order; one that gives the last id sees only what came after."""
    seen = list(events(caller, call["id"]))
    steps = [data["step"] for _, name, data in seen if name == "step"]
    assert steps == ["analyse", "transcribe", "diarize", "identify", "emotion", "remember"]
    assert seen[0][1] == "queued"
    assert seen[-1][1] == "done"
    middle = len(seen) // 2
    again = list(events(caller, call["id"], after=seen[middle][0]))
    assert [event[0] for event in again] == [event[0] for event in seen[middle + 1 :]]


def test_deleting_a_recording_deletes_all_of_it(server: Server, sample_call: SampleCall) -> None:
    """Rows, memories, events and objects go; the second delete is a 404."""
    with server.new_account() as client:
        detail = processed(client, sample_call.wav)
        org = client.get("/auth/me").json()["tenant"]
        folder = server.data_dir / "blobs" / org / "recordings" / detail["id"]
        assert folder.is_dir()
        assert client.delete(f"/v1/recordings/{detail['id']}").status_code == 204
        assert not folder.exists()
        assert client.get(f"/v1/recordings/{detail['id']}").status_code == 404
        assert client.get(f"/v1/recordings/{detail['id']}/events").status_code == 404
        assert client.delete(f"/v1/recordings/{detail['id']}").status_code == 404
        assert client.post("/rag/search", json={"query": detail["segments"][0]["text"]}).json() == []


def test_deleting_while_it_is_processed_stops_it(account: httpx.Client, sample_call: SampleCall) -> None:
    """No row comes back from a job whose recording is gone."""
    created = send(account, sample_call.wav)
    assert account.delete(f"/v1/recordings/{created['id']}").status_code == 204
    other = send(account, sample_call.wav)
    finished(account, other["id"])  # the worker takes one job after the other
    assert [r["id"] for r in account.get("/v1/recordings").json()["recordings"]] == [other["id"]]


def test_recordings_are_listed_newest_first_in_pages(account: httpx.Client, sample_call: SampleCall) -> None:
    """`next` leads through all of them once."""
    sent = [send(account, sample_call.wav, title=f"t{n}")["id"] for n in range(3)]
    first = account.get("/v1/recordings", params={"limit": 2}).json()
    second = account.get("/v1/recordings", params={"limit": 2, "before": first["next"]}).json()
    assert [r["id"] for r in first["recordings"] + second["recordings"]] == sent[::-1]
    assert second.get("next") is None
    for recording_id in sent:
        account.delete(f"/v1/recordings/{recording_id}")


def test_usage_and_metrics_count_the_work(account: httpx.Client, call: dict[str, Any]) -> None:
    """Prometheus sees engines, steps and models; no tenant stands in a metric."""
    text = account.get("/metrics").text
    for line in (
        'neuroedge_engine_seconds_count{engine="transcription",outcome="ok"}',
        'neuroedge_recording_step_seconds_count{step="diarize"}',
        'neuroedge_model_loaded{model="whisper-base"} 1.0',
        "neuroedge_http_request_seconds_count",
    ):
        assert line in text
    assert account.get("/auth/me").json()["tenant"] not in text
