"""Transcription through the server against faster-whisper called directly: `python -m benchmarks.transcription`.

Both get the same file, model, threads and parameters; runs alternate, so that a slow moment of the machine hits both.
The interval of the word error rate is a bootstrap over the utterances of the reference: of one call, so it tells
nothing of other calls.
"""

import argparse
import base64
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pyannote.metrics.diarization import DiarizationErrorRate

from benchmarks.diarization import annotation, read_rttm
from benchmarks.peer_whisper import Peer, word_errors
from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from benchmarks.serving import serve
from neuroedge.settings import default_data_dir

DURATION_S = 30.0


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    arguments = parser.parse_args()
    sample = arguments.models / "sample-call"
    peer = Peer(arguments.models / "whisper-base", threads=len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        with serve(data_dir, NEUROEDGE_MODELS_DIR=str(arguments.models)) as server, server.log_in() as client:
            body = {"audio": {"base64": base64.b64encode((sample / "sample.wav").read_bytes()).decode()}}
            _through_server(client, body)
            peer.transcribe(sample / "sample.wav")
            ours, theirs, text = [], [], ""
            for _ in range(arguments.runs):
                theirs.append(peer.transcribe(sample / "sample.wav")[0] / DURATION_S)
                seconds, text = _through_server(client, body)
                ours.append(seconds / DURATION_S)
            recording = _recording(client, sample / "sample.wav")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    found = annotation([(s["start_s"], s["end_s"], s["speaker"]) for s in recording["segments"]])
    # The collar of pyannote.metrics is the whole width: 0.5 s is 0.25 s to each side of a boundary.
    collar, no_collar = (
        float(DiarizationErrorRate(collar=width)(read_rttm(sample / "sample.rttm"), found)) for width in (0.5, 0.0)
    )
    save(
        "transcription",
        [
            figure("RTF through the server (HTTP, base64)", "×", ours),
            figure("RTF of faster-whisper called directly", "×", theirs),
            figure("ratio of the two, run by run", "×", ratios, at_most=1.15),
            word_error_rate(utterances(sample / "sample.stm"), text),
            figure(
                "DER of the recording's segments, 0.25 s collar",
                "",
                [collar],
                at_most=0.25,
                note="pyannote.metrics, overlap scored",
            ),
            figure("DER of the recording's segments, no collar", "", [no_collar]),
        ],
        title="Transcription and diarization of the sample call",
        command="python -m benchmarks.transcription",
    )


def utterances(stm: Path) -> list[str]:
    """The words of each line of an STM file."""
    return [line.split(None, 5)[5].strip() for line in stm.read_text().splitlines() if line.strip()]


def word_error_rate(reference: Sequence[str], text: str) -> Figure:
    """Of an answer without times, with its interval over the reference's utterances."""
    counts = np.array(errors_by_utterance(reference, text))

    def rate(rows: NDArray[np.int64]) -> float:
        wrong, words = counts[rows].sum(axis=0)
        return float(wrong / words)

    low, high = interval(len(counts), rate)
    note = f"jiwer, whisper-base int8; 95 % {low:.3f} to {high:.3f} by bootstrap over n = {len(counts)} utterances"
    return figure(
        "WER on the sample call", "", [rate(np.arange(len(counts)))], note=f"{note}, {counts[:, 1].sum()} words"
    )


def errors_by_utterance(reference: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Word errors and words of each utterance, the answer cut between words where the errors in all are fewest."""
    said = text.split()
    # The fewest errors so far with this many words of the answer used up, and the counts that make them up.
    ways: dict[int, tuple[int, list[tuple[int, int]]]] = {0: (0, [])}
    for number, utterance in enumerate(reference, 1):
        ends = range(len(said) + 1) if number < len(reference) else [len(said)]
        ways = {end: _fewest(utterance, said, end, ways) for end in ends}
    return ways[len(said)][1]


def _fewest(
    utterance: str, said: Sequence[str], end: int, ways: Mapping[int, tuple[int, list[tuple[int, int]]]]
) -> tuple[int, list[tuple[int, int]]]:
    """The best way to give the utterance words of the answer up to this end."""
    found = []
    for start, (wrong, counts) in ways.items():
        if start <= end:
            own = word_errors(utterance, " ".join(said[start:end]))
            found.append((wrong + own[0], [*counts, own]))
    return min(found, key=lambda way: way[0])


def _through_server(client: httpx.Client, body: dict[str, Any]) -> tuple[float, str]:
    started = time.perf_counter()
    answer = client.post("/v1/engines/transcription/run", json=body)
    seconds = time.perf_counter() - started
    answer.raise_for_status()
    return seconds, answer.json()["result"]["text"]


def _recording(client: httpx.Client, wav: Path) -> dict[str, Any]:
    with wav.open("rb") as file:
        created = client.post("/v1/recordings", files={"file": (wav.name, file)}).raise_for_status().json()
    while True:
        detail: dict[str, Any] = client.get(f"/v1/recordings/{created['id']}").json()
        if detail["status"] == "done":
            return detail
        if detail["status"] == "failed":
            raise SystemExit(detail["error"])
        time.sleep(0.2)


if __name__ == "__main__":
    main()
