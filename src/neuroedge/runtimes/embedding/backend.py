"""What every sentence encoder's library adapter offers, and the choice among them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from neuroedge.contract.models import Floats


class Backend(Protocol):
    """A loaded sentence encoder. All calls block; `forward` is called from up to `workers` threads at once."""

    name: str
    """The library that computes: onnxruntime, openvino or llama.cpp."""
    dim: int
    max_tokens: int
    token_budget: int
    """Padded tokens of one `forward` call that calibration found fastest."""
    workers: int
    """`forward` calls that run side by side, each with its share of the threads."""

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the model's special tokens, cut at `max_tokens`."""
        ...

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised vectors [len(ids), dim] of one batch, padded inside to its longest."""
        ...

    def close(self) -> None:
        """Free the weights; no call may be running."""
        ...


def open_backend(
    model_id: str,
    folder: Path,
    *,
    threads: int,
    options: Mapping[str, Any],
    device: str = "cpu",
    calibration_dir: Path | None = None,
) -> Backend:
    """Load the encoder in `folder` by the fastest backend of this machine.

    Raises ModelUnavailable when the files do not load.
    """
    from neuroedge.runtimes.embedding import onnx

    return onnx.open_onnx(model_id, folder, threads=threads, options=options)


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
