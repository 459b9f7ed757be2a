from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import StepResult, WindowResult
from app.engine.progress import Progress
from app.transcript import SAMPLE_RATE, Options, Segment, Window

KNOWN = Options(language="en")


def window(start_s: float, end_s: float, **more: bool) -> Window:
    start, end = int(start_s * SAMPLE_RATE), int(end_s * SAMPLE_RATE)
    return Window(start, end, speech=((start, end),), **more)


def segment(of: Window) -> Segment:
    start, end = of.start / SAMPLE_RATE, of.end / SAMPLE_RATE
    return Segment(start, end, f" {of.start}", of.start // 160, (1,), 0.0, -0.1, 1.0, 0.0)


def result(*outcomes: WindowResult, language: str = "en") -> StepResult:
    return StepResult(outcomes, language)


def test_the_language_of_the_first_window_with_text_holds_for_the_whole_job() -> None:
    progress = Progress(Options())
    silent, speech, more = window(0, 5), window(5, 9), window(9, 12)
    progress.add([silent, speech, more], 12 * SAMPLE_RATE, None, decoded=True)
    assert progress.take(8) == (silent,), "a step that detects the language has one window"
    progress.complete(result(WindowResult(silent), language="ja"))
    assert progress.options.language is None
    assert progress.take(8) == (speech,)
    progress.complete(result(WindowResult(speech, (segment(speech),)), language="de"))
    assert progress.options.language == "de"
    assert progress.take(8) == (more,)


def test_segments_wait_for_the_remainder_of_an_earlier_window() -> None:
    progress = Progress(KNOWN)
    first, second = window(0, 10), window(10, 20)
    progress.add([first, second], 20 * SAMPLE_RATE, None, decoded=True)
    assert progress.take(8) == (first, second)
    rest = window(6, 10)
    given_out = progress.complete(
        result(WindowResult(first, (segment(first),), again=(rest,)), WindowResult(second, (segment(second),)))
    )
    assert [s.start for s in given_out] == [0.0], "the second window's text comes after the rest of the first"
    assert not progress.finished
    assert progress.done_s == 6
    assert progress.take(8) == (rest,)
    given_out = progress.complete(result(WindowResult(rest, (segment(rest),))))
    assert [s.start for s in given_out] == [6.0, 10.0]
    assert progress.finished


def test_a_window_that_failed_the_guards_goes_alone() -> None:
    progress = Progress(KNOWN)
    first, second = window(0, 10), window(10, 20)
    progress.add([first, second], 20 * SAMPLE_RATE, None, decoded=True)
    progress.take(8)
    retry = replace(first, retry=True)
    progress.complete(result(WindowResult(first, again=(retry,)), WindowResult(second, (segment(second),))))
    assert progress.take(8) == (retry,)


def test_windows_of_a_lost_step_wait_again() -> None:
    progress = Progress(KNOWN)
    windows = [window(0, 10), window(10, 20)]
    progress.add(windows, 20 * SAMPLE_RATE, None, decoded=True)
    taken = progress.take(2)
    assert not progress.waiting
    progress.put_back()
    assert progress.take(2) == taken


def test_a_recording_without_speech_is_an_empty_transcript_of_its_full_duration() -> None:
    progress = Progress(Options())
    progress.add([], 3 * SAMPLE_RATE, None, decoded=True)
    assert progress.finished
    transcript = progress.transcript()
    assert (transcript.text, transcript.duration, transcript.segments) == ("", 3.0, ())


def test_what_is_declared_but_not_decoded_counts_as_remaining() -> None:
    progress = Progress(KNOWN)
    progress.add([window(0, 30)], 60 * SAMPLE_RATE, 3600.0, decoded=False)
    assert progress.remaining_s == 3600 - 60 + 30
    assert not progress.finished


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    choices=st.lists(st.integers(0, 3), min_size=200, max_size=200),
)
def test_segments_come_out_in_order_of_time_and_none_is_lost(lengths: list[int], choices: list[int]) -> None:
    progress = Progress(KNOWN)
    decisions = iter(choices)
    position, windows = 0, []
    for length in lengths:
        windows.append(window(position, position + length))
        position += length
    progress.add(windows, position * SAMPLE_RATE, None, decoded=True)
    expected, got = [], []
    while progress.waiting:
        outcomes = []
        for taken in progress.take(1 + next(decisions)):
            again: tuple[Window, ...] = ()
            decision = next(decisions, 0)
            if decision == 1 and not taken.retry:
                outcomes.append(WindowResult(taken, again=(replace(taken, retry=True),)))
                continue
            if decision == 2 and taken.end - taken.start > 2 * SAMPLE_RATE:
                again = (replace(taken, start=taken.start + SAMPLE_RATE, retry=False),)
            outcomes.append(WindowResult(taken, (segment(taken),), again))
            expected.append(taken.start)
        got.extend(progress.complete(result(*outcomes)))
    assert progress.finished
    assert [int(s.start * SAMPLE_RATE) for s in got] == sorted(expected)
    assert list(progress.transcript().segments) == got
