"""Prometheus metrics of models and cache: what happens is counted as it happens, what is gets read at each scrape."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class InferenceMetrics:
    """The pool's PoolMetrics, the cache's counts, and gauges for the state of models and memory."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count_events(registry)
        self._gauge_models(registry)
        self._gauge_process(registry)

    def _count_events(self, registry: CollectorRegistry) -> None:
        self.phase_seconds = Histogram(
            "neuroedge_model_seconds",
            "Time a computation spent in a phase: queue, tokenise, inference.",
            ("model", "phase"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.evictions = Counter(
            "neuroedge_model_evictions_total",
            "Models unloaded by the pool: idle, room, pressure, pause, stuck.",
            ("model", "reason"),
            registry=registry,
        )
        self.load_failures = Counter(
            "neuroedge_model_load_failures_total", "Loads that failed.", ("model", "code"), registry=registry
        )
        self.cache_events = Counter(
            "neuroedge_cache_total",
            "What happened to keys of the cache: hit, miss, error … by level.",
            ("event", "level"),
            registry=registry,
        )

    def _gauge_models(self, registry: CollectorRegistry) -> None:
        self.loaded = Gauge("neuroedge_model_loaded", "1 while a model is in memory.", ("model",), registry=registry)
        self.bytes = Gauge("neuroedge_model_bytes", "Memory a loaded model takes.", ("model",), registry=registry)
        self.leases = Gauge("neuroedge_model_leases", "Callers that hold a model now.", ("model",), registry=registry)
        self.load_seconds = Gauge(
            "neuroedge_model_load_seconds", "Time the last load of a model took.", ("model",), registry=registry
        )
        self.circuit = Gauge(
            "neuroedge_circuit_open",
            "State of a circuit breaker: 0 closed, 0.5 half-open, 1 open.",
            ("name",),
            registry=registry,
        )

    def _gauge_process(self, registry: CollectorRegistry) -> None:
        self.memory_used = Gauge(
            "neuroedge_model_memory_bytes", "Memory of all models on a device.", ("device",), registry=registry
        )
        self.memory_budget = Gauge(
            "neuroedge_model_memory_budget_bytes", "Budget of a device.", ("device",), registry=registry
        )
        self.resident = Gauge("neuroedge_resident_bytes", "Resident memory of this process.", registry=registry)
        self.cores_in_use = Gauge(
            "neuroedge_model_cores_in_use", "Cores that computations of models hold.", registry=registry
        )
        self.overcommitted = Gauge(
            "neuroedge_model_cores_overcommitted",
            "Computations so far that ran beside others because no core came free soon.",
            registry=registry,
        )
        self.cache_bytes = Gauge("neuroedge_cache_memory_bytes", "Bytes the cache holds in memory.", registry=registry)

    def cached(self, event: str, level: str | None, n: int) -> None:
        """Something happened to `n` keys of the cache."""
        self.cache_events.labels(event, level or "none").inc(n)

    def phase(self, model_id: str, phase: str, seconds: float) -> None:
        """A computation's time in queue, tokenise or inference."""
        self.phase_seconds.labels(model_id, phase).observe(seconds)

    def evicted(self, model_id: str, reason: str) -> None:
        """The pool unloaded a model."""
        self.evictions.labels(model_id, reason).inc()

    def load_failed(self, model_id: str, code: str) -> None:
        """A load failed."""
        self.load_failures.labels(model_id, code).inc()
