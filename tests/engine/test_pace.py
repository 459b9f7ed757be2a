from __future__ import annotations

from app.engine.pace import STEP_SECONDS, Pace


def test_the_first_step_is_one_window_since_nothing_is_measured() -> None:
    assert Pace(max_batch=8).batch(alone=True) == 1


def test_a_step_holds_as_many_windows_as_fit_in_its_time() -> None:
    pace = Pace(max_batch=8)
    pace.measured(windows=1, audio_seconds=30, seconds=0.5)
    assert pace.batch(alone=True) == int(STEP_SECONDS / 0.5)


def test_a_slow_device_still_gets_one_window() -> None:
    pace = Pace(max_batch=8)
    pace.measured(windows=1, audio_seconds=30, seconds=11)
    assert pace.batch(alone=True) == 1


def test_where_others_wait_a_step_is_one_window() -> None:
    pace = Pace(max_batch=8)
    pace.measured(windows=1, audio_seconds=30, seconds=0.01)
    assert (pace.batch(alone=True), pace.batch(alone=False)) == (8, 1)


def test_retry_after_follows_the_measured_real_time_factor_within_its_bounds() -> None:
    pace = Pace(max_batch=8)
    pace.measured(windows=1, audio_seconds=30, seconds=3)
    assert pace.retry_after(300) == 30
    assert pace.retry_after(0) == 1
    assert pace.retry_after(1e6) == 120
