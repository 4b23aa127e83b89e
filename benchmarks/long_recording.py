"""An hour through the recording pipeline: memory over time, and the real time factor of each step.

    python -m benchmarks.long_recording [--minutes 60] [--short 5]

The sample call (a real telephone call) is repeated, each time at another level and with a pause of another length, to
the length wanted, and sent to a server of its own as 16 kHz FLAC; first the short one twice, then the long one. The
first one loads the models and fills what a process keeps, so that the long one is compared with the second. Memory is
the server process's own anonymous memory (RssAnon: what the system cannot drop), read five times a second; the waveform
of a long recording lies in an unlinked file and is counted apart, as mapped (RssFile).
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from httpx_sse import EventSource

from benchmarks.report import Figure, figure, save
from benchmarks.serving import Served, serve
from neuroedge.contract.models import SAMPLE_RATE_HZ
from neuroedge.settings import default_data_dir

SEED = 6
_TELL_S = 15.0
"""Between two lines of progress."""


@dataclass
class Memory:
    """Readings of a process: seconds, anonymous and mapped MB, and the step that ran; ends it when time is up."""

    pid: int
    at_most_s: float
    step: str = "before"
    fraction: float = 0.0
    late: bool = False
    readings: list[tuple[float, float, float, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Read until told to stop."""
        began = told = time.perf_counter()
        while not self._stop.wait(0.2):
            now = time.perf_counter()
            status = Path(f"/proc/{self.pid}/status").read_text()
            kb = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss")}
            self.readings.append((now, kb["RssAnon"] / 1e3, kb["RssFile"] / 1e3, self.step))
            if now - told >= _TELL_S:
                told = now
                self._tell(now - began)
            if now - began > self.at_most_s:
                self.late = True
                os.kill(self.pid, signal.SIGTERM)
                return

    def _tell(self, seconds: float) -> None:
        _, anon, mapped, step = self.readings[-1]
        line = f"{seconds:6.0f} s  {step} {self.fraction:.0%}  {anon:.0f} MB, mapped {mapped:.0f} MB"
        print(line, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """No more readings."""
        self._stop.set()

    def peak_mb(self) -> float:
        """Most anonymous memory while any step ran."""
        return max(anon for _, anon, _, step in self.readings if step != "before")

    def step_peak_mb(self, step: str) -> float:
        """Most anonymous memory while that step ran; 0 where it was too short to be seen."""
        return max((anon for _, anon, _, of in self.readings if of == step), default=0.0)

    def growth_mb(self, step: str) -> float:
        """Anonymous memory of the last tenth of a step less that of its second quarter, medians."""
        anon = [a for _, a, _, of in self.readings if of == step]
        if len(anon) < 20:
            return 0.0
        return float(np.median(anon[-len(anon) // 10 :]) - np.median(anon[len(anon) // 4 : len(anon) // 2]))


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--short", type=float, default=5.0, help="minutes of the recording it is compared with")
    parser.add_argument("--at-most", type=float, default=4.0, help="times its length a recording may take")
    parser.add_argument("--model", default="whisper-tiny-en", help="the speech model")
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{minutes:g}.flac") for minutes in (given.short, given.minutes)]
        for path, minutes in zip(files, (given.short, given.minutes), strict=True):
            lengthen(given.models / "sample-call" / "sample.wav", path, minutes=minutes)
        env = {"NEUROEDGE_MODELS_DIR": str(given.models), "NEUROEDGE_MODELS": f"speech_to_text={given.model}"}
        with serve(Path(folder, "data"), **env) as server, server.log_in() as client:
            body = {
                "name": "voice_emotion",
                "allowed": True,
                "purpose": "a benchmark of the pipeline",
                "ground": "other",
            }
            client.put("/v1/settings/switches", json=body).raise_for_status()
            short_s = given.at_most * given.short * 60
            first = process(server, client, files[0], at_most_s=short_s)
            short = process(server, client, files[0], at_most_s=short_s)
            long = process(server, client, files[1], at_most_s=given.at_most * given.minutes * 60)
    save(
        "long_recording",
        [*_speed(long, given.minutes), *_memory(first, short, long, given)],
        title=f"A recording of {given.minutes:g} minutes",
        command=f"python -m benchmarks.long_recording --minutes {given.minutes:g} --short {given.short:g}",
    )


def lengthen(sample: Path, target: Path, *, minutes: float) -> None:
    """The sample again and again, its level and the pauses between drawn anew each time."""
    samples, rate_hz = soundfile.read(sample, dtype="float32")
    chance = np.random.default_rng(SEED)
    with soundfile.SoundFile(target, "w", rate_hz, 1, format="FLAC") as file:
        while file.frames < minutes * 60 * rate_hz:
            pause = chance.normal(0, 1e-4, int(chance.uniform(0.2, 3) * rate_hz))
            file.write(np.concatenate([samples * chance.uniform(0.5, 1.0), pause]))


def process(server: Served, client: httpx.Client, path: Path, *, at_most_s: float) -> dict[str, Any]:
    """Send it and follow it to its end: the seconds of each step, the recording, the readings of memory."""
    memory = Memory(server.process.pid, at_most_s)
    watching = threading.Thread(target=memory.watch, daemon=True)
    watching.start()
    started = time.perf_counter()
    with path.open("rb") as file:
        created = client.post("/v1/recordings", files={"file": (path.name, file)}, data={"language": "en"})
    created.raise_for_status()
    taken_s = time.perf_counter() - started
    recording_id = created.json()["id"]
    try:
        followed = _followed(client, recording_id, memory)
    except httpx.HTTPError as error:
        late = f"it took longer than {at_most_s:.0f} s" if memory.late else repr(error)
        raise SystemExit(f"the recording of {path.stem} minutes was given up: {late}") from error
    finally:
        memory.stop()
        watching.join()
    if followed["detail"]["status"] != "done":
        raise SystemExit(f"the recording failed: {followed['detail']['error']}")
    return {**followed, "memory": memory, "taken_s": taken_s}


def _followed(client: httpx.Client, recording_id: str, memory: Memory) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    reports = 0
    while (detail := client.get(f"/v1/recordings/{recording_id}").json())["status"] not in ("done", "failed"):
        with client.stream("GET", f"/v1/recordings/{recording_id}/events", timeout=None) as answer:
            for event in EventSource(answer).iter_sse():
                data = json.loads(event.data) if event.data else {}
                if event.event == "progress":
                    memory.step, memory.fraction = data["step"], data["fraction"]
                    reports += 1
                elif event.event == "step":
                    steps[data["step"]] = data
                    print(f"{data['step']}: {data['seconds']:.1f} s", file=sys.stderr, flush=True)
    return {"steps": steps, "detail": detail, "reports": reports}


def _speed(long: dict[str, Any], minutes: float) -> list[Figure]:
    length_s = long["detail"]["analysis"]["duration_s"]
    figures = [
        figure(f"RTF of the step {step}", "×", [data["rtf"]], note=f"{data['seconds']:.0f} s for {length_s:.0f} s")
        for step, data in long["steps"].items()
    ]
    total_s = sum(data["seconds"] for data in long["steps"].values())
    return [
        figure("RTF of taking it in (decode, seal, store)", "×", [long["taken_s"] / length_s]),
        *figures,
        figure("RTF of all steps", "×", [total_s / length_s], at_most=1.0),
        figure("progress reports", "", [long["reports"]], at_least=minutes),
        figure("speakers found", "", [len(long["detail"]["speakers"])], at_most=2, note="2 speak"),
    ]


def _memory(
    first: dict[str, Any], short: dict[str, Any], long: dict[str, Any], given: argparse.Namespace
) -> list[Figure]:
    memory: Memory = long["memory"]
    before = [anon for _, anon, _, step in memory.readings if step == "before"]
    steps = list(long["steps"])
    waveform_mb = long["detail"]["analysis"]["duration_s"] * SAMPLE_RATE_HZ * 4 / 1e6
    return [
        figure("anonymous memory before", "MB", [before[0] if before else 0.0], note="models loaded, short one done"),
        figure(f"peak of {given.short:g} minutes, the first", "MB", [first["memory"].peak_mb()], note="loads models"),
        figure(f"peak of {given.short:g} minutes", "MB", [short["memory"].peak_mb()], note="the same once more"),
        figure(f"peak of {given.minutes:g} minutes", "MB", [memory.peak_mb()]),
        figure(
            "more than the short one's peak",
            "MB",
            [memory.peak_mb() - short["memory"].peak_mb()],
            at_most=200,
            note=f"its waveform alone would be {waveform_mb:.0f} MB",
        ),
        *(figure(f"peak in the step {step}", "MB", [memory.step_peak_mb(step)]) for step in steps),
        figure("growth within a step", "MB", [max(memory.growth_mb(step) for step in steps)], at_most=100),
        figure("mapped at most", "MB", [max(mapped for _, _, mapped, _ in memory.readings)], note="can be dropped"),
    ]


if __name__ == "__main__":
    main()
