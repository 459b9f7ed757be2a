"""What an idle device does with its warm model, by clocks that the tests set."""

from __future__ import annotations

from app.engine.upkeep import Upkeep

#: The wall clock's hour; it has nothing to do with the monotonic one.
WALL = 1_700_000_000.0


def looked(upkeep: Upkeep, seconds: int, *, start: int = 0) -> dict[int, str]:
    """What is due when somebody looks every second: second -> what, where there is something."""
    found = {now: upkeep.due(float(now), WALL + now) for now in range(start, start + seconds)}
    return {now: due for now, due in found.items() if due}


def upkeep_of(keep_alive: float = -1, keep_warm_s: float = 0, *, pressed: bool = False) -> Upkeep:
    upkeep = Upkeep(keep_alive, keep_warm_s, lambda: pressed)
    upkeep.worked(0.0, WALL)
    return upkeep


def test_a_model_is_left_alone_for_ever() -> None:
    assert looked(upkeep_of(), 100_000) == {}


def test_it_is_unloaded_after_keep_alive_and_work_starts_that_anew() -> None:
    upkeep = upkeep_of(keep_alive=60)
    assert looked(upkeep, 61) == {}
    upkeep.worked(50.0, WALL + 50)
    assert looked(upkeep, 60, start=51) == {}
    assert looked(upkeep, 1, start=111) == {111: "unload"}


def test_it_is_used_every_keep_warm_s() -> None:
    assert looked(upkeep_of(keep_warm_s=300), 1000) == {301: "warm up", 602: "warm up", 903: "warm up"}


def test_being_used_once_does_not_keep_it_from_being_unloaded() -> None:
    assert looked(upkeep_of(keep_alive=500, keep_warm_s=300), 502) == {301: "warm up", 501: "unload"}


def test_after_a_sleep_it_is_used_once() -> None:
    upkeep = upkeep_of()
    assert looked(upkeep, 10) == {}
    # The monotonic clock of macOS and Linux stands still in a sleep.
    assert upkeep.due(11.0, WALL + 8 * 3600) == "warm up"
    assert upkeep.due(12.0, WALL + 8 * 3600 + 1) == ""


def test_a_long_job_and_a_clock_set_back_are_no_sleep() -> None:
    upkeep = upkeep_of()
    assert looked(upkeep, 10) == {}
    upkeep.worked(1000.0, WALL + 1000)
    assert upkeep.due(1001.0, WALL + 1001) == ""
    assert upkeep.due(1002.0, WALL - 3600) == ""


def test_memory_that_others_want_is_given_up_a_while_after_the_last_work() -> None:
    found = looked(upkeep_of(pressed=True), 12)
    assert found == {11: "unload"}
