from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.pace import STEP_SECONDS, Pace, retry_after


def pace(window_seconds: float | None = None, max_batch: int = 8) -> Pace:
    """A pace by which a window of 30 s takes ``window_seconds``."""
    made = Pace(max_batch)
    if window_seconds is not None:
        made.measured(encoded_seconds=30, audio_seconds=30, seconds=window_seconds)
    return made


def test_the_first_step_is_one_window_since_nothing_is_measured() -> None:
    assert pace().batch(30, alone=True) == 1


@pytest.mark.parametrize(("window_seconds", "windows"), [(0.5, 4), (0.3, 6), (0.01, 8), (0.0, 8), (11, 1)])
def test_a_step_holds_as_many_windows_as_fit_in_its_time_but_always_one(window_seconds: float, windows: int) -> None:
    assert pace(window_seconds).batch(30, alone=True) == windows


def test_of_short_windows_a_step_holds_more() -> None:
    assert pace(1.5).batch(5, alone=True) == 8
    assert pace(3).batch(5, alone=True) == 4
    assert pace(3).batch(30, alone=True) == 1


@pytest.mark.parametrize(("window_seconds", "windows"), [(11, 2), (1.2, 2), (0.6, 2), (0.5, 4), (0.3, 6), (0.01, 8)])
def test_a_model_that_works_on_two_at_once_gets_two_at_once(window_seconds: float, windows: int) -> None:
    both = pace(window_seconds)
    both.warmed_up(1, at_once=2)
    assert both.batch(30, alone=True) == windows
    assert both.batch(30, alone=False) == 1
    assert Pace(1).batch(30, alone=True) == 1


def test_more_at_once_than_a_step_may_hold_is_no_more_than_that() -> None:
    small = pace(0.01, max_batch=1)
    small.warmed_up(1, at_once=2)
    assert small.batch(30, alone=True) == 1


def test_where_others_wait_a_step_is_one_window() -> None:
    assert pace(0.01).batch(30, alone=False) == 1


@given(window_seconds=st.floats(1e-6, 1e4), max_batch=st.integers(1, 64))
def test_a_step_of_several_windows_takes_no_longer_than_a_step_should(window_seconds: float, max_batch: int) -> None:
    windows = pace(window_seconds, max_batch).batch(30, alone=True)
    assert 1 <= windows <= max_batch
    assert windows == 1 or windows * window_seconds <= STEP_SECONDS


def test_the_warm_up_says_how_long_the_first_step_may_take_but_not_how_many_windows_it_holds() -> None:
    cold = pace()
    cold.warmed_up(0.5)
    assert cold.deadline(1, least=10) == 10 + 30 * 0.5
    assert cold.batch(30, alone=True) == 1


def test_a_measurement_counts_more_than_any_warm_up() -> None:
    warm = pace()
    warm.warmed_up(20)
    warm.measured(encoded_seconds=60, audio_seconds=60, seconds=1)
    assert warm.deadline(1, least=10) == 10 + 30 * 0.5
    warm.warmed_up(20)
    assert warm.deadline(1, least=10) == 10 + 30 * 0.5


def test_a_few_steps_forget_a_cold_start() -> None:
    warm = pace(20)
    for _ in range(15):
        warm.measured(encoded_seconds=30, audio_seconds=30, seconds=0.5)
    assert 30 * warm.encoded_factor == pytest.approx(0.5, rel=0.2)
    assert warm.real_time_factor == pytest.approx(0.5 / 30, rel=0.2)


def test_one_slow_step_does_not_decide_alone() -> None:
    warm = pace(0.5)
    warm.measured(encoded_seconds=30, audio_seconds=30, seconds=10.5)
    assert 30 * warm.encoded_factor == pytest.approx(0.5 + 0.3 * 10)


def test_a_deadline_is_at_least_what_was_asked_for_and_grows_with_the_windows() -> None:
    assert pace().deadline(8, least=60) == 60
    assert pace(2).deadline(1, least=60) == 60 + 30 * 2
    assert pace(2).deadline(4, least=60) == 60 + 30 * 2 * 4


def test_what_audio_takes_is_unknown_until_a_step_is_measured() -> None:
    cold = pace()
    cold.warmed_up(1)
    assert cold.seconds_for(300) is None
    assert pace(3).seconds_for(300) == pytest.approx(30)
    assert pace(3).seconds_for(0) == 0


def test_a_step_without_sound_says_nothing_of_how_long_audio_takes() -> None:
    silent = pace()
    silent.measured(encoded_seconds=30, audio_seconds=0, seconds=1)
    assert silent.seconds_for(300) is None
    assert 30 * silent.encoded_factor == 1


def test_the_audio_that_fits_into_a_time_is_guessed_until_a_step_is_measured() -> None:
    assert pace().audio_in(10) == 20
    assert pace(3).audio_in(10) == pytest.approx(100)
    assert pace().audio_in(0) == 0


@given(window_seconds=st.floats(0.1, 1e3), audio_seconds=st.floats(0, 1e5))
def test_the_time_for_audio_and_the_audio_in_a_time_agree(window_seconds: float, audio_seconds: float) -> None:
    warm = pace(window_seconds)
    seconds = warm.seconds_for(audio_seconds)
    assert seconds is not None
    assert warm.audio_in(seconds) == pytest.approx(audio_seconds)


def test_a_device_too_fast_to_measure_is_not_divided_by() -> None:
    assert pace(0).audio_in(10) > 0
    assert pace(1e-9).audio_in(10) == 10_000


def test_to_come_back_is_worth_it_once_the_shorter_half_of_the_queue_is_done() -> None:
    assert retry_after([40, 5, 20, 10]) == 15
    assert retry_after([40, 5, 20]) == 25, "half of an odd number is rounded up"
    assert retry_after([7.2]) == 8
    assert retry_after(seconds for seconds in (3, 4)) == 3


@pytest.mark.parametrize(("device_seconds", "seconds"), [([], 1), ([0, 0], 1), ([119.5], 120), ([9999], 120)])
def test_retry_after_stays_between_a_second_and_two_minutes(device_seconds: list[float], seconds: int) -> None:
    assert retry_after(device_seconds) == seconds


@given(st.lists(st.floats(0, 1e4), max_size=30))
def test_retry_after_is_never_more_than_half_of_the_work_but_for_whole_seconds(device_seconds: list[float]) -> None:
    half = (len(device_seconds) + 1) // 2
    seconds = retry_after(device_seconds)
    assert isinstance(seconds, int)
    assert 1 <= seconds <= 120
    if len(device_seconds) % 2 == 0 and seconds > 1:
        assert seconds < sum(device_seconds) / 2 + 1
    assert seconds <= 1 + max(device_seconds, default=0) * half
