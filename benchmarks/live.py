"""Live transcription over a real server, in real time: `python -m benchmarks.live --data FOLDER`.

Five LibriVox clips with their texts (24.7 s, Debian package pocketsphinx-testdata, unpacked into FOLDER) and the sample
call (30 s of telephone, two speakers) are streamed at the pace of speech in messages of 100 ms, once alone and once two
at a time. When somebody speaks is told by Silero's voice activity over the whole recording, before anything is
streamed: first words are timed from the start of a stretch of speech, final text from its end. The same model
transcribes the same recordings offline, in the same run.
"""

import argparse
import asyncio
import base64
import io
import json
import re
import tempfile
import time
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect

from benchmarks.peer_whisper import stm_text, wer
from benchmarks.report import figure, save
from benchmarks.serving import Served, serve
from neuroedge.settings import default_data_dir

MODEL = "whisper-tiny-en"
RATE_HZ = 16_000
STEP_S = 0.1
GAP_S = 1.2
_CLIPS = Path("usr/share/pocketsphinx/test/data/librivox")
Samples = NDArray[np.int16]


@dataclass
class Recording:
    """What is streamed, what is said in it, and when."""

    name: str
    samples: Samples
    text: str
    spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Streamed:
    """What came back."""

    text: str
    first_s: list[float]
    final_s: list[float]
    behind_s: float
    """From the last sound to the end of the session."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where pocketsphinx-testdata is unpacked")
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    parser.add_argument("--runs", type=int, default=2, help="of the single stream and of the two at once")
    parser.add_argument("--model", default=MODEL, help="catalogue id of the speech model")
    arguments = parser.parse_args()
    recordings = [_librivox(arguments.data), _call(arguments.models / "sample-call")]
    asyncio.run(_add_spans(recordings))
    with tempfile.TemporaryDirectory() as folder:
        env = {"NEUROEDGE_MODELS_DIR": str(arguments.models), "NEUROEDGE_MODELS": f"speech_to_text={arguments.model}"}
        with serve(Path(folder) / "data", **env) as server, server.log_in() as client:
            offline = {recording.name: _offline(client, recording) for recording in recordings}
            alone, together = asyncio.run(_all_streams(server, client, recordings, arguments.runs))
    _save(recordings, offline, alone, together, arguments.model)


def _save(
    recordings: list[Recording],
    offline: dict[str, str],
    alone: list[tuple[Recording, Streamed]],
    together: list[tuple[Recording, Streamed]],
    model: str,
) -> None:
    words = sum(len(recording.text.split()) for recording in recordings)
    offline_wer = wer(" ".join(r.text for r in recordings), " ".join(offline[r.name] for r in recordings))
    live_wer = _pooled(alone, recordings)
    figures = [
        figure(
            "speech start to first partial, one stream", "s", _all(alone, "first_s"), at_most=0.7, note="median, range"
        ),
        figure("speech start to first partial, two at once", "s", _all(together, "first_s"), at_most=0.7),
        figure("speech end to final, one stream", "s", _all(alone, "final_s"), at_most=1.2, note="0.5 s is silence"),
        figure("speech end to final, two at once", "s", _all(together, "final_s"), at_most=1.2),
        figure("end of sound to end of session, two at once", "s", [s.behind_s for _, s in together], at_most=1.5),
        figure(f"WER live, {words} words", "", live_wer, note=f"{model}, pooled"),
        figure(f"WER offline, {words} words", "", [offline_wer], note=f"{model}, same run"),
        figure("WER live less offline", "", [value - offline_wer for value in live_wer], at_most=0.02),
        figure("WER live less offline, two at once", "", [v - offline_wer for v in _pooled(together, recordings)]),
    ]
    for recording in recordings:
        own = [streamed.text for source, streamed in alone if source is recording]
        figures.append(figure(f"WER live, {recording.name}", "", [wer(recording.text, text) for text in own]))
        figures.append(figure(f"WER offline, {recording.name}", "", [wer(recording.text, offline[recording.name])]))
    save("live", figures, title=f"Live transcription ({model})", command="python -m benchmarks.live --data FOLDER")


def _all(runs: list[tuple[Recording, Streamed]], name: str) -> list[float]:
    return [value for _, streamed in runs for value in getattr(streamed, name)]


def _pooled(runs: list[tuple[Recording, Streamed]], recordings: list[Recording]) -> list[float]:
    """Over all recordings, run by run."""
    texts = {r.name: [streamed.text for source, streamed in runs if source is r] for r in recordings}
    reference = " ".join(r.text for r in recordings)
    rounds = min(len(found) for found in texts.values())
    return [wer(reference, " ".join(texts[r.name][i] for r in recordings)) for i in range(rounds)]


async def _all_streams(
    server: Served, client: httpx.Client, recordings: list[Recording], runs: int
) -> tuple[list[tuple[Recording, Streamed]], list[tuple[Recording, Streamed]]]:
    alone, together = [], []
    token = client.headers["Authorization"]
    for _ in range(runs):
        for recording in recordings:
            alone.append((recording, await _stream(server, token, recording)))
        both = await asyncio.gather(*(_stream(server, token, recording) for recording in recordings))
        together += list(zip(recordings, both, strict=True))
    return alone, together


async def _stream(server: Served, token: str, recording: Recording) -> Streamed:
    url = server.url.replace("http", "ws") + "/v1/audio/stream"
    events: list[tuple[float, dict[str, Any]]] = []
    async with connect(url, additional_headers={"Authorization": token}) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate_hz": RATE_HZ}))
        assert json.loads(await socket.recv())["type"] == "session"

        async def listen() -> None:
            async for message in socket:
                events.append((time.perf_counter(), json.loads(message)))

        listener = asyncio.create_task(listen())
        began, step = time.perf_counter(), round(STEP_S * RATE_HZ)
        for start in range(0, len(recording.samples), step):
            # A microphone gives a message when its last sample was recorded.
            await asyncio.sleep(max(0.0, began + (start + step) / RATE_HZ - time.perf_counter()))
            await socket.send(recording.samples[start : start + step].tobytes())
        ended = time.perf_counter()
        await socket.send(json.dumps({"type": "stop"}))
        await listener
    return _judged(recording, events, began=began, ended=ended)


def _judged(
    recording: Recording, events: list[tuple[float, dict[str, Any]]], *, began: float, ended: float
) -> Streamed:
    first_s, final_s, finals, awaited = [], [], [], set()
    for at, event in events:
        if event["type"] == "speech_started":  # what follows a cut does not start so
            awaited.add(event["utterance"])
        elif event["type"] == "partial" and event["text"] and event["utterance"] in awaited:
            awaited.remove(event["utterance"])
            start = min((span[0] for span in recording.spans), key=lambda s: abs(s - event["start_s"]))
            first_s.append(at - began - start)
        elif event["type"] == "final":
            finals.append(event["text"])
            end = min((span[1] for span in recording.spans), key=lambda s: abs(s - (event["end_s"] - 0.2)))
            if event["text"] and abs(end - (event["end_s"] - 0.2)) < 0.5:  # else it was cut within speech
                final_s.append(at - began - end)
    return Streamed(text=" ".join(finals), first_s=first_s, final_s=final_s, behind_s=events[-1][0] - ended)


def _offline(client: httpx.Client, recording: Recording) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(recording.samples.tobytes())
    body = {"audio": {"base64": base64.b64encode(file.getvalue()).decode()}, "language": "en"}
    answer = client.post("/v1/engines/transcription/run", json=body).raise_for_status()
    text: str = answer.json()["result"]["text"]
    return text


async def _add_spans(recordings: list[Recording]) -> None:
    from neuroedge.runtimes import silero

    # Speech apart by less than what ends an utterance is one stretch.
    options = {"min_silence_ms": 500, "speech_pad_ms": 0}
    model = silero.load("silero-vad", Path(), threads=1, options=options)
    for recording in recordings:
        found = await model.speech(recording.samples.astype(np.float32) / 32_768)
        recording.spans = [(span.start_s, span.end_s) for span in found]
    model.close()


def _librivox(folder: Path) -> Recording:
    clips = folder / _CLIPS
    said = {
        match[2]: match[1] for match in re.finditer(r"<s> (.*) </s> \((.*)\)", (clips / "transcription").read_text())
    }
    gap = np.zeros(round(GAP_S * RATE_HZ), np.int16)
    pieces = [gap]
    for name in sorted(said):
        pieces += [_samples(clips / f"{name}.wav"), gap]
    return Recording("LibriVox", np.concatenate(pieces), " ".join(said[name] for name in sorted(said)))


def _call(folder: Path) -> Recording:
    return Recording("telephone call", _samples(folder / "sample.wav"), stm_text(folder / "sample.stm"))


def _samples(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


if __name__ == "__main__":
    main()
