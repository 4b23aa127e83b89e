"""What each step of a recording does, and how the last one stores the result."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.ports import NewMemory, Progress
from neuroedge.contract.principal import Principal
from neuroedge.kit.diarization import Turn
from neuroedge.kit.keywords import keywords
from neuroedge.kit.speakers_to_words import TimedWord, segments_by_speaker, with_spaces
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import memories, recording_voices, recordings
from neuroedge.stores.ids import new_id
from neuroedge.stores.memories import ModelSwitched
from neuroedge.stores.postgres import Connection
from neuroedge.stores.recordings import Recording, Segment, Speaker

STEPS = ("analyse", "transcribe", "diarize", "identify", "emotion", "remember")
SEGMENT_MEMORY = "segment"
UNKNOWN_SPEAKER = "unknown"
"""Label where the recogniser heard words but diarization found nobody."""
_IDENTIFIED = 50
_SPANS = 20_000
"""The speaker engine's limits."""
_EMBED_AT_ONCE = 128
_FEEL_AT_ONCE = 2000
"""The emotion engine's limit; a speaker's baseline is then that of the part, about two hours of speech."""

Output = dict[str, Any]
Step = Callable[[Recording, dict[str, Output], Progress], Awaitable[Output]]


class RecordingGone(NeuroEdgeError):
    """The recording was deleted while it was being processed."""

    status = 404
    code = "not_found"


class Steps:
    """The steps of one recording for one caller."""

    def __init__(self, *, runner: EngineRunner, principal: Principal, request_id: str) -> None:
        self._runner = runner
        self._principal = principal
        self._request_id = request_id
        self._steps: dict[str, Step] = {
            "analyse": self._analyse,
            "transcribe": self._transcribe,
            "diarize": self._diarize,
            "identify": self._identify,
            "emotion": self._emotion,
            "remember": self._remember,
        }

    async def run(self, step: str, recording: Recording, outputs: dict[str, Output], progress: Progress) -> Output:
        """The step's output, from the outputs of those before it."""
        return await self._steps[step](recording, outputs, progress)

    async def _engine(self, name: str, payload: dict[str, Any], progress: Progress) -> Output:
        answer = await self._runner.run(
            name, payload, principal=self._principal, request_id=self._request_id, progress=progress
        )
        return answer.model_dump(mode="json")

    async def _analyse(self, recording: Recording, _: dict[str, Output], progress: Progress) -> Output:
        return await self._engine("audio", {"audio": audio_of(recording)}, progress)

    async def _transcribe(self, recording: Recording, _: dict[str, Output], progress: Progress) -> Output:
        payload = {"audio": audio_of(recording), "language": recording.language, "hot_words": recording.hot_words}
        return await self._engine("transcription", payload, progress)

    async def _diarize(self, recording: Recording, outputs: dict[str, Output], progress: Progress) -> Output:
        words = _words(outputs["transcribe"])
        if not words:
            return {"turns": [], "num_speakers": 0, "speech_s": 0.0, "segments": [], "method": "none"}
        spoken = [{"w": word.w.strip(), "start_s": word.start_s, "end_s": word.end_s} for word in words]
        payload = {"audio": audio_of(recording), "words": spoken}
        found = await self._engine("diarization", payload, progress)
        turns = [
            Turn(speaker=t["speaker"], start_s=t["start_s"], end_s=t["end_s"], confidence=t["confidence"])
            for t in found["turns"]
        ]
        found["segments"] = [
            {
                "speaker": segment.speaker or UNKNOWN_SPEAKER,
                "start_s": segment.start_s,
                "end_s": segment.end_s,
                "text": segment.text,
                "confidence": segment.confidence,
                "words": [{"w": w.w.strip(), "start_s": w.start_s, "end_s": w.end_s, "p": w.p} for w in segment.words],
            }
            for segment in segments_by_speaker(words, turns)
        ]
        return found

    async def _identify(self, recording: Recording, outputs: dict[str, Output], progress: Progress) -> Output:
        return await identify(
            recording, outputs["diarize"]["turns"], lambda payload: self._engine("speaker", payload, progress)
        )

    async def _emotion(self, recording: Recording, outputs: dict[str, Output], progress: Progress) -> Output:
        segments = outputs["diarize"]["segments"]
        spoken = [{k: s[k] for k in ("text", "start_s", "end_s", "speaker")} for s in segments]
        shared = {"audio": audio_of(recording), "language": outputs["transcribe"]["language"]}
        return await felt(spoken, shared, lambda payload: self._engine("emotion", payload, progress))

    async def _remember(self, recording: Recording, outputs: dict[str, Output], progress: Progress) -> Output:
        texts = [segment["text"] for segment in outputs["diarize"]["segments"]]
        vectors: list[list[float]] = []
        model = ""
        for start in range(0, len(texts), _EMBED_AT_ONCE):
            part = await self._engine("embedding", {"texts": texts[start : start + _EMBED_AT_ONCE]}, progress)
            vectors += part["vectors"]
            if model and model != part["model"]:
                raise ModelSwitched(f"one part was embedded with {model}, the next with {part['model']}")
            model = part["model"]
            await progress("remember", len(vectors) / len(texts))
        return {"embeddings": vectors, "model": model, "keywords": [keywords(text) for text in texts]}

    async def store(
        self, conn: Connection, recording: Recording, outputs: dict[str, Output], remembered: Output
    ) -> None:
        """Speakers, segments and memories, in place of any from an earlier attempt. Raises ModelSwitched."""
        import numpy as np

        org_id = self._principal.org_id
        segments = _segments(outputs)
        known = identified(outputs.get("identify", {}))
        await recordings.replace_segments(
            conn, org_id=org_id, recording_id=recording.id, speakers=_speakers(segments, known), segments=segments
        )
        said = await recording_voices.said_of(conn, recording.id)
        items = [
            NewMemory(
                content=segment.text,
                embedding=np.asarray(vector, dtype=np.float32),
                embedding_model=remembered["model"],
                title=recording.title,
                tags=["recording"],
                keywords=words,
                memory_type=SEGMENT_MEMORY,
                metadata={**said[segment.speaker], "start_s": segment.start_s, "end_s": segment.end_s},
                recording_id=recording.id,
                segment_id=segment.id,
            )
            for segment, vector, words in zip(segments, remembered["embeddings"], remembered["keywords"], strict=True)
        ]
        if items:
            await memories.require_model(conn, org_id=org_id, model=remembered["model"])
        await memories.insert(conn, org_id=org_id, user_id=recording.user_id, items=items)


def audio_of(recording: Recording) -> dict[str, str]:
    """The decoded audio as engines take it."""
    return {"blob": f"recordings/{recording.id}/audio.wav"}


async def felt(
    spoken: Sequence[dict[str, Any]], shared: dict[str, Any], engine: Callable[[dict[str, Any]], Awaitable[Output]]
) -> Output:
    """The emotion engine's answer on any number of segments, which it gets in parts, each with the fields `shared`.

    Scores of `emotions` are means over the answered segments of all parts; one that no segment of a part carries, which
    the engine leaves out there, is 0 in it. Of several parts there is no `summary`.
    """
    if not spoken:
        return {"segments": [], "emotions": [], "text_method": "none", "voice_method": "none"}
    starts = range(0, len(spoken), _FEEL_AT_ONCE)
    parts = [await engine({"segments": [*spoken[at : at + _FEEL_AT_ONCE]], **shared}) for at in starts]
    if len(parts) == 1:
        return parts[0]
    answered = [part["summary"]["segments"] - part["summary"]["abstained"] for part in parts]
    scores: dict[str, float] = {}
    for part, weight in zip(parts, answered, strict=True):
        for one in part["emotions"]:
            scores[one["label"]] = scores.get(one["label"], 0.0) + one["score"] * weight / sum(answered)
    ranked = sorted(scores, key=lambda label: (-scores[label], label))
    judged = next((part for part in parts if part["text_method"] != "none"), parts[0])
    return {
        **{key: value for key, value in judged.items() if key != "summary"},
        "segments": [segment for part in parts for segment in part["segments"]],
        "emotions": [{"label": label, "score": round(scores[label], 4)} for label in ranked],
    }


async def identify(
    recording: Recording, turns: Sequence[dict[str, Any]], engine: Callable[[dict[str, Any]], Awaitable[Output]]
) -> Output:
    """Which of a recording's speakers are enrolled people who agreed to it: ids and likelihoods, no names."""
    spans: dict[str, list[dict[str, float]]] = {}
    for turn in turns:
        spans.setdefault(turn["speaker"], []).append({"start_s": turn["start_s"], "end_s": turn["end_s"]})
    longest = sorted(spans, key=lambda label: sum(s["start_s"] - s["end_s"] for s in spans[label]))[:_IDENTIFIED]
    if not longest:
        return {"speakers": [], "compared": 0, "method": "none"}
    parts = [{"id": label, "spans": spans[label][:_SPANS]} for label in sorted(longest)]
    answer = await engine({"audio": audio_of(recording), "parts": parts, "enrolled": "label_recordings", "top": 1})
    # One microphone makes people alike, and diarization heard different ones: a voice is the likeliest of them only.
    best: dict[str, Output] = {}
    for part in answer["parts"]:
        if (voice_id := part["identified"]) is not None:
            llr = part["candidates"][0]["llr"]
            if voice_id not in best or llr > best[voice_id]["llr"]:
                best[voice_id] = {"speaker": part["id"], "voice_id": voice_id, "llr": llr}
    return {"speakers": list(best.values()), "compared": answer["compared"], "method": answer["method"]}


def identified(output: Output) -> dict[str, tuple[UUID, float]]:
    """By label, the voice `identify` found with its log-likelihood ratio."""
    return {one["speaker"]: (UUID(one["voice_id"]), one["llr"]) for one in output.get("speakers", [])}


def _words(transcript: Output) -> list[TimedWord]:
    """All words, with the spaces that the texts of their segments have."""
    words: list[TimedWord] = []
    before = ""
    for segment in transcript["segments"]:
        spaced = with_spaces([word["w"] for word in segment["words"]], segment["text"], after=before)
        words += [
            TimedWord(w=w, start_s=word["start_s"], end_s=word["end_s"], p=word["p"])
            for word, w in zip(segment["words"], spaced, strict=True)
        ]
        before = segment["text"] or before
    return words


def _segments(outputs: dict[str, Output]) -> list[Segment]:
    spoken, felt = outputs["diarize"]["segments"], outputs["emotion"]["segments"]
    methods = {key: outputs["emotion"].get(key) for key in ("text_method", "voice_method")}
    return [
        Segment(
            id=new_id(),
            speaker=segment["speaker"],
            position=position,
            start_s=segment["start_s"],
            end_s=segment["end_s"],
            text=segment["text"],
            confidence=segment["confidence"],
            words=segment["words"],
            emotion={**emotion, **methods},
        )
        for position, (segment, emotion) in enumerate(zip(spoken, felt, strict=True))
    ]


def _speakers(segments: list[Segment], known: dict[str, tuple[UUID, float]]) -> list[Speaker]:
    seconds: dict[str, float] = {}
    for segment in segments:
        seconds[segment.speaker] = seconds.get(segment.speaker, 0.0) + segment.end_s - segment.start_s
    nobody = (None, None)
    return [
        Speaker(
            id=new_id(),
            label=label,
            speech_s=total,
            voice_id=known.get(label, nobody)[0],
            voice_llr=known.get(label, nobody)[1],
        )
        for label, total in sorted(seconds.items())
    ]
