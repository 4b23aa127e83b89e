"""How speech leaves: the voices there are, what they are told to say, and what comes of it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from neuroedge.contract.errors import Unavailable
from neuroedge.kit.ssml import Part as Part
from neuroedge.kit.waveform import Floats

VoiceKind = Literal["network", "neural", "formant"]
"""network: a provider's; neural: a model of this machine; formant: rules of this machine, the last resort."""
AudioFormat = Literal["wav", "mp3", "opus", "flac", "aac", "pcm"]
"""opus in OGG, aac in ADTS; pcm is bare 16-bit little-endian samples."""
INSTALL_VOICES = "pip install neuroedge[voices]"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTime:
    """A spoken word; times in seconds from the start of its piece."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechPiece:
    """What a voice made of a few sentences."""

    samples: Floats
    """Mono [n], -1 to 1."""
    rate_hz: int
    words: Sequence[WordTime] | None
    """None: this voice does not know when it says what."""
    warnings: Sequence[str] = ()
    """What it could not do as asked."""


class SpeechSynthesiser(Protocol):
    """Text to speech."""

    model_id: str

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """Say `parts` as one utterance, `speed` times as fast as usual (0.25 to 4).

        `voice`: one of the model's own by name; `language` as BCP 47, where a voice speaks several. Raises
        InvalidInput for a voice the model has not, Overloaded, ModelFailed; of a provider what its calls raise.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice that can be asked for."""

    id: str
    """As callers name it: `provider/model/voice`, a catalogue id with `#speaker`, or `espeak/language`."""
    name: str
    kind: VoiceKind
    method: str
    """As `method` of an answer names it: network, piper, espeak-ng."""
    model: str
    """Catalogue id, or `provider/model`."""
    voice: str | None
    """Its name within the model."""
    languages: Sequence[str]
    """BCP 47; empty: whatever the text is in."""
    private: bool
    """Whether the text stays with the operator."""
    fingerprint: str
    """Changes with the model: part of the key under which speech is cached."""
    ready: bool = True
    """False: known, but its files or its package are missing."""
    remedy: str | None = None


class SpeechOutput(Protocol):
    """The voices a caller may use, and the formats of what they say."""

    async def known(self) -> Sequence[Voice]:
        """Every voice, best first: the network's, neural ones, formant ones; those that are not `ready` too."""
        ...

    def opened(self, voice: Voice) -> AbstractAsyncContextManager[SpeechSynthesiser]:
        """Hold what speaks with a voice. Raises Unavailable with the remedy, Forbidden."""
        ...

    async def encode(self, samples: Floats, *, rate_hz: int, form: AudioFormat) -> bytes:
        """A whole file of a mono waveform [n]; the encoder may change the rate. Raises Overloaded."""
        ...


class NoSpeechOutput:
    """The SpeechOutput of nobody in particular."""

    async def known(self) -> Sequence[Voice]:
        """None."""
        return ()

    @asynccontextmanager
    async def opened(self, voice: Voice) -> AsyncIterator[SpeechSynthesiser]:
        """There is none to open."""
        raise Unavailable(f"the voice {voice.id} is not installed", hint=INSTALL_VOICES)
        yield  # pragma: no cover

    async def encode(self, samples: Floats, *, rate_hz: int, form: AudioFormat) -> bytes:
        """There is nothing to encode."""
        raise Unavailable("no voice is installed", hint=INSTALL_VOICES)
