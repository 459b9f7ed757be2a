"""Where in the recording a window's sound lies: pure functions, so plain numbers in and out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends import takes
from app.errors import InferenceFailed
from app.transcript import KEPT_PAUSE, LONG_PAUSE, SAMPLE_RATE, Window

S = SAMPLE_RATE
#: 3 s of speech, then 10 s later 2 s, then at once (a pause of 2 s is none) 1 s, then 5 s later 4 s.
SPEECH = ((1 * S, 4 * S), (14 * S, 16 * S), (18 * S, 19 * S), (24 * S, 28 * S))
HERE = Window(S // 2, 29 * S, SPEECH)

windows = st.lists(st.tuples(st.integers(0, 5 * S), st.integers(1, 4 * S)), min_size=1, max_size=8).map(
    lambda drawn: _window(drawn)
)


def _window(drawn) -> Window:
    speech, at = [], 0
    for pause, length in drawn:
        speech.append((at + pause, at + pause + length))
        at += pause + length
    return Window(max(0, speech[0][0] - 100), at + 100, tuple(speech))


def seconds(*positions: float) -> tuple[int, ...]:
    return tuple(round(position * S) for position in positions)


def test_takes_leave_out_the_middle_of_long_pauses():
    assert HERE.takes == (seconds(0.5, 4.5), seconds(13.5, 19.5), seconds(23.5, 29))
    assert HERE.sound == 15.5 * S
    assert Window(0, 30 * S, ()).takes == ((0, 30 * S),)


@given(windows)
def test_takes_hold_all_speech_and_no_long_pause(window):
    assert window.takes[0][0] == window.start
    assert window.takes[-1][1] == window.end
    assert all(any(begin <= start < end <= until for begin, until in window.takes) for start, end in window.speech)
    gaps = [later[0] - earlier[1] for earlier, later in zip(window.takes, window.takes[1:], strict=False)]
    assert all(gap > LONG_PAUSE - KEPT_PAUSE for gap in gaps)


def test_the_sound_is_the_takes_joined():
    pcm = np.arange(30 * S, dtype=np.int64).astype(np.int16)
    sound = takes.join(pcm, HERE)
    assert sound.dtype == np.float32
    expected = np.concatenate([pcm[begin:end] for begin, end in HERE.takes])
    assert (sound == expected / np.float32(32768)).all()


def test_a_recording_that_ends_within_the_window_is_refused():
    with pytest.raises(InferenceFailed):
        takes.join(np.zeros(29 * S - 1, np.int16), HERE)


@given(windows, st.data())
def test_a_position_in_the_sound_is_the_recordings(window, data):
    sound = np.concatenate([np.arange(begin, end) for begin, end in window.takes])
    offset = data.draw(st.integers(1, window.sound))
    assert takes.position(window, offset) == sound[offset - 1] + 1
    assert takes.position(window, 0) == window.start


@given(windows, st.data())
def test_what_lies_in_one_take_is_only_moved(window, data):
    sound = np.concatenate([np.arange(begin, end) for begin, end in window.takes])
    start = data.draw(st.integers(0, window.sound - 2))
    end = data.draw(st.integers(start + 1, window.sound - 1))
    if sound[end] - sound[start] == end - start:
        assert takes.place(window, start, end) == (sound[start], sound[end])
        assert takes.place_word(window, start, end) == (sound[start], sound[end])


@given(windows, st.integers(-S, 40 * S), st.integers(-S, 40 * S))
def test_any_stretch_lies_inside_the_window(window, start, end):
    for placed in (takes.place(window, start, end), takes.place_word(window, start, end)):
        assert window.start <= placed[0] <= placed[1] <= window.end


def test_a_piece_that_reaches_a_little_over_a_join_does_not_last_through_the_pause():
    # The sound: 0 to 4 s is the first take, 4 to 10 s the second, of which speech begins at 4.5 s.
    assert takes.place(HERE, *seconds(0.5, 4.7)) == seconds(1, 4.5)
    assert takes.place(HERE, *seconds(3.2, 9.5)) == seconds(13.5, 19)
    assert takes.place(HERE, *seconds(4.5, 10.8)) == seconds(14, 19.5)


def test_a_piece_that_was_spoken_on_both_sides_of_a_join_does():
    assert takes.place(HERE, *seconds(2, 6)) == seconds(2.5, 15.5)


def test_a_word_is_never_on_both_sides():
    assert takes.place_word(HERE, *seconds(3.8, 4.9)) == seconds(13.5, 14.4)
    assert takes.place_word(HERE, *seconds(3, 4.9)) == seconds(3.5, 4.5)
