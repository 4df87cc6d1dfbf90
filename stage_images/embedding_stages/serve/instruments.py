"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Instruments:
    """One registry a server, so that tests can run many in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "embedding_server_requests", "Requests for embeddings, by HTTP status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "embedding_server_request_seconds",
            "From a request's arrival to its answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "embedding_server_tokens", "Tokens embedded, prefixes included", ["input_type"], registry=self.registry
        )
        self.batch_rows = Histogram(
            "embedding_server_batch_rows", "Texts that went through the model at once", buckets=_ROWS,
            registry=self.registry,
        )  # fmt: skip
        self.waiting_rows = Gauge(
            "embedding_server_waiting_rows", "Texts that wait for the model", registry=self.registry
        )
        self.invalid_vectors = Counter(
            "embedding_server_invalid_vectors",
            "Vectors that were not finite or not of length 1",
            registry=self.registry,
        )
        self.model_info = Gauge(
            "embedding_server_model_info", "1, labelled with what is served", ["model", "artefact_digest"],
            registry=self.registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
