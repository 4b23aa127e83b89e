"""A processed recording given out as subtitles, who spoke when, text and JSON; terms it is heard with; its speed."""

import re
from typing import Any

import httpx
import pytest

from tests.conftest import SampleCall, Server
from tests.e2e.following import events, processed, send

pytestmark = pytest.mark.models

TIME = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d\d\d) --> (\d\d):(\d\d):(\d\d)[.,](\d\d\d)")


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """The organisation that owns the recording."""
    with server.new_account() as client:
        client.put("/v1/settings/glossary", json={"terms": ["Diane", "Sheila"]})
        yield client


@pytest.fixture(scope="module")
def call(caller: httpx.Client, sample_call: SampleCall) -> dict[str, Any]:
    """The sample call, processed with terms of its own."""
    detail = processed(caller, sample_call.wav, hot_words="New York, Texas", language="en")
    assert detail["status"] == "done", detail
    return detail


def _file(client: httpx.Client, call: dict[str, Any], form: str, **query: Any) -> httpx.Response:
    answer = client.get(f"/v1/recordings/{call['id']}/transcript", params={"format": form, **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{call["id"]}.{form}"'
    return answer


def _seconds(match: re.Match[str]) -> tuple[float, float]:
    n = [int(group) for group in match.groups()]
    return n[0] * 3600 + n[1] * 60 + n[2] + n[3] / 1000, n[4] * 3600 + n[5] * 60 + n[6] + n[7] / 1000


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


@pytest.mark.parametrize(("form", "media_type"), [("srt", "application/x-subrip"), ("vtt", "text/vtt")])
def test_subtitles_hold_every_word_in_readable_cues(
    caller: httpx.Client, call: dict[str, Any], form: str, media_type: str
) -> None:
    """Two lines of 42 characters at most, in order of time, inside the recording, nothing lost."""
    answer = _file(caller, call, form, names=False)
    assert answer.headers["content-type"].startswith(media_type)
    cues = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    if form == "vtt":
        assert cues.pop(0) == ["WEBVTT"]
    lines: list[str] = []
    times = []
    for cue in cues:
        at = 1 if form == "srt" else 0
        match = TIME.fullmatch(cue[at])
        assert match, cue
        times.append(_seconds(match))
        assert 1 <= len(cue[at + 1 :]) <= 2
        lines += cue[at + 1 :]
    assert all(len(line) <= 42 for line in lines)
    assert times == sorted(times)
    length_s = call["analysis"]["duration_s"]
    assert all(0 <= start < end and start <= length_s and end <= length_s + 5 for start, end in times)
    spoken = [word for segment in call["segments"] for word in _words(segment["text"])]
    assert sorted(_words(" ".join(lines))) == sorted(spoken)


def test_subtitles_name_who_speaks(caller: httpx.Client, call: dict[str, Any]) -> None:
    """As voice tags, or as text where the format has none; not when nobody wants it."""
    speaker = call["segments"][0]["speaker"]
    assert f"<v {speaker}>" in _file(caller, call, "vtt").text
    assert f"{speaker}: " in _file(caller, call, "srt").text
    assert f"{speaker}: " not in _file(caller, call, "srt", names=False).text
    assert max(map(len, _file(caller, call, "srt", max_chars=20).text.splitlines())) <= 29


def test_rttm_scores_as_the_recording_does(caller: httpx.Client, call: dict[str, Any], sample_call: SampleCall) -> None:
    """Read back by its columns, with a DER of at most 0.20: 0.25 s collar, overlap scored."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    annotations = []
    for text in (sample_call.rttm.read_text(), _file(caller, call, "rttm").text):
        annotation = Annotation()
        for n, line in enumerate(text.splitlines()):
            row = line.split()
            assert len(row) == 10
            annotation[Segment(float(row[3]), float(row[3]) + float(row[4])), n] = row[7]
        annotations.append(annotation)
    scored = Timeline([Segment(0, call["analysis"]["duration_s"])])
    assert DiarizationErrorRate(collar=0.5)(*annotations, uem=scored) <= 0.20


def test_text_and_json_hold_what_was_said(caller: httpx.Client, call: dict[str, Any]) -> None:
    """A paragraph for each turn; segments with words and times, turns and possible overlaps."""
    text = _file(caller, call, "txt").text
    assert re.match(r"\[00:00:\d\d\] S1: ", text)
    assert _words(re.sub(r"\[[\d:]+\] S\d: ", "", text)) == [w for s in call["segments"] for w in _words(s["text"])]
    body = _file(caller, call, "json").json()
    assert [s["text"] for s in body["segments"]] == [s["text"] for s in call["segments"]]
    assert body["turns"]
    for overlap in body["overlaps"]:
        assert overlap["start_s"] < overlap["end_s"]
        assert len(overlap["speakers"]) == 2
        assert 0 < overlap["p"] <= 1
    assert body["overlaps"] == call["overlaps"]


def test_each_step_tells_its_time_and_real_time_factor(caller: httpx.Client, call: dict[str, Any]) -> None:
    """In its event, in the recording and in the metrics."""
    told = {data["step"]: data for _, name, data in events(caller, call["id"]) if name == "step"}
    assert set(told) == set(call["step_seconds"])
    for step, data in told.items():
        assert data["rtf"] == pytest.approx(data["seconds"] / call["analysis"]["duration_s"], abs=1e-3)
        assert call["step_seconds"][step] == pytest.approx(data["seconds"], abs=0.01)
    assert 'neuroedge_recording_step_rtf_count{step="transcribe"}' in caller.get("/metrics").text


def test_there_is_no_file_before_it_is_processed(caller: httpx.Client, sample_call: SampleCall) -> None:
    """409 with where to follow it; formats and lengths that are none are refused."""
    created = send(caller, sample_call.wav)
    early = caller.get(f"/v1/recordings/{created['id']}/transcript")
    assert early.status_code == 409
    assert "/events" in early.json()["hint"]
    for query in ({"format": "docx"}, {"max_chars": 3}, {"max_lines": 9}):
        assert caller.get(f"/v1/recordings/{created['id']}/transcript", params=query).status_code == 422
    caller.delete(f"/v1/recordings/{created['id']}")


@pytest.mark.parametrize("terms", [",".join(f"term{n}" for n in range(51)), "x" * 81])
def test_too_many_or_too_long_terms_are_refused(account: httpx.Client, sample_call: SampleCall, terms: str) -> None:
    """422 naming the field; nothing is kept."""
    with sample_call.wav.open("rb") as file:
        answer = account.post("/v1/recordings", files={"file": ("a.wav", file)}, data={"hot_words": terms})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["hot_words"]
    assert account.get("/v1/recordings").json()["recordings"] == []
