"""The real time."""

from datetime import UTC, datetime


class SystemClock:
    """The Clock port over the system's clock."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)
