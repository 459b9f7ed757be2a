"""Tokens to pieces, guards, remainders and segments: pure functions, so plain numbers in and out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends import rules
from app.backends.rules import Attempt, Piece, TimedPiece, TimedWord
from app.errors import InferenceFailed
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Window

#: A vocabulary for reading: text tokens are small, timestamps begin here.
BEGIN = 1000
SECOND = SAMPLE_RATE


def at(seconds: float) -> int:
    """The timestamp token for ``seconds``."""
    return BEGIN + round(seconds / 0.02)


def attempt(text="a text", logprob=-0.2, no_speech=0.0, temperature=0.0) -> Attempt:
    return Attempt((1, 2), text, logprob, no_speech, temperature)


def window(length: float, *speech: tuple[float, float], start: float = 0.0, encoded: int = MAX_WINDOW) -> Window:
    def sample(seconds: float) -> int:
        return round((start + seconds) * SECOND)

    return Window(sample(0), sample(length), tuple((sample(a), sample(b)) for a, b in speech), encoded)


def split(tokens, length=10.0):
    pieces, heard = rules.split_pieces(tokens, BEGIN, round(length * SECOND))
    return [(p.start / SECOND, p.end / SECOND, p.tokens, p.closed) for p in pieces], heard / SECOND


def test_one_pair_of_timestamps_is_one_piece_heard_up_to_its_end():
    tokens = (at(0), 1, 2, at(3))
    assert split(tokens) == ([(0.0, 3.0, tokens, True)], 3.0)


def test_each_two_timestamps_in_a_row_cut():
    tokens = (at(0), 1, at(3), at(4), 2, at(6))
    assert split(tokens) == ([(0.0, 3.0, tokens[:3], True), (4.0, 6.0, tokens[3:], True)], 6.0)


def test_text_behind_the_last_pair_is_unfinished_and_not_heard():
    tokens = (at(0), 1, at(3), at(3), 2)
    assert split(tokens) == ([(0.0, 3.0, tokens[:3], True), (3.0, 10.0, tokens[3:], False)], 3.0)


def test_a_closing_pair_without_text_behind_it_tells_how_far_was_heard():
    assert split((at(0), 1, at(3), at(4)))[1] == 4.0


def test_an_opening_timestamp_alone_does_not_end_its_text():
    tokens = (at(0.5), 1, 2)
    assert split(tokens) == ([(0.5, 10.0, tokens, False)], 10.0)


def test_text_without_any_timestamp_fills_the_window():
    assert split((1, 2)) == ([(0.0, 10.0, (1, 2), False)], 10.0)


def test_no_text_is_no_piece_and_nothing_is_left_to_hear():
    assert split(()) == ([], 10.0)
    assert split((at(0),)) == ([], 10.0)


def test_a_timestamp_past_the_window_is_clipped_to_it():
    assert split((at(0), 1, at(12)))[0][0][1] == 10.0


def test_a_piece_that_begins_where_the_window_ends_was_made_up_in_the_padding():
    pieces, heard = split((at(0), 1, at(9), at(11), 2, at(13)))
    assert [piece[:2] for piece in pieces] == [(0.0, 9.0)]
    assert heard == 10.0


@given(
    st.lists(st.one_of(st.integers(0, 50), st.integers(BEGIN, BEGIN + 1500)), max_size=60), st.integers(160, MAX_WINDOW)
)
def test_pieces_never_run_backwards_nor_leave_the_window_whatever_the_tokens(tokens, length):
    pieces, heard = rules.split_pieces(tokens, BEGIN, length)
    times = [time for piece in pieces for time in (piece.start, piece.end)]
    assert times == sorted(times)
    assert all(0 <= time <= length for time in [*times, heard])
    assert all(piece.closed for piece in pieces[:-1])


def test_speech_behind_the_last_timestamp_goes_back_from_shortly_before_it():
    rest = rules.remainder(window(20, (0, 5), (12, 18)), 5 * SECOND)
    assert rest is not None
    assert (rest.start / SECOND, rest.end / SECOND) == (11.9, 20.0)
    assert rest.speech == ((12 * SECOND, 18 * SECOND),)


def test_how_a_remainder_is_encoded_is_left_to_who_gives_it_its_step():
    rest = rules.remainder(window(5, (0, 2), (3, 5), encoded=8 * SECOND), 2 * SECOND)
    assert rest is not None
    assert rest.encoded == MAX_WINDOW


def test_speech_that_ends_shortly_behind_the_last_timestamp_has_been_heard():
    assert rules.remainder(window(6, (0, 5.6)), 5 * SECOND) is None


def test_the_last_sound_of_what_was_heard_does_not_drag_the_pause_behind_it_along():
    rest = rules.remainder(window(20, (0, 5.1), (15, 18)), 5 * SECOND)
    assert rest is not None
    assert rest.start / SECOND == 14.9


def test_a_lone_word_is_worth_another_pass():
    assert rules.remainder(window(20, (0, 5), (15, 15.3)), 5 * SECOND) is not None


def test_a_click_is_not():
    assert rules.remainder(window(20, (0, 5), (15, 15.1)), 5 * SECOND) is None


def test_a_window_that_was_hardly_heard_is_not_cut_for_ever():
    assert rules.remainder(window(20, (0, 20)), SECOND // 10) is None


@given(
    st.lists(st.tuples(st.integers(0, MAX_WINDOW), st.integers(1, SECOND * 5)), max_size=8),
    st.integers(0, MAX_WINDOW),
)
def test_a_remainder_is_a_smaller_window_inside_its_own(spans, heard):
    speech = tuple(sorted((start, min(start + length, MAX_WINDOW)) for start, length in spans if start < MAX_WINDOW))
    whole = Window(0, MAX_WINDOW, speech)
    rest = rules.remainder(whole, heard)
    if rest is not None:
        assert heard <= rest.start < rest.end == whole.end
        assert all(rest.start <= start < end <= rest.end for start, end in rest.speech)


def test_an_unfinished_piece_is_left_to_the_remainder_or_else_kept():
    tokens = (at(0), 1, at(3), at(3), 2)
    kept, rest = rules.read(window(10, (0, 3), (4, 9)), tokens, BEGIN)
    assert [piece.closed for piece in kept] == [True]
    assert rest is not None
    kept, rest = rules.read(window(10, (0, 3)), tokens, BEGIN)
    assert [piece.closed for piece in kept] == [True, False]
    assert rest is None


def test_a_loop_an_unlikely_text_and_figures_that_are_no_numbers_need_a_fallback():
    assert not rules.needs_fallback(attempt())
    assert rules.needs_fallback(attempt(text="and so on " * 30))
    assert rules.needs_fallback(attempt(logprob=-1.2))
    assert rules.needs_fallback(attempt(logprob=math.nan))
    assert rules.needs_fallback(attempt(no_speech=math.nan))
    assert rules.needs_fallback(attempt(logprob=-math.inf))


def test_silence_needs_no_fallback():
    silent = attempt(logprob=-1.2, no_speech=0.9)
    assert rules.is_silence(silent)
    assert not rules.needs_fallback(silent)
    assert not rules.is_silence(attempt(logprob=-0.2, no_speech=0.9))


def test_the_ladder_ends_at_the_first_temperature_that_is_good_enough():
    tried = []

    def decode(temperature):
        tried.append(temperature)
        return attempt(logprob=-2 + temperature * 3, temperature=temperature)

    assert rules.climb(decode, (0.0, 0.2, 0.4, 0.6)).temperature == 0.4
    assert tried == [0.0, 0.2, 0.4]


def test_where_all_attempts_fail_the_likeliest_that_does_not_loop_is_used():
    loop = attempt(text="and so on " * 30, logprob=-0.1)
    poor, poorer = attempt(logprob=-1.5), attempt(logprob=-1.8)
    assert rules.best_of([loop, poorer, poor]) is poor
    assert rules.best_of([loop, attempt(logprob=math.nan)]) is loop


def test_figures_that_are_no_numbers_never_leave():
    with pytest.raises(InferenceFailed):
        rules.climb(lambda t: attempt(logprob=math.nan, temperature=t), (0.0, 0.2))


def test_a_segments_times_are_the_recordings_in_milliseconds_inside_the_window():
    here = Window(SECOND + 7, 4 * SECOND + 7, ())
    segment = rules.make_segment(here, attempt(), Piece(0, 3 * SECOND, (1,)), " hello")
    assert (segment.start, segment.end) == (1.001, 4.0)
    assert segment.seek == 100


def test_words_are_stripped_put_in_order_and_kept_inside_the_window():
    here = Window(SECOND, 3 * SECOND, ())
    timed = TimedPiece(
        0.2,
        1.0,
        (
            TimedWord(" a", 0.2, 0.5, 1.0),
            TimedWord(" b", 0.4, 0.3, 1.0),
            TimedWord(" ", 1, 1, 1.0),
            TimedWord(" c", 1.0, 9.0, 1.0),
        ),
    )
    segment = rules.make_segment(here, attempt(), Piece(0, SECOND, (1,)), " a b c", timed)
    assert [(w.word, w.start, w.end) for w in segment.words] == [("a", 1.2, 1.5), ("b", 1.5, 1.5), ("c", 2.0, 3.0)]
    assert (segment.start, segment.end) == (1.2, 3.0)


@pytest.mark.parametrize(
    ("figures", "seconds", "again"),
    [
        ({}, 3, 0),
        ({"avg_logprob": -0.51}, 4.9, rules.ROOMY),
        ({"avg_logprob": -0.51}, 5, 0),
        ({"avg_logprob": -1.01}, 3, MAX_WINDOW),
        ({"avg_logprob": -1.01}, 14, MAX_WINDOW),
        ({"avg_logprob": -1.01, "no_speech_prob": 0.9}, 14, MAX_WINDOW),
        ({"avg_logprob": float("nan")}, 14, MAX_WINDOW),
        ({"text": "and so " * 40}, 14, MAX_WINDOW),
        ({"tokens": tuple(range(224))}, 14, MAX_WINDOW),
    ],
)
def test_a_fitted_window_is_encoded_longer_where_its_text_cannot_be_trusted(figures, seconds, again):
    attempt = rules.Attempt(
        **{"tokens": (1, 2), "text": "Yes.", "avg_logprob": -0.2, "no_speech_prob": 0.0} | figures, temperature=0.0
    )
    fitted = window(seconds, (0, seconds)).fitted(SECOND)
    assert rules.encode_again(attempt, fitted) == again
    if again:
        # Where the roomier one is still unsure, it is used; what fails a guard is encoded whole all the same.
        roomier = replace(fitted, encoded=rules.ROOMY)
        assert rules.encode_again(attempt, roomier) == (MAX_WINDOW if again == MAX_WINDOW else 0)
