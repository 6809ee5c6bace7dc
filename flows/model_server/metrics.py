"""Figures of a model server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("ladder_requests", "Requests that were answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("ladder_request_seconds", "Time to the whole answer", ["path"], buckets=SECONDS, registry=self.registry)
        self.first_token = Histogram("ladder_first_token_seconds", "Time to the first token", buckets=SECONDS, registry=self.registry)
        self.tokens = Counter("ladder_tokens", "Tokens that were read and written", ["kind"], registry=self.registry)
        self.batch_rows = Histogram("ladder_batch_rows", "Rows of a classifier's batch", buckets=ROWS, registry=self.registry)
        self.in_flight = Gauge("ladder_in_flight", "Rows or answers that wait or are computed", registry=self.registry)
        self.model = Gauge("ladder_model_info", "1 for the model that answers", ["model"], registry=self.registry)
        self.switches = Counter("ladder_switches", "Switches to another version", ["outcome"], registry=self.registry)
        self.registry_up = Gauge("ladder_registry_up", "Whether the registry answered the last question", registry=self.registry)
        self.window_rows = Counter("ladder_window_rows", "Rows for monitoring windows", ["outcome"], registry=self.registry)

    def serves(self, model: str) -> None:
        """Note which model answers from now on."""
        self.model.clear()
        self.model.labels(model).set(1)

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self.registry)
