"""
Numbers for Prometheus, in a registry of our own. No names of people or nodes: anyone may read them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All that is counted."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "bartizan_http_request_seconds",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._alarms = Counter("bartizan_alarms", "What an operator should look at", ["kind"], registry=registry)
        self.logins = Counter("bartizan_logins", "Sign-ins", ["result"], registry=registry)
        self.issued = Counter("bartizan_certificates_issued", "Certificates by CA", ["ca"], registry=registry)
        self.sessions = Counter("bartizan_sessions", "Session decisions", ["result"], registry=registry)
        self.live = Gauge("bartizan_sessions_live", "Sessions alive now", registry=registry)
        self.workers = Gauge("bartizan_bastion_workers", "Bastion workers that keep their lease", registry=registry)
        self.disk_free = Gauge("bartizan_recordings_disk_free_bytes", "Room left for recordings", registry=registry)
        self.disk_low = Gauge(
            "bartizan_recordings_disk_low", "1 when the recordings' disk is nearly full", registry=registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)

    def alarm(self, kind: str) -> None:
        self._alarms.labels(kind).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)
