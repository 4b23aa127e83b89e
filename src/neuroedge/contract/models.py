"""What engines may ask of models: typed roles, never a library.

A role names what a model does ("speech_to_text"); settings map each role to an entry of the model catalogue, and a
runtime adapter implements the role's protocol. All calls are coroutines: adapters run the computation in their own
bounded thread pool, so the event loop never blocks.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.chat import ChatModel
from neuroedge.contract.speech import SpeechSynthesiser
from neuroedge.kit.parse import ParsedText as ParsedText
from neuroedge.kit.waveform import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from neuroedge.kit.waveform import Floats as Floats
from neuroedge.kit.waveform import Span as Span

M = TypeVar("M")
Corners = NDArray[np.float64]
Priority = Literal["low", "normal", "high"]
"""Who goes first when memory or a device is short: background jobs are low, what a person waits for is high."""


@dataclass(frozen=True, slots=True)
class ModelRef(Generic[M]):
    """A role an engine leases a model for; `type_` is the protocol the leased object implements."""

    role: str
    type_: type[M] = field(compare=False)
    id: str | None = None
    """Catalogue id, where it must be this very model of the role; else the configured one serves."""

    def named(self, model_id: str | None) -> "ModelRef[M]":
        """This role, by the given model; by the configured one when None."""
        return ModelRef(self.role, self.type_, model_id)


ModelState = Literal["missing", "unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """What the pool knows of the model behind a role."""

    role: str
    id: str
    state: ModelState
    runtime: str
    detail: str | None = None
    fingerprint: str = ""
    """Changes with the weights and options: part of the key under which results are cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenWord:
    """One recognised word; times in seconds from the start of the waveform, `p` its probability."""

    w: str
    start_s: float
    end_s: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A stretch of speech the recogniser decoded in one piece."""

    text: str
    start_s: float
    end_s: float
    words: list[SpokenWord]
    avg_logprob: float
    no_speech_prob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """The recogniser's result for a waveform; no utterances when nobody spoke."""

    utterances: list[Utterance]
    language: str
    language_p: float
    duration_s: float


SpeechTask = Literal["transcribe", "translate"]


class SpeechToText(Protocol):
    """Automatic speech recognition with word times."""

    model_id: str

    async def transcribe(
        self,
        samples: Floats,
        *,
        language: str | None = None,
        hot_words: Sequence[str] = (),
        on_progress: Callable[[float], None] | None = None,
        task: SpeechTask = "transcribe",
        prompt: str = "",
        beam_size: int | None = None,
        vad: bool = True,
        live: bool = False,
    ) -> Transcription:
        """Transcribe `samples` [n] at 16 kHz. `on_progress` gets the fraction done, from a worker thread.

        `task` translate gives English text of any language. `prompt`: what was said before. `beam_size` None: the
        model's own. `vad` False: `samples` are known to be speech and are not searched for it again. `live`: a short
        piece that somebody waits for; it goes past recordings and is not padded to the model's whole window.
        Raises InvalidInput for a language or task the model does not have.
        """
        ...


VOICE_FRAME = 512
"""Samples a voice activity model judges at once: 32 ms."""


@dataclass(frozen=True, slots=True)
class VoiceState:
    """What a voice activity model remembers of a stream so far; its own business."""

    memory: Any


class VoiceActivity(Protocol):
    """Speech or not, per frame."""

    model_id: str

    async def speech(self, samples: Floats) -> list[Span]:
        """Stretches of speech in `samples` [n] at 16 kHz, in order, not overlapping."""
        ...

    async def listen(self, samples: Floats, state: VoiceState | None) -> tuple[Floats, VoiceState]:
        """Probability of speech in each VOICE_FRAME of `samples` [m * VOICE_FRAME] that follow those of `state`.

        For streams: `state` None is their beginning, what is given back goes into the next call.
        """
        ...


class SpeakerEncoder(Protocol):
    """Maps speech to a vector that is near for the same voice."""

    model_id: str
    dim: int

    async def encode(self, windows: Sequence[Floats]) -> Floats:
        """L2-normalised vectors [len(windows), dim], one for each waveform (any lengths, 16 kHz)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Sentence vectors [n, dim], L2-normalised, with the tokens each text took."""

    vectors: Floats
    tokens: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStates:
    """One text's tokens as their encoder sees them in their context; special tokens are left out."""

    ids: list[int]
    """In the encoder's vocabulary."""
    vectors: Floats
    """[len(ids), width], each L2-normalised."""


class TextEncoder(Protocol):
    """Sentence embeddings."""

    model_id: str
    dim: int
    max_tokens: int

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Embed `texts`; longer ones are cut at `max_tokens`. `kind` picks the model's instruction, if it has one."""
        ...

    async def token_states(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage"
    ) -> list[TokenStates]:
        """What the model makes of every token of each text, cut as in `encode`.

        Raises Unavailable where the model only gives whole texts' vectors.
        """
        ...


class Reranker(Protocol):
    """Judges passages with the query beside them: slower and more exact than comparing vectors made apart."""

    model_id: str
    method: str
    """cross-encoder or gguf-reranker."""

    async def score(self, query: str, passages: Sequence[str]) -> Floats:
        """Relevance of each passage to the query, float32 [len(passages)], 0 to 1, in the order given.

        What exceeds the model's tokens is cut from the passage's end. Raises Overloaded, DeadlineExceeded, ModelFailed.
        """
        ...


class TextClassifier(Protocol):
    """A trained head over sentence embeddings with calibrated probabilities."""

    model_id: str
    labels: tuple[str, ...]
    thresholds: Floats
    """Per label, the decision threshold chosen on the development set [len(labels)]."""

    async def predict(self, vectors: Floats) -> Floats:
        """Probabilities [n, len(labels)] for sentence vectors [n, dim]."""
        ...


class TextParser(Protocol):
    """Sentences, names and dependencies of texts."""

    model_id: str

    async def parse(self, texts: Sequence[str]) -> list[ParsedText]:
        """A parse of each text, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """A line of text found in a picture."""

    text: str
    p: float
    """Mean probability of its characters, 0 to 1."""
    corners_px: Corners
    """[4, 2]: x and y of its corners in pixels of the page, clockwise from the one where the line begins, above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPage:
    """What was read on one page; no lines when it holds no text. The order of the lines means nothing."""

    lines: list[TextLine]
    width_px: int
    """Of the page as it is to be seen: turned as its EXIF data say."""
    height_px: int
    turned_degrees: int
    """How far, clockwise, the page had to be turned to stand upright: 0, 90, 180 or 270."""
    pages: int
    """How many pages the file has."""


class TextReader(Protocol):
    """Optical character recognition."""

    model_id: str

    async def read(self, image: bytes, *, page: int = 1) -> ReadPage:
        """The lines on a page (from 1) of a PNG, JPEG, TIFF, WebP, GIF or BMP file.

        Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge (50 megapixels), InvalidInput for a page the
        file has not.
        """
        ...


class ImageSafety(Protocol):
    """Tells pictures that are not safe for work."""

    model_id: str

    async def p_unsafe(self, image: bytes) -> float:
        """Probability (0 to 1) that a PNG, JPEG, TIFF, WebP, GIF or BMP file shows nudity; its first frame counts.

        Raises what TextReader.read raises.
        """
        ...


class ImageTextEncoder(Protocol):
    """Pictures and texts as vectors of one space."""

    model_id: str
    method: str
    """clip or siglip."""
    dim: int
    max_tokens: int

    async def encode_images(self, images: Sequence[bytes]) -> Floats:
        """L2-normalised vectors [len(images), dim] of picture files; raises what TextReader.read raises."""
        ...

    async def encode_texts(self, texts: Sequence[str]) -> Floats:
        """L2-normalised vectors [len(texts), dim]; longer texts are cut at `max_tokens`."""
        ...

    def probabilities(self, cosines: Floats) -> Floats:
        """Of cosines [n] of one picture with n labels: softmax for clip (sum 1), one by one for siglip."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PhonePosteriors:
    """What a recogniser trained by connectionist temporal classification (CTC) hears in each frame."""

    log_p: Floats
    """[frames, len(symbols)], natural logarithms; each frame's probabilities sum to 1."""
    symbols: tuple[str, ...]
    """Phones in IPA, and the recogniser's own marks in <angle brackets>."""
    frame_s: float
    blank: int
    """Index of the symbol that stands for no new phone."""


class PhonemeRecogniser(Protocol):
    """Phones of speech, frame by frame, and of written words."""

    model_id: str

    async def posteriors(self, samples: Floats) -> PhonePosteriors:
        """Frames of `samples` [n] at 16 kHz."""
        ...

    async def pronounce(self, words: Sequence[str]) -> list[list[tuple[str, ...]]]:
        """The ways to say each English word, as phones in IPA, the commonest first; none for what has no letters."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A sentence in another language."""

    text: str
    score: float
    """Mean natural logarithm of the probability of its pieces."""


class Translator(Protocol):
    """Neural machine translation, sentence by sentence."""

    model_id: str

    def serves(self, source: str, target: str) -> bool:
        """Whether it translates between these languages (BCP 47 primary subtags: en, hi)."""
        ...

    async def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[Translated]:
        """Each text in the target language, in order.

        Raises InvalidInput for languages it does not serve and for a text of more pieces than it reads at once.
        """
        ...


class Models(Protocol):
    """The pool as engines see it."""

    def lease(self, ref: ModelRef[M], *, priority: Priority | None = None) -> AbstractAsyncContextManager[M]:
        """Hold the model of a role, loading it when needed; `priority` None: that of the call it belongs to.

        Raises ModelUnavailable with the remedy, NotEnoughMemory, CircuitOpen.
        """
        ...

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """What is known of the role's model without loading it."""
        ...


SPEECH_TO_TEXT = ModelRef("speech_to_text", SpeechToText)  # type: ignore[type-abstract]
SPEECH_SYNTHESIS = ModelRef("speech_synthesis", SpeechSynthesiser)  # type: ignore[type-abstract]
VOICE_ACTIVITY = ModelRef("voice_activity", VoiceActivity)  # type: ignore[type-abstract]
SPEAKER_EMBEDDING = ModelRef("speaker_embedding", SpeakerEncoder)  # type: ignore[type-abstract]
TEXT_EMBEDDING = ModelRef("text_embedding", TextEncoder)  # type: ignore[type-abstract]
RERANK = ModelRef("rerank", Reranker)  # type: ignore[type-abstract]
"""Optional: no model comes with NeuroEdge; engines that can use one have a default without it."""
EMOTION_TEXT = ModelRef("emotion_text", TextClassifier)  # type: ignore[type-abstract]
CHAT = ModelRef("chat", ChatModel)  # type: ignore[type-abstract]
ENTITIES = ModelRef("entities", TextParser)  # type: ignore[type-abstract]
OCR = ModelRef("ocr", TextReader)  # type: ignore[type-abstract]
IMAGE_SAFETY = ModelRef("image_safety", ImageSafety)  # type: ignore[type-abstract]
IMAGE_EMBEDDING = ModelRef("image_embedding", ImageTextEncoder)  # type: ignore[type-abstract]
"""Optional: no model comes with NeuroEdge; the engine vision has a default without it."""
PHONEMES = ModelRef("phonemes", PhonemeRecogniser)  # type: ignore[type-abstract]
TRANSLATION = ModelRef("translation", Translator)  # type: ignore[type-abstract]
"""Optional: no model comes with NeuroEdge. One of several languages serves the role; one of a pair is found by its
catalogue id, nmt-en-hi."""
