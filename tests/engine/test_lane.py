from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.engine.lane import AGING, Lane


def test_the_least_remaining_audio_is_served_first() -> None:
    lane: Lane[str] = Lane()
    lane.put("podcast", 7200)
    lane.put("dictation", 2)
    assert lane.next() == "dictation"


def test_equal_jobs_keep_their_order() -> None:
    lane: Lane[int] = Lane()
    for key in range(5):
        lane.put(key, 30)
    served = []
    while (key := lane.next()) is not None:
        served.append(key)
        lane.discard(key)
    assert served == [0, 1, 2, 3, 4]


def test_an_empty_lane_names_nobody() -> None:
    lane: Lane[str] = Lane()
    lane.discard("never here")
    assert lane.next() is None


@given(remaining=st.floats(1, 10_000), step=st.floats(0.5, 30))
def test_a_long_job_is_served_at_the_latest_after_its_stated_bound(remaining: float, step: float) -> None:
    lane: Lane[str] = Lane()
    lane.put("long", remaining)
    granted = 0.0
    while True:
        lane.put("short", step)  # there is always another dictation
        if lane.next() == "long":
            break
        lane.granted("short", step)
        lane.discard("short")
        granted += step
        assert granted <= remaining / AGING + step


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "discard", "grant"]), st.integers(0, 6), st.floats(0.01, 5000)), max_size=60
    )
)
def test_whatever_happens_the_lane_names_a_waiting_job_or_nobody(moves: list[tuple[str, int, float]]) -> None:
    lane: Lane[int] = Lane()
    here: set[int] = set()
    for move, key, amount in moves:
        if move == "put":
            lane.put(key, amount)
            here.add(key)
        elif move == "discard":
            lane.discard(key)
            here.discard(key)
        elif (named := lane.next()) is not None:
            lane.granted(named, amount)
        assert len(lane) == len(here)
        assert (lane.next() in here) if here else lane.next() is None


def test_ahead_are_those_who_would_be_served_before() -> None:
    lane: Lane[str] = Lane()
    for key, remaining in (("long", 600), ("short", 2), ("middle", 60)):
        lane.put(key, remaining)
    assert sorted(lane.ahead("long")) == ["middle", "short"]
    assert lane.ahead("short") == []
    assert sorted(lane.ahead("not here yet")) == ["long", "middle", "short"]
