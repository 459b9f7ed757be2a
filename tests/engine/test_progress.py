from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends.base import StepResult, WindowResult
from app.engine.progress import Progress
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Options, Segment, Window

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


def test_a_window_that_failed_the_guards_does_not_join_one_before_it() -> None:
    progress = Progress(KNOWN)
    first, second = window(0, 10), window(10, 20)
    progress.add([first, second], 20 * SAMPLE_RATE, None, decoded=True)
    progress.take(8)
    rest, retry = window(6, 10), replace(second, retry=True)
    progress.complete(result(WindowResult(first, again=(rest,)), WindowResult(second, again=(retry,))))
    assert progress.take(8) == (rest,)


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


def test_only_windows_that_are_encoded_at_one_length_share_a_step() -> None:
    progress = Progress(KNOWN)
    short = [replace(window(start, start + 10), encoded=13 * SAMPLE_RATE) for start in (20, 30)]
    long = [window(0, 10), window(10, 20)]
    progress.add([*long, *short], 40 * SAMPLE_RATE, None, decoded=True)
    assert progress.take(8) == tuple(long)
    assert progress.take(8) == tuple(short)


def test_a_step_looks_for_windows_of_its_length_behind_others_which_then_come_first() -> None:
    progress = Progress(KNOWN)
    windows = [window(start, start + 10) for start in range(0, 60, 10)]
    windows[1] = replace(windows[1], encoded=13 * SAMPLE_RATE)
    progress.add(windows, 50 * SAMPLE_RATE, None, decoded=False)
    assert progress.take(3) == (windows[0], windows[2], windows[3])
    progress.complete(result(*(WindowResult(each, (segment(each),)) for each in (windows[0], windows[2], windows[3]))))
    assert [each.start for each in progress.segments] == [0], "what lies behind the window that waits is held"
    assert progress.encoded_s == 13
    assert progress.take(3) == (windows[1],)
    assert progress.complete(result(WindowResult(windows[1], (segment(windows[1]),))))[0].start == 10
    assert progress.take(3) == (windows[4],), "the sound of the last one is not there yet"


def test_with_a_margin_windows_and_remainders_are_fitted_and_retries_stay_whole() -> None:
    progress = Progress(KNOWN)
    progress.margin = 3 * SAMPLE_RATE
    progress.add([window(0, 10), window(10, 38)], 38 * SAMPLE_RATE, None, decoded=True)
    first = progress.take(1)[0]
    assert first.encoded == 13 * SAMPLE_RATE
    retry = replace(window(0, 10), retry=True)
    progress.complete(result(WindowResult(first, again=(retry,))))
    assert progress.take(1) == (retry,)
    progress.complete(result(WindowResult(retry, (segment(retry),))))
    last = progress.take(1)[0]
    assert last.encoded == MAX_WINDOW
    rest = replace(last, start=20 * SAMPLE_RATE)
    progress.complete(result(WindowResult(last, (segment(last),), (rest,))))
    assert progress.take(1)[0].encoded == 21 * SAMPLE_RATE


def test_windows_that_come_again_when_the_file_is_decoded_once_more_are_known() -> None:
    progress = Progress(KNOWN)
    windows = [window(0, 10), window(10, 20), window(20, 30)]
    progress.add(windows, 30 * SAMPLE_RATE, 60.0, decoded=False)
    done, running = progress.take(1), progress.take(1)
    progress.complete(result(WindowResult(done[0], (segment(done[0]),))))
    progress.add(windows[:1], 10 * SAMPLE_RATE, 60.0, decoded=False)
    assert progress.duration == 30, "what was decoded before the start-over is still there"
    progress.add([*windows[1:], window(30, 40)], 40 * SAMPLE_RATE, 60.0, decoded=True)
    assert progress.take(8) == (windows[2], window(30, 40))
    assert running == (windows[1],)


def test_a_lost_step_waits_in_front_of_what_was_decoded_meanwhile() -> None:
    progress = Progress(KNOWN)
    progress.add([window(0, 10)], 10 * SAMPLE_RATE, None, decoded=False)
    progress.take(1)
    progress.add([window(10, 20)], 20 * SAMPLE_RATE, None, decoded=True)
    progress.put_back()
    assert progress.take(8) == (window(0, 10), window(10, 20))
    assert not progress.finished


def test_the_tokens_of_all_steps_are_counted() -> None:
    progress = Progress(KNOWN)
    windows = [window(0, 10), window(10, 20)]
    progress.add(windows, 20 * SAMPLE_RATE, None, decoded=True)
    for each in windows:
        progress.take(1)
        progress.complete(StepResult((WindowResult(each, (segment(each),)),), "en", 4, 10))
    transcript = progress.transcript()
    assert (transcript.prompt_tokens, transcript.decoded_tokens) == (8, 20)


def test_a_translation_is_english_whatever_was_spoken() -> None:
    progress = Progress(Options(task="translate", logprobs=True))
    progress.add([window(0, 10)], 10 * SAMPLE_RATE, None, decoded=True)
    progress.complete(result(WindowResult(*progress.take(1), (segment(window(0, 10)),)), language="de"))
    assert progress.options.language == "de"
    transcript = progress.transcript()
    assert (transcript.language, transcript.task, transcript.with_logprobs) == ("en", "translate", True)


def test_nobody_speaks_english() -> None:
    progress = Progress(Options())
    progress.add([window(0, 10)], 10 * SAMPLE_RATE, None, decoded=True)
    progress.complete(result(WindowResult(*progress.take(1)), language="ja"))
    assert progress.transcript().language == "en"


# --- how far it is ---


@pytest.mark.parametrize(
    ("declared_s", "decoded", "expected_s"),
    [(None, False, 60), (3600.0, False, 3600), (3600.0, True, 60), (20.0, False, 60), (None, True, 60)],
)
def test_a_recording_is_as_long_as_its_container_says_until_more_or_all_of_it_is_decoded(
    declared_s: float | None, decoded: bool, expected_s: float
) -> None:
    progress = Progress(KNOWN)
    progress.add([], 60 * SAMPLE_RATE, declared_s, decoded=decoded)
    assert progress.expected_s == expected_s


def test_the_share_grows_from_nothing_to_all() -> None:
    progress = Progress(KNOWN)
    shares = [progress.share]
    progress.add([window(0, 30)], 30 * SAMPLE_RATE, 120.0, decoded=False)
    shares.append(progress.share)
    progress.complete(result(WindowResult(*progress.take(1), (segment(window(0, 30)),))))
    shares.append(progress.share)
    progress.add([window(30, 60), window(60, 90)], 120 * SAMPLE_RATE, 120.0, decoded=True)
    progress.complete(result(WindowResult(*progress.take(1))))
    shares.append(progress.share)
    progress.complete(result(WindowResult(*progress.take(1))))
    assert [*shares, progress.share] == [0, 0, 0.25, 0.5, 1]


def test_there_is_no_share_of_a_recording_whose_length_nobody_knows() -> None:
    progress = Progress(KNOWN)
    progress.add([window(0, 20)], 60 * SAMPLE_RATE, None, decoded=False)
    progress.complete(result(WindowResult(*progress.take(1))))
    assert (progress.done_s, progress.share) == (20, 0)
    progress.add([], 60 * SAMPLE_RATE, None, decoded=True)
    assert progress.share == 1


def test_what_may_still_become_a_window_is_not_done() -> None:
    progress = Progress(KNOWN)
    progress.add([window(0, 20)], 44 * SAMPLE_RATE, 120.0, decoded=False)
    progress.complete(result(WindowResult(*progress.take(1))))
    before = progress.done_s
    progress.add([window(20, 48)], 72 * SAMPLE_RATE, 120.0, decoded=False)
    assert progress.done_s >= before


def test_a_job_that_begins_again_does_not_look_finished() -> None:
    progress = Progress(KNOWN)
    progress.restore([result(WindowResult(window(0, 20), (segment(window(0, 20)),)))])
    assert progress.share < 1


# --- a job that goes on, by a model that is made up ---


@dataclass(frozen=True)
class Model:
    """A backend whose outcome of a window follows from the window alone, as a real one's does. It insists on what it is
    promised.
    """

    choices: tuple[str, ...]

    def step(self, windows: Sequence[Window], options: Options) -> StepResult:
        assert len(windows) == 1 or (options.language and not any(each.retry for each in windows))
        assert len({each.encoded for each in windows}) == 1
        language = options.language or ("de", "ja", "xx")[windows[0].start // SAMPLE_RATE % 3]
        outcomes = tuple(self._outcome(each, alone=len(windows) == 1) for each in windows)
        spoken = [outcome.window.start // SAMPLE_RATE for outcome in outcomes if outcome.segments]
        return StepResult(outcomes, language, 4 * len(spoken), sum(spoken))

    def _outcome(self, of: Window, *, alone: bool) -> WindowResult:
        choice = self.choices[of.start // SAMPLE_RATE % len(self.choices)]
        if choice == "fails" and not alone:
            return WindowResult(of, again=(replace(of, retry=True),))
        if choice == "silent":
            return WindowResult(of)
        rest = of.start + (2 + len(self.choices) % 3) * SAMPLE_RATE
        if choice == "cut" and rest < of.end:
            again = replace(of, start=rest, encoded=of.encoded - len(self.choices) % 2 * SAMPLE_RATE, retry=False)
            return WindowResult(of, (segment(of),), (again,))
        return WindowResult(of, (segment(of), segment(replace(of, start=of.start + SAMPLE_RATE // 2))))


@dataclass(frozen=True)
class Recording:
    """Pieces as a decoder gives them: windows, samples so far, the declared duration, whether that was all."""

    pieces: tuple[tuple[tuple[Window, ...], int, float | None, bool], ...]


def recording(
    spans: list[tuple[int, int]], per_piece: int, ahead: int, rest: int, declared_s: float | None
) -> Recording:
    """Windows by the gap before each and its length, in seconds; ``ahead`` is what is decoded behind the last window of
    a piece, ``rest`` what follows the last of all.
    """
    end, windows = 0, []
    for gap, length in spans:
        windows.append(window(end + gap, end + gap + length))
        end += gap + length
    samples = (end + rest) * SAMPLE_RATE
    pieces = [tuple(windows[i : i + per_piece]) for i in range(0, len(windows), per_piece)]
    decoded = [(piece, min(samples, piece[-1].end + ahead * SAMPLE_RATE), declared_s, False) for piece in pieces]
    return Recording((*decoded, ((), samples, declared_s, True)))


class Life:
    """Does all that is left of a job. A move is 0 or 1 for the decoder's next piece, where there is one; 2 for its
    starting over; 3 for a step that is lost; any other for a step of so many windows less 3.
    """

    def __init__(
        self, options: Options, recording: Recording, model: Model, *, behind: Sequence[StepResult] = ()
    ) -> None:
        self.progress = Progress(options)
        self.progress.restore(behind)
        self.steps = list(behind)
        #: The segments that were final after each step of this life.
        self.final: list[list[Segment]] = []
        self._recording = recording
        self._model = model
        self._pieces = deque(recording.pieces)
        self._came = set[Window]()

    def live(self, moves: Iterable[int]) -> None:
        for move in chain(moves, repeat(7, 1000)):
            if self.progress.finished:
                return
            self._move(move)
            assert 0 <= self.progress.share <= 1
            assert 0 <= self.progress.done_s <= self.progress.duration <= self.progress.expected_s
            assert self.progress.remaining_s == pytest.approx(self._remaining_s())
        pytest.fail("it does not end")

    def _move(self, move: int) -> None:
        if move == 2:
            self._pieces = deque(self._recording.pieces)
        elif self._pieces and (move < 2 or not self.progress.waiting):
            windows, samples, declared_s, done = self._pieces.popleft()
            self.progress.add(windows, samples, declared_s, decoded=done)
            self._came.update(windows)
        elif self.progress.waiting:
            self._step(max(1, move - 3), lost=move == 3)

    def _step(self, limit: int, *, lost: bool) -> None:
        windows = self.progress.take(limit)
        assert 1 <= len(windows) <= limit
        assert windows[-1].end <= self.progress.samples, "its sound is not there yet"
        assert self.progress.done_s <= windows[0].start / SAMPLE_RATE
        if lost:
            self.progress.put_back()
            return
        step = self._model.step(windows, self.progress.options)
        before = list(self.progress.segments)
        fresh = self.progress.complete(step)
        assert self.progress.segments == [*before, *fresh]
        self.steps.append(step)
        self.final.append(list(self.progress.segments))

    def _remaining_s(self) -> float:
        outcomes = [outcome for step in self.steps for outcome in step.windows]
        came = self._came.union(*(outcome.again for outcome in outcomes))
        to_go = came - {outcome.window for outcome in outcomes}
        undecoded = 0 if self.progress.decoded else (self.progress.declared_s or 0) - self.progress.duration
        return max(0, undecoded) + sum(each.end - each.start for each in to_go) / SAMPLE_RATE


models = st.lists(st.sampled_from(["text", "silent", "fails", "cut"]), min_size=1, max_size=7).map(
    lambda choices: Model(tuple(choices))
)
recordings = st.builds(
    recording,
    spans=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), max_size=10),
    per_piece=st.integers(1, 4),
    ahead=st.integers(0, 30),
    rest=st.integers(1, 40),
    declared_s=st.none() | st.floats(0, 400),
)
moves = st.lists(st.integers(0, 8), max_size=40)
options = st.sampled_from([KNOWN, Options(), Options(task="translate")])


def done(steps: Iterable[StepResult]) -> list[tuple[int, int, bool]]:
    return [(each.window.start, each.window.end, each.window.retry) for step in steps for each in step.windows]


@settings(deadline=None)
@given(options=options, recording=recordings, model=models, moves=moves, later_moves=moves)
def test_a_job_that_begins_again_behind_any_step_ends_as_if_it_had_never_stopped(
    options: Options, recording: Recording, model: Model, moves: list[int], later_moves: list[int]
) -> None:
    first = Life(options, recording, model)
    first.live(moves)
    for cut in range(len(first.steps) + 1):
        second = Life(options, recording, model, behind=first.steps[:cut])
        assert second.progress.segments == (first.final[cut - 1] if cut else [])
        second.live(later_moves)
        assert second.progress.transcript() == first.progress.transcript()
        windows = done(second.steps)
        assert len(set(windows)) == len(windows), "a window was done twice"


@settings(deadline=None)
@given(options=options, recording=recordings, model=models, moves=moves)
def test_segments_come_out_in_order_of_time_and_none_is_lost(
    options: Options, recording: Recording, model: Model, moves: list[int]
) -> None:
    life = Life(options, recording, model)
    life.live(moves)
    transcript = life.progress.transcript()
    expected = [each for step in life.steps for outcome in step.windows for each in outcome.segments]
    assert list(transcript.segments) == sorted(expected, key=lambda each: each.start)
    assert transcript.duration == recording.pieces[-1][1] / SAMPLE_RATE
    assert life.progress.share == 1
    assert life.progress.remaining_s == 0


@settings(deadline=None)
@given(recording=recordings, model=models, moves=moves)
def test_every_window_is_done_and_all_in_the_language_of_the_first_text(
    recording: Recording, model: Model, moves: list[int]
) -> None:
    life = Life(Options(), recording, model)
    life.live(moves)
    windows = [each for piece in recording.pieces for each in piece[0]]
    assert {(each.start, each.end, False) for each in windows} <= set(done(life.steps))
    with_text = [step for step in life.steps if any(each.segments for each in step.windows)]
    assert {step.language for step in with_text} == {step.language for step in with_text[:1]}
    assert life.progress.transcript().language == (with_text[0].language if with_text else "en")


def test_windows_that_wait_are_fitted_anew_for_another_backend_and_retries_are_not() -> None:
    progress = Progress(KNOWN)
    short, retried = window(0, 5), window(5, 9, retry=True)
    progress.add([short, retried], 9 * SAMPLE_RATE, None, decoded=True)
    progress.fit(3 * SAMPLE_RATE)
    (fitted,) = progress.take(8)
    assert fitted == replace(short, encoded=8 * SAMPLE_RATE)
    progress.put_back()
    progress.fit(None)
    assert progress.take(8) == (short,)
    assert progress.take(8) == (retried,)
