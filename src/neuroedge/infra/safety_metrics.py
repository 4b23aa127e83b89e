"""What operators watch of the safety passes."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class SafetyMetrics:
    """Checks by pass and outcome, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._checks = Counter(
            "neuroedge_safety_checks_total", "Texts judged, by pass and action.", ("stage", "action"), registry=registry
        )
        self._seconds = Histogram(
            "neuroedge_safety_check_seconds", "Time to judge a text.", ("stage",), buckets=_SECONDS, registry=registry
        )
        self.not_kept = Counter(
            "neuroedge_safety_decisions_not_kept_total",
            "Decisions that hold but could not be written down.",
            registry=registry,
        )

    def observe(self, stage: str, action: str, seconds: float) -> None:
        """Count a check."""
        self._checks.labels(stage, action).inc()
        self._seconds.labels(stage).observe(seconds)
