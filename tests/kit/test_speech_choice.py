"""Which voice speaks."""

from dataclasses import dataclass

from neuroedge.kit.speech_choice import candidates, own_language


@dataclass(frozen=True)
class AVoice:
    """A voice."""

    id: str
    kind: str
    model: str
    languages: tuple[str, ...]
    ready: bool = True

    @property
    def name(self) -> str:
        """The last part of its id."""
        return self.id.rpartition("/")[2]


VOICES = [
    AVoice("net/tts/alloy", "network", "net/tts", ()),
    AVoice("net/tts/nova", "network", "net/tts", ()),
    AVoice("joe", "neural", "joe", ("en-US",)),
    AVoice("jenny", "neural", "jenny", ("en-GB",)),
    AVoice("lena", "neural", "lena", ("de-DE",), ready=False),
    AVoice("espeak/en-us", "formant", "espeak", ("en-us", "en")),
    AVoice("espeak/de", "formant", "espeak", ("de",)),
]


def ids(wanted: str | None, language: str) -> list[str]:
    """Of the candidates."""
    return [voice.id for voice in candidates(VOICES, wanted=wanted, language=language)]


def test_the_best_kind_that_speaks_the_language_comes_first() -> None:
    """One voice of each model; the region decides within a kind; what is not ready is left out."""
    assert ids(None, "en-GB") == ["net/tts/alloy", "jenny", "joe", "espeak/en-us"]
    assert ids(None, "de") == ["net/tts/alloy", "espeak/de"]


def test_the_wanted_voice_comes_first() -> None:
    """By id or name, also when it is not ready: the answer tells so."""
    assert ids("nova", "en")[:2] == ["net/tts/nova", "joe"]
    assert ids("espeak/en-us", "en")[0] == "espeak/en-us"
    assert ids("lena", "de") == ["lena", "net/tts/alloy", "espeak/de"]


def test_a_voice_is_not_given_a_language_it_does_not_speak() -> None:
    """Nor is one made up."""
    assert ids("joe", "de") == []
    assert ids("nobody", "en") == []
    assert candidates(VOICES[2:], wanted=None, language="xx") == []


def test_a_voice_tells_its_language() -> None:
    """Unless it speaks any."""
    assert own_language(VOICES, "espeak/de") == "de"
    assert own_language(VOICES, "alloy") is None
    assert own_language(VOICES, "nobody") is None
