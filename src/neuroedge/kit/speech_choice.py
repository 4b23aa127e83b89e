"""Which voice says something, and which ones after it when it cannot."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from neuroedge.kit.speech_plan import speaks


class Choosable(Protocol):
    """What is known of a voice."""

    @property
    def id(self) -> str:
        """As callers name it."""
        ...

    @property
    def name(self) -> str:
        """A shorter name, that several may have."""
        ...

    @property
    def kind(self) -> str:
        """Voices of one kind are compared by their languages only."""
        ...

    @property
    def model(self) -> str:
        """What fails as one."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """None: any."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it can speak now."""
        ...


V = TypeVar("V", bound=Choosable)


def candidates(voices: Sequence[V], *, wanted: str | None, language: str) -> list[V]:
    """The voices to try, the first choice first, one of each model; none where none speaks the language.

    `voices`: best kind first. `wanted`: id or name of the first choice, which is tried though it may not be ready; None
    for the best.
    """
    first = [] if wanted is None else [voice for voice in voices if wanted in (voice.id, voice.name)][:1]
    if wanted is not None and not any(speaks(voice.languages, language) for voice in first):
        return []
    kinds = list(dict.fromkeys(voice.kind for voice in voices))
    able = [voice for voice in voices if voice.ready and speaks(voice.languages, language)]
    able.sort(key=lambda voice: (kinds.index(voice.kind), -speaks(voice.languages, language)))
    by_model: dict[str, V] = {}
    for voice in [*first, *able]:
        by_model.setdefault(voice.model, voice)
    return list(by_model.values())


def own_language(voices: Sequence[V], wanted: str) -> str | None:
    """The language of a voice, where it speaks one."""
    found = next((voice for voice in voices if wanted in (voice.id, voice.name)), None)
    return found.languages[0] if found is not None and found.languages else None
