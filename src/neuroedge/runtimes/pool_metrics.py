"""What a model pool tells of itself."""

from typing import Protocol


class PoolMetrics(Protocol):
    """What happens in a pool, as it happens; the rest is read from its slots."""

    def phase(self, model_id: str, phase: str, seconds: float) -> None:
        """A computation's time in queue, tokenise or inference."""

    def evicted(self, model_id: str, reason: str) -> None:
        """A model was unloaded: idle, room, pressure, pause or stuck."""

    def load_failed(self, model_id: str, code: str) -> None:
        """A load failed with an error code."""


class Unmeasured:
    """PoolMetrics of nobody."""

    def phase(self, model_id: str, phase: str, seconds: float) -> None:
        """Nothing."""

    def evicted(self, model_id: str, reason: str) -> None:
        """Nothing."""

    def load_failed(self, model_id: str, code: str) -> None:
        """Nothing."""
