"""
Numbers for Prometheus, in a registry of our own. No names of people or nodes: anyone may read them.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

ALARMS: Mapping[str, str] = {
    "attest_broken": "what a bastion reports of a recording contradicts what it reported before",
    "attest_missing": "a session goes on, and its bastion reports no hashes of its recording",
    "bastion_lost": "a bastion let its lease run out",
    "certificate_not_in_log": "somebody came with a certificate of our CA that the issuance log does not know",
    "housekeeping_failed": "what has ended could not be cleared away",
    "provider_client": "an identity provider refuses us: the client or its secret is wrong, or it takes no such client",
    "provider_unreachable": "an identity provider cannot be asked; what it said last goes on counting",
    "recheck_failed": "people with live sessions could not be asked about",
    "retention_failed": "recordings that are over their time could not be deleted",
    "signer_fault": "what a key signed did not verify; nothing was handed out",
    "watch_failed": "live sessions could not be looked at",
}
"""The kinds of ``bartizan_alarms_total``, each there from the start at 0, so that its first rise is seen."""


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
        for kind in ALARMS:
            self._alarms.labels(kind)
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
