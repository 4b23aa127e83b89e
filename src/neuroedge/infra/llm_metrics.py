"""Prometheus metrics of calls to language models, local and remote."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class LLMMetrics:
    """Calls, waiting times, tokens and what went wrong. Labels are names of providers and models, never of callers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "neuroedge_llm_calls_total",
            "Attempts at a provider by outcome: ok, cancelled, failed.",
            ("provider", "model", "outcome"),
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "neuroedge_llm_first_token_seconds",
            "Time from asking a provider to the first piece of its answer.",
            ("provider", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "neuroedge_llm_tokens_total",
            "Tokens as they are in the ledger: prompt, cached (part of prompt), completion.",
            ("kind",),
            registry=registry,
        )
        self.fallbacks = Counter(
            "neuroedge_llm_fallbacks_total",
            "Times another model was asked, by the code of the error that was the reason.",
            ("from", "to", "reason"),
            registry=registry,
        )
        self.usage_doubted = Counter(
            "neuroedge_llm_usage_doubted_total",
            "Counts of a provider that cannot be true, replaced by an estimate: prompt, completion.",
            ("provider", "kind"),
            registry=registry,
        )

    def called(self, provider: str, model: str, outcome: str) -> None:
        """An attempt ended."""
        self.calls.labels(provider, model, outcome).inc()

    def began(self, provider: str, model: str, seconds: float) -> None:
        """The first piece of an answer came."""
        self.first_token_seconds.labels(provider, model).observe(seconds)

    def spent(self, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
        """What goes into the ledger."""
        self.tokens.labels("prompt").inc(prompt_tokens)
        self.tokens.labels("cached").inc(cached_tokens)
        self.tokens.labels("completion").inc(completion_tokens)

    def fell_back(self, offer: str, to: str, reason: str) -> None:
        """Another model is asked instead."""
        self.fallbacks.labels(offer, to, reason).inc()

    def doubted(self, provider: str, kind: str) -> None:
        """A provider told a number of tokens that cannot be."""
        self.usage_doubted.labels(provider, kind).inc()
