"""What is found in a file that is not kept."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroedge.contract.principal import Principal
from neuroedge.engines.speech import emotion
from neuroedge.infra.media import encode_wav
from neuroedge.services.recordings import Recordings, Upload
from tests import audio_samples
from tests.fakes import FakeBlobs, make_principal

pytestmark = pytest.mark.anyio
SEGMENTS = 4500


class Contexts:
    """Gives every caller the same objects."""

    def __init__(self) -> None:
        self.kept = FakeBlobs()

    def blobs(self, _: Principal) -> Any:
        """A store that takes paths too."""
        return SimpleNamespace(put=self._put, delete_prefix=self.kept.delete_prefix)

    async def _put(self, key: str, path: Path) -> None:
        await self.kept.put(key, await asyncio.to_thread(path.read_bytes))


class Engines:
    """Hears many short sentences in whatever it gets; what it feels in them has the emotion engine's limits."""

    def __init__(self) -> None:
        self.contexts = Contexts()
        self.felt = 0

    async def run(self, name: str, payload: dict[str, Any], **_: Any) -> Any:
        """The answer of one engine."""
        answer = {"audio": self._measured, "transcription": self._heard, "emotion": self._felt}[name](payload)
        return SimpleNamespace(model_dump=lambda mode: answer)

    def _measured(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"lufs": -20.5, "reliable": True, "warnings": []}

    def _heard(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"segments": [{"text": f"number {n}", "start_s": n, "end_s": n + 1, "p": 1} for n in range(SEGMENTS)]}

    def _felt(self, payload: dict[str, Any]) -> dict[str, Any]:
        count = len(emotion.Input.model_validate(payload).segments)
        self.felt += count
        return {
            "segments": [{}] * count,
            "emotions": [{"label": "joy", "score": 0.5}],
            "summary": {"segments": count, "abstained": 0},
            "text_method": "scripted",
            "voice_method": "none",
        }


async def test_emotions_of_a_file_with_more_sentences_than_the_engine_takes(tmp_path: Path) -> None:
    """Hours of speech: all of them are felt, and nothing of the file is kept."""
    engines = Engines()
    recordings = Recordings(
        db=None,  # type: ignore[arg-type]
        runner=engines,  # type: ignore[arg-type]
        queue=None,  # type: ignore[arg-type]
        progress=None,  # type: ignore[arg-type]
        settings=SimpleNamespace(max_audio_s=60),  # type: ignore[arg-type]
    )
    path = tmp_path / "call.wav.upload"
    path.write_bytes(encode_wav(audio_samples.tone(1.0)))
    upload = Upload(path=path, filename="call.wav", bytes=path.stat().st_size)
    found = await recordings.feel(upload, principal=make_principal(), request_id="r")
    assert found == {"emotions": [{"label": "joy", "score": 0.5}], "audio_metrics": {"lufs": -20.5}}
    assert engines.felt == SEGMENTS
    assert engines.contexts.kept.objects == {}
