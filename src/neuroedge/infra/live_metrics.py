"""What operators watch of live transcription."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 10, 30)


class LiveMetrics:
    """Sessions, and how soon their words come."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge("neuroedge_live_sessions", "Live sessions that are open.", registry=registry)
        self.ended = Counter(
            "neuroedge_live_sessions_ended_total",
            "Live sessions that ended, by reason.",
            ("reason",),
            registry=registry,
        )
        self.audio_seconds = Counter("neuroedge_live_audio_seconds_total", "Sound taken in.", registry=registry)
        self.first_partial_seconds = Histogram(
            "neuroedge_live_first_partial_seconds",
            "From the start of speech to its first words; of sound that comes as fast as it is spoken.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.final_seconds = Histogram(
            "neuroedge_live_final_seconds",
            "From the end of speech to its final text; of sound that comes as fast as it is spoken.",
            buckets=_SECONDS,
            registry=registry,
        )
