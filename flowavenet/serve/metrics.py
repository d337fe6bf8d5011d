"""What a server counts, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Counters of one server, in a registry of its own.

    The real-time factor is a quotient of two of them:
    ``rate(flowavenet_work_seconds_total[5m]) / rate(flowavenet_audio_seconds_total[5m])``.
    """

    def __init__(self):
        registry = self.registry = CollectorRegistry()

        def named(kind: type, name: str, about: str, labels: tuple[str, ...] = (), **more: tuple) -> Any:
            return kind(f"flowavenet_{name}", about, labels, registry=registry, **more)

        self.requests = named(Counter, "requests", "Requests answered, and WebSockets ended", ("route", "status"))
        self.first_audio = named(
            Histogram, "first_audio_seconds", "From a request, or a piece of a mel in a WebSocket, to its first audio",
            ("kind",), buckets=LATENCIES,
        )
        self.audio = named(Counter, "audio_seconds", "Audio made, in seconds")
        self.work = named(Counter, "work_seconds", "Seconds that the thread of work was busy")
        self.waiting = named(Gauge, "queue", "Steps of work that wait for their turn")
        self.inside = named(Gauge, "requests_under_way", "Requests and WebSockets under way")
        self.together = named(Histogram, "batch", "Requests rendered together", buckets=(1, 2, 4, 8, 16))

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
