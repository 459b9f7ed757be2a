"""Whose turn it is, by examples and whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.succession import Candidate, Line, Succession

A, B, C = (Candidate(name, f"/models/{name}") for name in "abc")
LINE = (A, B, C)
GONE = Candidate("gone", missing="It is not here.")
#: On purpose not imported.
REST, LONGEST = 600, 3600


def die(succession: Succession, candidate: Candidate, *times: float, recording: str = "") -> None:
    for time in times:
        succession.died(candidate, time, recording=recording)


def test_the_first_does_it_until_its_load_fails_and_then_the_next() -> None:
    succession = Succession()
    assert succession.turn(LINE, 0) == A
    succession.failed(A, "It is broken.", 0)
    assert succession.turn(LINE, 0) == B
    assert (succession.state(A, 0), succession.reason(A)) == ("failed", "The model could not be loaded: It is broken.")
    succession.failed(B, "It is broken.", 5)
    assert succession.turn(LINE, 5) == C


def test_the_third_death_in_a_minute_moves_the_turn_on() -> None:
    succession = Succession()
    die(succession, A, 0, 30)
    assert succession.turn(LINE, 30) == A
    die(succession, A, 61)
    assert succession.turn(LINE, 61) == A, "the first is forgotten"
    die(succession, A, 62)
    assert succession.turn(LINE, 62) == B
    assert succession.state(A, 62) == "broken"


def test_three_deaths_in_loads_in_a_row_do_it_however_long_they_take() -> None:
    succession = Succession()
    for time in (0, 100, 200):
        assert succession.turn(LINE, time) == A
        succession.died(A, time, loading=True)
    assert succession.turn(LINE, 200) == B
    other = Succession()
    for time in (0, 100, 200):
        other.died(A, time, loading=True)
        other.loaded(A, time + 50)
    assert other.turn(LINE, 250) == A


def test_whoever_is_warm_goes_on_and_the_rested_one_is_only_named_as_better() -> None:
    succession = Succession()
    succession.failed(A, "It is broken.", 0)
    assert succession.better(LINE, REST - 1, B) is None
    assert succession.turn(LINE, REST, B) == B
    assert succession.better(LINE, REST, B) == A
    assert succession.turn(LINE, REST) == A
    assert succession.better(LINE, REST, A) is None


def test_rests_in_a_row_double_up_to_six_times_and_begin_anew_after_a_good_while() -> None:
    succession, now, rests = Succession(), 0.0, []
    for _ in range(5):
        succession.failed(A, "It is broken.", now)
        began = now
        while succession.turn(LINE, now) != A:
            now += 10
        rests.append(now - began)
        succession.loaded(A, now)
    assert rests == [REST, 2 * REST, 4 * REST, LONGEST, LONGEST]
    now += REST + 1
    succession.failed(A, "It is broken.", now)
    assert succession.turn(LINE, now + REST) == A


def test_where_nobody_is_left_all_are_refused_for_ten_seconds_and_said_by_name() -> None:
    succession, line = Succession(), (A, B, GONE)
    for each in (A, B):
        succession.failed(each, f"No {each.backend}.", 0)
    assert succession.turn(line, 9.9) is None
    said = succession.refusal(line).message
    assert "a: The model could not be loaded: No a." in said
    assert "b: The model could not be loaded: No b." in said
    assert "gone: It is not here." in said
    assert succession.turn(line, 10) == A
    assert succession.unasked(line, 10) is None, "an idle device waits for a request"


def test_one_alone_is_refused_for_as_long_as_its_breaker_is_open_and_then_loaded_unasked() -> None:
    succession = Succession()
    die(succession, A, 10, 20, 30)
    assert succession.turn((A,), 69) is None
    assert succession.unasked((A,), 69) is None
    assert succession.turn((A,), 70) == succession.unasked((A,), 70) == A
    assert succession.refusal((A,)).message == "The worker died 3 times within 60 s."


def test_a_recording_that_kills_everybody_costs_one_backend_its_place() -> None:
    succession = Succession()
    for time in range(0, 60, 10):
        for candidate in LINE:
            succession.died(candidate, time, recording="poison")
    assert succession.turn(LINE, 60) == B
    die(succession, B, 60, 61, recording="other")
    die(succession, B, 62)
    assert succession.turn(LINE, 62) == C, "what others die of counts"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["failed", "died", "stillborn", "loaded"]),
        st.sampled_from(LINE),
        st.floats(0, 100),
    ),
    max_size=40,
)


def played(events: list[tuple[str, Candidate, float]]) -> tuple[Succession, float]:
    succession, now = Succession(), 0.0
    for what, candidate, later in events:
        now += later
        match what:
            case "failed":
                succession.failed(candidate, "It is broken.", now)
            case "loaded":
                succession.loaded(candidate, now)
            case _:
                succession.died(candidate, now, loading=what == "stillborn")
    return succession, now


@given(EVENTS, st.sets(st.sampled_from(LINE)))
def test_the_turn_is_somebodys_soon_and_the_firsts_after_the_longest_rest(events, missing: set[Candidate]) -> None:
    succession, now = played(events)
    line: Line = tuple(Candidate(each.backend, missing="Gone.") if each in missing else each for each in LINE)
    usable = [each for each in line if not each.missing]
    named = succession.turn(line, now)
    assert named is None or named in usable
    if named is None:
        assert all(succession.state(each, now) and succession.reason(each) for each in line)
    if usable:
        assert succession.turn(line, now + 60) in usable
        assert succession.turn(line, now + LONGEST) == succession.unasked(line, now + LONGEST) == usable[0]


@given(EVENTS, st.integers(0, 2))
def test_the_warm_one_stays_and_only_one_before_it_is_better(events, place: int) -> None:
    succession, now = played(events)
    warm = LINE[place]
    assert succession.turn(LINE, now, warm) == warm
    better = succession.better(LINE, now, warm)
    assert better is None or (better in LINE[:place] and not succession.state(better, now))


@pytest.mark.parametrize("line", [LINE, (A,)])
def test_a_model_of_another_line_says_nothing_of_this_one(line: Line) -> None:
    succession = Succession()
    succession.failed(Candidate("a", "/models/other"), "It is broken.", 0)
    assert succession.turn(line, 0) == A
