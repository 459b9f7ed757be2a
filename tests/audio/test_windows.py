from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.windows import BEGINS, FRAME, MIN_SILENCE, WindowCutter
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Vad, Window

SECOND = SAMPLE_RATE / FRAME


def cut(probabilities, energies=None, sizes=(), short=0, vad=None):
    """All windows of the figures, fed in pieces of ``sizes`` and then the rest; ``short`` samples lack at the end."""
    energies = [1.0] * len(probabilities) if energies is None else energies
    cutter, windows, begin = WindowCutter(vad), [], 0
    for size in (*sizes, len(probabilities)):
        windows += cutter.feed(probabilities[begin : begin + size], energies[begin : begin + size])
        begin += size
    return windows + cutter.finish(max(0, len(probabilities) * FRAME - short))


def talk(*seconds):
    """Probabilities of silence, speech, silence, speech, … of these lengths."""
    values = itertools.cycle((0.01, 0.99))
    return [value for length, value in zip(seconds, values, strict=False) for _ in range(round(length * SECOND))]


def times(windows):
    return [(round(w.start / SAMPLE_RATE, 1), round(w.end / SAMPLE_RATE, 1)) for w in windows]


runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.15, 0.25, 0.34, 0.35, 0.6, 0.99]), st.integers(1, 9) | st.integers(10, 1500)),
    max_size=40,
)


#: Our own thresholds, and requests' of any kind, the absurd ones too.
vads = st.none() | st.builds(
    Vad,
    st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.1, 0.3, 2.0, 29.0, 1e9]),
    st.sampled_from([0.0, 0.1, 0.2, 0.7, 3.0, 7.9, 31.0, 1e9]),
)


def frames_of(drawn):
    return [probability for probability, length in drawn for _ in range(length)]


@given(runs, vads, st.integers(0, FRAME - 1), st.randoms(use_true_random=False))
def test_windows_are_in_order_disjoint_short_and_inside_the_recording(drawn, vad, short, random) -> None:
    probabilities = frames_of(drawn)
    windows = cut(probabilities, [random.random() for _ in probabilities], short=short, vad=vad)
    end = 0
    for window in windows:
        assert end <= window.start < window.end <= len(probabilities) * FRAME - short
        assert window.sound <= MAX_WINDOW
        assert window.encoded == MAX_WINDOW
        assert not window.retry
        end = window.start
        for span_start, span_end in window.speech:
            assert end <= span_start < span_end <= window.end
            end = span_end
        assert window.speech
        end = window.end


@given(runs, vads)
def test_every_stretch_of_speech_is_in_some_windows_speech(drawn, vad) -> None:
    probabilities = frames_of(drawn)
    begins = vad.threshold if vad else BEGINS
    covered = [False] * len(probabilities)
    for window in cut(probabilities, vad=vad):
        for start, end in window.speech:
            covered[start // FRAME : end // FRAME] = [True] * (end // FRAME - start // FRAME)
    sure, run = 0, 0
    for i, probability in enumerate(probabilities):
        run = run + 1 if probability >= begins else 0
        if run >= 3:
            sure += 1
            assert all(covered[i - 2 : i + 1])
        elif probability >= max(begins, 0.75):
            assert covered[i]


@given(runs, vads, st.lists(st.integers(0, 700), max_size=30), st.randoms(use_true_random=False))
def test_how_the_figures_are_divided_makes_no_difference(drawn, vad, sizes, random) -> None:
    probabilities = frames_of(drawn)
    energies = [random.random() for _ in probabilities]
    assert cut(probabilities, energies, sizes, vad=vad) == cut(probabilities, energies, vad=vad)


@given(runs, runs, vads)
def test_what_was_given_out_is_never_changed_by_later_sound(drawn, more, vad) -> None:
    begin, end = frames_of(drawn), frames_of(more)
    cutter = WindowCutter(vad)
    early = cutter.feed(begin, [1.0] * len(begin))
    assert cut(begin + end, vad=vad)[: len(early)] == early


def test_silence_has_no_windows() -> None:
    assert cut([]) == cut([0.0] * 5000) == cut([0.34] * 5000) == []


def test_a_short_clip_is_one_window_padded_within_its_ends() -> None:
    assert times(cut(talk(0.1, 2.0, 1.0))) == [(0.0, 2.3)]
    assert times(cut(talk(1.0, 2.0), short=100)) == [(0.7, 3.0)]


def test_a_gap_under_160_ms_is_part_of_the_speech() -> None:
    short, long = [0.0] * (MIN_SILENCE - 1), [0.0] * MIN_SILENCE
    assert len(cut([0.9] * 10 + short + [0.9] * 10)[0].speech) == 1
    assert len(cut([0.9] * 10 + long + [0.9] * 10)[0].speech) == 2


def test_a_click_is_dropped_and_a_short_word_is_kept() -> None:
    assert cut([0.0] * 20 + [0.6] * 2 + [0.0] * 20) == []
    assert len(cut([0.0] * 20 + [0.8] * 1 + [0.0] * 20)) == 1
    assert len(cut([0.0] * 20 + [0.6] * 4 + [0.0] * 20)) == 1


def test_sentences_fill_a_window_and_the_cut_is_at_the_longest_late_pause() -> None:
    # Pauses of 0.4 s, but for one of 1 s from 24.2 s on.
    windows = cut(talk(0.4, 3.8, 0.4, 3.8, 0.4, 3.8, 0.4, 3.8, 0.4, 3.3, 0.4, 3.3, 1.0, 3.0, 0.4, 3.0, 0.4, 3.0))
    assert times(windows) == [(0.1, 24.4), (24.9, 34.9)]


def test_where_no_pause_is_late_the_cut_is_before_the_span_that_does_not_fit() -> None:
    assert times(cut(talk(0, 5, 2, 26))) == [(0.0, 5.2), (6.7, 33.0)]


def test_the_middle_of_a_long_pause_takes_no_room() -> None:
    (window,) = cut(talk(0, 9, 60, 9, 600, 1, 1))
    assert times([window]) == [(0.0, 679.2)]
    assert [round((end - begin) / SAMPLE_RATE, 1) for begin, end in window.takes] == [9.5, 10.0, 1.7]
    (short,) = cut(talk(0, 9, 1.9, 9, 1))
    assert short.takes == ((short.start, short.end),)


def test_the_first_long_pause_in_the_last_third_ends_a_window() -> None:
    assert times(cut(talk(0, 10, 60, 9.8, 2.2, 7, 1))) == [(0.0, 80.0), (81.7, 89.2)]
    assert times(cut(talk(0, 10, 60, 8, 2.2, 7, 1))) == [(0.0, 87.5)]


def test_speech_of_any_sparseness_fills_windows() -> None:
    windows = cut(talk(*(9.0, 0.7) * 100))
    # Each word takes 1.7 s: the first long pause after 20 s is behind the twelfth.
    assert [len(window.speech) for window in windows] == [12] * 8 + [4]


def test_a_window_is_given_out_while_the_pause_behind_it_lasts() -> None:
    cutter = WindowCutter()
    figures = talk(1, 21, 2.1)
    assert [type(w) for w in cutter.feed(figures, [1.0] * len(figures))] == [Window]


def test_the_first_window_of_endless_speech_comes_before_31_seconds_are_heard() -> None:
    cutter = WindowCutter()
    figures = talk(0, 31)
    assert len(cutter.feed(figures, [1.0] * len(figures))) == 1


@pytest.mark.parametrize("frames", range(905, 960))
def test_no_length_of_speech_makes_a_window_too_long(frames) -> None:
    falling = [1 / (i + 1) for i in range(2_000)]
    for figures in (
        [0.9] * frames,
        [0.0] * 30 + [0.9] * frames + [0.0] * 300 + [0.9] * 50,
        talk(0, 3, 0.4) + [0.9] * frames,
    ):
        windows = cut(figures, falling[: len(figures)])
        assert max(window.end - window.start for window in windows) <= MAX_WINDOW
        assert sum(end - start for w in windows for start, end in w.speech) == FRAME * sum(p > 0.5 for p in figures)


def test_a_faint_word_behind_a_louder_speaker_is_not_lost() -> None:
    # What Silero says of "ask" in a recording of 1961 that follows one of today.
    ask = [0.03, 0.17, 0.45, 0.42, 0.49, 0.46, 0.38, 0.26, 0.31, 0.22, 0.2, 0.26, 0.37, 0.42, 0.42, 0.28, 0.24, 0.19]
    (window,) = cut([0.03] * 30 + ask + [0.03] * 30)
    assert window.speech == ((32 * FRAME, 47 * FRAME),)


def test_endless_speech_is_cut_at_its_quietest_late_point() -> None:
    figures = talk(1, 50)
    energies = [1.0] * len(figures)
    for second in (5, 24, 28):
        energies[round(second * SECOND) - 1 : round(second * SECOND) + 2] = [0.01] * 3
    energies[round(24 * SECOND)] = 0.001
    windows = cut(figures, energies)
    assert windows[0].end == windows[1].start == windows[0].speech[-1][1] == windows[1].speech[0][0]
    assert times(windows)[0] == (0.7, 24.0)


def test_padding_is_shared_where_windows_are_near() -> None:
    windows = cut(talk(0, 14, 0.3, 14, 0.3, 14))
    assert windows[0].end == windows[1].start
    assert windows[0].speech[-1][1] < windows[0].end < windows[1].speech[0][0]


def test_a_requests_threshold_decides_what_is_speech() -> None:
    faint = [0.0] * 20 + [0.45] * 20 + [0.0] * 20
    assert cut(faint, vad=Vad(threshold=0.5)) == []
    (window,) = cut(faint, vad=Vad(threshold=0.4))
    assert window.speech == ((20 * FRAME, 40 * FRAME),)
    # Speech ends 0.15 under the threshold.
    assert len(cut([0.6] * 10 + [0.3] * 20 + [0.6] * 10, vad=Vad(threshold=0.5))[0].speech) == 2
    assert len(cut([0.6] * 10 + [0.4] * 20 + [0.6] * 10, vad=Vad(threshold=0.5))[0].speech) == 1


def test_a_requests_padding_is_kept_in_front_of_speech_only() -> None:
    assert times(cut(talk(2, 2, 1), vad=Vad(padding_s=1.0))) == [(1.0, 4.2)]
    assert times(cut(talk(2, 2, 1), vad=Vad(padding_s=0.0))) == [(2.0, 4.2)]
    assert times(cut(talk(9, 2, 1), vad=Vad(padding_s=60.0))) == [(3.0, 11.2)]


def test_a_requests_silence_decides_where_speech_has_ended() -> None:
    spoken = talk(0, 2, 0.6, 2)
    assert len(cut(spoken, vad=Vad(silence_s=0.5))[0].speech) == 2
    assert len(cut(spoken, vad=Vad(silence_s=0.7))[0].speech) == 1


def test_silence_that_turns_out_to_be_none_makes_no_window_too_long() -> None:
    windows = cut(talk(0, 25, 7, 25), [1.0] * round(57 * SECOND), vad=Vad(silence_s=7.5))
    assert max(window.end - window.start for window in windows) <= MAX_WINDOW
    assert sum(end - start for w in windows for start, end in w.speech) == round(57 * SECOND) * FRAME
