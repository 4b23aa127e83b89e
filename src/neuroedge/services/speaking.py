"""A long text said piece by piece: the first sentence is heard while the rest is still being spoken."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from neuroedge.contract.principal import Principal
from neuroedge.kit.speech_plan import first_words
from neuroedge.services.run_engine import EngineRunner

MOST_CHARS: Final = 100_000
FIRST_CHARS: Final = 120
LATER_CHARS: Final = 500
_ENGINE: Final = "synthesis"


def pieces_of(text: str) -> list[dict[str, str]]:
    """What the engine is given one after the other. SSML (a text that begins with `<speak`) stays in one piece."""
    if text.lstrip().startswith("<speak"):
        return [{"ssml": text}]
    pieces = first_words(text, first_chars=FIRST_CHARS, later_chars=LATER_CHARS)
    # What is no word (a row of dashes) would be refused by itself.
    return [{"text": piece} for piece in pieces if any(char.isalnum() for char in piece)] or [{"text": text}]


async def spoken(
    runner: EngineRunner,
    principal: Principal,
    pieces: Sequence[Mapping[str, str]],
    fields: Mapping[str, Any],
    *,
    request_id: str,
) -> AsyncGenerator[Any, None]:
    """The engine's Outputs, in order, of bare samples; at least one.

    All are said by the voice, at the gain and in the language of the first, as long as that voice answers. Raises what
    the engine raises.
    """
    asked = {**fields, "format": "pcm"}
    for piece in pieces:
        said: Any = await runner.run(_ENGINE, {**asked, **piece}, principal=principal, request_id=request_id)
        yield said
        asked |= {"voice": said.voice, "language": said.language}
        if said.loudness_lufs is not None:
            asked["gain_db"] = said.gain_db
