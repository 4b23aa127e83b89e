"""What operators watch of a shared device."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class AcceleratorMetrics:
    """Waits, pauses, resumes and losses by device; one per registry, for all its devices."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.wait_seconds = Histogram(
            "neuroedge_accelerator_wait_seconds",
            "Time until a job had the device to itself (granted) or did not get it (refused).",
            ("device", "priority", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.pause_seconds = Histogram(
            "neuroedge_accelerator_pause_seconds",
            "Time from a pause request until the last other process had acknowledged it.",
            ("device",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.resume_seconds = Histogram(
            "neuroedge_accelerator_resume_seconds",
            "Time this process took to reload what it had unloaded.",
            ("device",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.lost = Counter(
            "neuroedge_accelerator_lost_total",
            "Leases that could not be taken or were lost, by reason.",
            ("device", "reason"),
            registry=registry,
        )
        self.paused = Gauge(
            "neuroedge_accelerator_paused", "1 while this process has left the device.", ("device",), registry=registry
        )
