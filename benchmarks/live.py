"""Live transcription over a real server, in real time: `python -m benchmarks.live --data FOLDER [--prompts FILE]`.

Five LibriVox clips with their texts (24.7 s, Debian package pocketsphinx-testdata, unpacked into FOLDER), the sample
call (30 s of telephone, two speakers) and, with `--prompts`, the prompts of a telephone system (8 kHz; Debian package
asterisk-core-sounds-en-wav, unpacked into FOLDER; FILE is core-sounds-en.txt of its upstream archive: `name: text`) are
streamed at the pace of speech in messages of 100 ms, once alone and once two at a time. When somebody speaks is told by
Silero's voice activity over the whole recording, before anything is streamed: first words are timed from the start of a
stretch of speech, final text from its end. The same model transcribes the same recordings offline, in the same run.

The clips, the call and every other prompt were there when the parameters were chosen; the prompts streamed here are
the rest. Intervals are of 2000 bootstrap samples of clips and prompts, live and offline paired.
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

from benchmarks.peer_whisper import stm_text, word_errors
from benchmarks.report import Figure, figure, save
from benchmarks.serving import Served, serve
from benchmarks.speech_clips import read
from neuroedge.kit.speakers_to_words import with_spaces
from neuroedge.settings import default_data_dir

MODEL = "whisper-tiny-en"
RATE_HZ = 16_000
STEP_S = 0.1
GAP_S = 1.2
_SPEAKER = "en_US_f_Allison"
_LEAST_WORDS = 5
_SAME_S = 0.5
_SAMPLES, _SEED = 2000, 4
Samples = NDArray[np.int16]
Words = list[tuple[float, str]]
"""What was heard: the middle of each word, in seconds, and the word."""


@dataclass(frozen=True)
class Unit:
    """A clip, a prompt or a call within a recording: what is judged as one."""

    start_s: float
    end_s: float
    text: str


@dataclass
class Recording:
    """What is streamed, what is said in it, and when."""

    name: str
    samples: Samples
    units: list[Unit]
    held_out: bool = False
    """Nothing was chosen by it."""
    spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Streamed:
    """What came back."""

    words: Words
    first_s: list[float]
    final_s: list[float]
    behind_s: float
    """From the last sound to the end of the session."""


Run = tuple[Recording, Streamed]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the packages are unpacked")
    parser.add_argument("--prompts", type=Path, help="core-sounds-en.txt")
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    parser.add_argument("--runs", type=int, default=1, help="of the single stream and of the two at once")
    parser.add_argument("--model", default=MODEL, help="catalogue id of the speech model")
    arguments = parser.parse_args()
    recordings = [_librivox(arguments.data), _call(arguments.models / "sample-call")]
    if arguments.prompts:
        recordings += _prompts(arguments.data, arguments.prompts)
    asyncio.run(_add_spans(recordings))
    with tempfile.TemporaryDirectory() as folder:
        env = {"NEUROEDGE_MODELS_DIR": str(arguments.models), "NEUROEDGE_MODELS": f"speech_to_text={arguments.model}"}
        with serve(Path(folder) / "data", **env) as server, server.log_in() as client:
            offline = {recording.name: _offline(client, recording) for recording in recordings}
            alone, together = asyncio.run(_all_streams(server, client, recordings, arguments.runs))
    command = f"python -m benchmarks.live --data FOLDER{' --prompts FILE' * bool(arguments.prompts)}"
    command += f" --runs {arguments.runs}" * (arguments.runs > 1)
    _save(recordings, offline, alone, together, arguments.model, command=command)


def _save(
    recordings: list[Recording],
    offline: dict[str, Words],
    alone: list[Run],
    together: list[Run],
    model: str,
    *,
    command: str,
) -> None:
    figures = [
        figure(
            "speech start to first partial, one stream", "s", _all(alone, "first_s"), at_most=0.7, note="median, range"
        ),
        figure("speech start to first partial, two at once", "s", _all(together, "first_s"), at_most=0.7),
        figure("speech end to final, one stream", "s", _all(alone, "final_s"), at_most=1.2, note="0.5 s is silence"),
        figure("speech end to final, two at once", "s", _all(together, "final_s"), at_most=1.2),
        figure("end of sound to end of session, two at once", "s", [s.behind_s for _, s in together], at_most=1.5),
        *_rates("one stream", alone, offline, model, target=True),
        *_rates("two at once", together, offline, model),
    ]
    for recording in recordings:
        own = [run for run in alone if run[0] is recording]
        figures += _rates(recording.name, own, offline, model)
    for held_out, what in ((False, "seen before"), (True, "held out")):
        some = [run for run in alone if run[0].held_out is held_out]
        if some:
            figures += _rates(what, some, offline, model)
    save("live", figures, title=f"Live transcription ({model})", command=command)


def _rates(what: str, runs: list[Run], offline: dict[str, Words], model: str, *, target: bool = False) -> list[Figure]:
    """Word error rates live and offline, and the difference with its interval, over all units of all runs."""
    counts = np.array(
        [
            (*_errors(unit, recording, streamed.words), _errors(unit, recording, offline[recording.name])[0])
            for recording, streamed in runs
            for unit in recording.units
        ]
    )
    live_wrong, words, offline_wrong = (int(total) for total in counts.sum(axis=0))
    less = (live_wrong - offline_wrong) / words
    chance = np.random.default_rng(_SEED)
    drawn = counts[chance.integers(len(counts), size=(_SAMPLES, len(counts)))].sum(axis=1)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 2]) / drawn[:, 1], [2.5, 97.5])
    note = f"95 % interval {low:+.3f} to {high:+.3f}, {len(counts)} clips, {words} words"
    return [
        figure(f"WER live, {what}", "", [live_wrong / words], note=model),
        figure(f"WER offline, {what}", "", [offline_wrong / words], note="same model, same run"),
        figure(f"WER live less offline, {what}", "", [less], at_most=0.02 if target else None, note=note),
    ]


def _errors(unit: Unit, recording: Recording, words: Words) -> tuple[int, int]:
    """Wrong words and all words of a unit, by what was heard nearer to it than to any other."""

    def apart(at_s: float, other: Unit) -> float:
        return max(other.start_s - at_s, at_s - other.end_s, 0.0)

    own = [w for at_s, w in words if min(recording.units, key=lambda other: apart(at_s, other)) is unit]
    return word_errors(unit.text, " ".join(own))


def _all(runs: list[Run], name: str) -> list[float]:
    return [value for _, streamed in runs for value in getattr(streamed, name)]


async def _all_streams(
    server: Served, client: httpx.Client, recordings: list[Recording], runs: int
) -> tuple[list[Run], list[Run]]:
    alone: list[Run] = []
    together: list[Run] = []
    token = client.headers["Authorization"]
    for _ in range(runs):
        for recording in recordings:
            alone.append((recording, await _stream(server, token, recording)))
        for pair in zip(recordings[::2], recordings[1::2], strict=False):
            both = await asyncio.gather(*(_stream(server, token, recording) for recording in pair))
            together += list(zip(pair, both, strict=True))
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
    first_s, final_s, awaited = [], [], set()
    words: Words = []
    for at, event in events:
        if event["type"] == "speech_started":  # what follows a cut does not start so
            awaited.add(event["utterance"])
        elif event["type"] == "partial" and event["text"] and event["utterance"] in awaited:
            awaited.remove(event["utterance"])
            start = min((span[0] for span in recording.spans), key=lambda s: abs(s - event["start_s"]))
            if abs(start - event["start_s"]) < _SAME_S:  # else it was parted at a breath within speech
                first_s.append(at - began - start)
        elif event["type"] == "final":
            words += _spaced(event["text"], event["words"])
            end = min((span[1] for span in recording.spans), key=lambda s: abs(s - (event["end_s"] - 0.2)))
            if event["text"] and abs(end - (event["end_s"] - 0.2)) < _SAME_S:  # else it was cut within speech
                final_s.append(at - began - end)
    return Streamed(words=words, first_s=first_s, final_s=final_s, behind_s=events[-1][0] - ended)


def _spaced(text: str, words: list[dict[str, Any]]) -> Words:
    """Times and words; "-hearted" belongs to the word before it."""
    found: Words = []
    spaced = with_spaces([word["w"] for word in words], text)
    for word, w in zip(words, spaced, strict=True):
        if found and not w.startswith(" "):
            found[-1] = (found[-1][0], found[-1][1] + w)
        else:
            found.append(((word["start_s"] + word["end_s"]) / 2, w.strip()))
    return found


def _offline(client: httpx.Client, recording: Recording) -> Words:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(recording.samples.tobytes())
    body = {"audio": {"base64": base64.b64encode(file.getvalue()).decode()}, "language": "en"}
    answer = client.post("/v1/engines/transcription/run", json=body).raise_for_status()
    return [
        word for segment in answer.json()["result"]["segments"] for word in _spaced(segment["text"], segment["words"])
    ]


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
    clips = next(iter(folder.rglob("librivox/transcription"))).parent
    said = {
        match[2]: match[1] for match in re.finditer(r"<s> (.*) </s> \((.*)\)", (clips / "transcription").read_text())
    }
    return _apart("LibriVox", [(_samples(clips / f"{name}.wav"), said[name]) for name in sorted(said)])


def _prompts(folder: Path, texts: Path) -> list[Recording]:
    """Every other prompt that is a sentence, in two recordings."""
    said: list[tuple[Samples, str]] = []
    paths = {path.stem: path for path in folder.rglob("*.wav") if path.parent.name == _SPEAKER}
    for line in sorted(texts.read_text().splitlines()):
        name, _, text = line.partition(": ")
        # Digits and signs may be written in many ways; of "..." a part was recorded only.
        if name in paths and len(text.split()) >= _LEAST_WORDS and not re.search(r"[\d*#@\[(;]|\.\.|www", text):
            samples = read(paths[name])
            said.append(((samples * 32_767).astype(np.int16), text))
    held_out = said[1::2]
    half = len(held_out) // 2
    parts = (("prompts, first half", held_out[:half]), ("prompts, second half", held_out[half:]))
    return [_apart(name, part, held_out=True) for name, part in parts]


def _apart(name: str, clips: list[tuple[Samples, str]], *, held_out: bool = False) -> Recording:
    """Clips with silence around each."""
    gap = np.zeros(round(GAP_S * RATE_HZ), np.int16)
    pieces, units, at = [gap], [], len(gap)
    for samples, text in clips:
        units.append(Unit(at / RATE_HZ, (at + len(samples)) / RATE_HZ, text))
        pieces += [samples, gap]
        at += len(samples) + len(gap)
    return Recording(name, np.concatenate(pieces), units, held_out)


def _call(folder: Path) -> Recording:
    samples = _samples(folder / "sample.wav")
    unit = Unit(0.0, len(samples) / RATE_HZ, stm_text(folder / "sample.stm"))
    return Recording("telephone call", samples, [unit])


def _samples(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


if __name__ == "__main__":
    main()
