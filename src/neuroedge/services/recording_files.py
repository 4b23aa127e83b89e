"""A processed recording as a file: subtitles, who spoke when, text, JSON."""

import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from neuroedge.contract.errors import Conflict
from neuroedge.kit import subtitles
from neuroedge.kit.subtitles import Spoken
from neuroedge.services.recordings import RecordingDetail

Format = Literal["srt", "vtt", "rttm", "txt", "json"]
MEDIA_TYPES: Final[dict[Format, str]] = {
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "rttm": "text/plain",
    "txt": "text/plain",
    "json": "application/json",
}


def written(
    detail: RecordingDetail,
    format: Format,
    *,
    max_chars: int = subtitles.MAX_CHARS,
    max_lines: int = subtitles.MAX_LINES,
    names: bool = True,
) -> str:
    """The file's text. Raises Conflict while the recording is not processed, or could not be."""
    recording = detail.recording
    if recording.status != "done":
        raise Conflict(
            f"the recording is {recording.status}, there is no transcript",
            hint=recording.error_hint or f"GET /v1/recordings/{recording.id}/events tells when it is done",
        )
    spoken = list(_spoken(detail))
    match format:
        case "json":
            return json.dumps(_as_json(detail), ensure_ascii=False, indent=1) + "\n"
        case "txt":
            return subtitles.plain(spoken)
        case "rttm":
            return subtitles.rttm(_turns(detail, spoken), file_id=str(recording.id))
        case "vtt":
            shown = spoken if names else _unnamed(spoken)
            return subtitles.vtt(subtitles.cues(shown, max_chars=max_chars, max_lines=max_lines))
        case "srt":
            return subtitles.srt(subtitles.cues(spoken, max_chars=max_chars, max_lines=max_lines, named=names))


def _spoken(detail: RecordingDetail) -> Iterator[Spoken]:
    for segment in detail.segments:
        yield Spoken(
            text=segment.text,
            start_s=segment.start_s,
            end_s=segment.end_s,
            speaker=segment.speaker,
            words=[(word["w"], word["start_s"], word["end_s"]) for word in segment.words],
        )


def _unnamed(spoken: list[Spoken]) -> list[Spoken]:
    return [Spoken(text=s.text, start_s=s.start_s, end_s=s.end_s, words=s.words) for s in spoken]


def _turns(detail: RecordingDetail, spoken: list[Spoken]) -> list[tuple[str, float, float]]:
    """As diarization found them, one row a speaker where two may speak; else by the words."""
    if not detail.turns:
        return subtitles.turns_of(spoken)
    found = [(turn["speaker"], turn["start_s"], turn["end_s"]) for turn in detail.turns]
    return sorted(found, key=lambda turn: (turn[1], turn[2]))


def _as_json(detail: RecordingDetail) -> dict[str, Any]:
    recording = detail.recording
    return {
        "id": str(recording.id),
        "title": recording.title,
        "language": detail.language,
        "duration_s": (detail.analysis or {}).get("duration_s"),
        "text": detail.text,
        "speakers": [{"speaker": s.name or s.label, "label": s.label, "speech_s": s.speech_s} for s in detail.speakers],
        "segments": [
            {
                "speaker": segment.speaker,
                "start_s": segment.start_s,
                "end_s": segment.end_s,
                "text": segment.text,
                "confidence": segment.confidence,
                "words": segment.words,
            }
            for segment in detail.segments
        ],
        "turns": detail.turns,
        "overlaps": detail.overlaps,
    }
