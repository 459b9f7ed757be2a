"""The clock that stands still while everything does."""

from __future__ import annotations

import time

import pytest

from app.worker.awake import GAP_S, AwakeClock


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_runs_while_somebody_looks(monotonic: list[float]) -> None:
    clock = AwakeClock()
    began = clock.now()
    for _ in range(60):
        monotonic[0] += 1
        clock.now()
    assert clock.now() - began == 60


def test_a_sleep_of_any_length_takes_no_time(monotonic: list[float]) -> None:
    clock = AwakeClock()
    began = clock.now()
    for gap in (GAP_S + 0.5, 120, 8 * 3600):
        monotonic[0] += 1
        clock.now()
        monotonic[0] += gap
        clock.now()
    assert clock.now() - began == 3


def test_a_stall_that_is_no_sleep_counts(monotonic: list[float]) -> None:
    clock = AwakeClock()
    began = clock.now()
    monotonic[0] += GAP_S
    assert clock.now() - began == GAP_S
