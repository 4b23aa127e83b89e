"""The interface of a sentence encoder's backend, its options, and how sequences are put into batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats

BackendName = Literal["onnxruntime", "openvino", "llama.cpp"]
Pooling = Literal["mean", "cls", "last"]
Precision = Literal["auto", "int8", "float32"]
DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TOKEN_BUDGET: Final = 256
"""Small batches stay in the processor's cache: measured best or near it in every layout on two AVX2 cores."""


class Backend(Protocol):
    """A loaded sentence encoder. All calls block; `forward` is called from up to `workers` threads at once."""

    name: BackendName
    """The library that computes."""
    dim: int
    max_tokens: int
    token_budget: int
    """Padded tokens of one `forward` call that calibration found fastest."""
    workers: int
    """`forward` calls that run side by side."""
    threads: int
    """Cores that one `forward` call keeps busy."""
    quick_tokens: bool
    """Whether `tokenise` takes less than a millisecond for a page of text."""

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the model's special tokens, at least one, cut at `max_tokens`."""
        ...

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised float32 vectors [len(ids), dim] of one batch, padded inside to its longest."""
        ...

    def close(self) -> None:
        """Free the weights; no call may be running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Who computes, and how the cores and the tokens are shared out."""

    backend: BackendName
    workers: int
    threads: int
    """Of each worker."""
    token_budget: int = DEFAULT_TOKEN_BUDGET


class EncoderOptions(BaseModel):
    """What a catalogue entry may say about an encoder; other keys are for others and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pooling: Pooling | None = None
    """None: what a GGUF file says of itself; mean for token states of an ONNX graph."""
    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=2)
    dims: int | None = Field(default=None, ge=1)
    """Keep the first so many dimensions (Matryoshka; Kusupati et al. 2022) and normalise anew."""
    append_token: str | None = None
    """A token every text must end with, where the tokenizer does not add it: Qwen3-Embedding's <|endoftext|>."""
    output: str | None = None
    """The ONNX graph's output to use; by default token states, else the first output."""
    precision: Precision = "auto"
    """Of an ONNX graph on the CPU. auto: int8 when the weights are stored as int8, else as stored."""
    backend: BackendName | None = None
    """Overrides calibration, as the next two do."""
    workers: int | None = Field(default=None, ge=1)
    token_budget: int | None = Field(default=None, ge=1)

    @classmethod
    def parse(cls, model_id: str, options: Mapping[str, Any]) -> "EncoderOptions":
        """Read them. Raises ModelUnavailable naming what is wrong."""
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors())
            raise ModelUnavailable(
                f"{model_id} has options that cannot be used: {problems}", hint="correct them in models.toml"
            ) from error


def batches(lengths: Sequence[int], *, token_budget: int) -> Iterator[list[int]]:
    """Indices of `lengths` in batches of similar length whose padded size stays within `token_budget`.

    A text longer than the budget gets a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Ascending order: the newcomer is the longest, so it sets the padded width.
        if batch and (len(batch) + 1) * lengths[i] > token_budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
