from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from app.metrics import Metrics

HANDBOOK = Path(__file__).parent.parent / "docs" / "operations.md"


def documented() -> list[str]:
    """The first cells of the handbook's table of metrics: names with their labels."""
    return re.findall(r"^\| `(whisperd_[^`]+)` \|", HANDBOOK.read_text(encoding="utf-8"), re.MULTILINE)


def collected() -> list[str]:
    """What the server collects, written in the same way."""
    found = []
    for collector in vars(Metrics()).values():
        if isinstance(collector, MetricWrapperBase):
            name = collector._name + ("_total" if isinstance(collector, Counter) else "")
            labels = ",".join(collector._labelnames)
            found.append(f"{name}{{{labels}}}" if labels else name)
    return found


def test_each_metric_is_described_once_and_nothing_else_is() -> None:
    assert sorted(documented()) == sorted(collected())


def test_metrics_of_two_engines_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.jobs.labels("ok").inc()
    assert b'whisperd_jobs_total{outcome="ok"} 1.0' in one.render()
    assert b'outcome="ok"' not in other.render()
