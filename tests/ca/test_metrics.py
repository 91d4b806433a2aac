"""ca/metrics.py: every alarm is listed, and stands at 0 before it first rises."""

from __future__ import annotations

import re
from pathlib import Path

from ca.metrics import ALARMS, Metrics


def test_every_alarm_that_is_raised_is_listed() -> None:
    rooms = Path(__file__).parents[2] / "ca"
    raised = {kind for file in rooms.rglob("*.py") for kind in re.findall(r'\.alarm\("(\w+)"\)', file.read_text())}
    assert raised <= ALARMS.keys()


def test_an_alarm_stands_at_0_before_it_rises() -> None:
    metrics = Metrics()
    assert 'bartizan_alarms_total{kind="provider_client"} 0.0' in metrics.text().decode()
    metrics.alarm("provider_client")
    assert 'bartizan_alarms_total{kind="provider_client"} 1.0' in metrics.text().decode()
