"""What a job still has to do and what it has: windows in, segments out in order. Pure.

Steps may end out of order (the remainder of a window goes back while later ones are done), so segments are held until
no window before them is left. A recording that is decoded once more, after a decoder's death or the job's return, gives
the same windows again, which are known by then.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.backends.base import StepResult
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Options, Segment, Transcript, Window

#: The language of a recording in which nobody speaks, as OpenAI answers.
_NOBODY_SPEAKS = "en"


class Progress:
    """The state of one job between steps. ``options.language`` is filled in once it is detected; with ``margin``
    windows are fitted with so many samples of silence, None encodes them whole.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.margin: int | None = None
        #: Who did the last step.
        self.backend = ""
        self.samples = 0
        self.declared_s: float | None = None
        self.decoded = False
        self.segments: list[Segment] = []
        self.prompt_tokens = 0
        self.decoded_tokens = 0
        self._pending: list[tuple[int, Window]] = []
        self._running: dict[int, Window] = {}
        self._held: list[tuple[int, tuple[Segment, ...]]] = []
        self._known_until = 0
        #: Samples of sound of all windows that wait or run.
        self._open = 0

    @property
    def waiting(self) -> bool:
        """Whether there are windows that want a step, and whose sound is there."""
        return bool(self._pending) and self._pending[0][1].end <= self.samples

    @property
    def encoded_s(self) -> float:
        """Seconds that the encoder sees of the next window; 0 where there is none."""
        return self._pending[0][1].encoded / SAMPLE_RATE if self._pending else 0.0

    @property
    def finished(self) -> bool:
        return self.decoded and not self._pending and not self._running

    @property
    def duration(self) -> float:
        """Seconds decoded so far; the recording's duration once ``decoded``."""
        return self.samples / SAMPLE_RATE

    @property
    def remaining_s(self) -> float:
        """Seconds of windows to go, with the container's word for what is not decoded yet."""
        undecoded = 0.0 if self.decoded else max(0.0, (self.declared_s or 0.0) - self.duration)
        return undecoded + self._open / SAMPLE_RATE

    @property
    def done_s(self) -> float:
        """Seconds of the recording up to which everything is transcribed."""
        return min(self._first_open() / SAMPLE_RATE, self.duration)

    @property
    def expected_s(self) -> float:
        """Seconds of the recording: what is decoded, or what its container says."""
        return self.duration if self.decoded else max(self.duration, self.declared_s or 0.0)

    @property
    def share(self) -> float:
        """How much of the recording is transcribed, from 0 to 1; 0 while its length is not known."""
        known = self.decoded or self.declared_s
        return round(self.done_s / self.expected_s, 3) if known and self.expected_s else 0.0

    def fit(self, margin: int | None) -> None:
        """From now on windows are fitted so, and those that wait are too."""
        if margin != self.margin:
            self.margin = margin
            self._pending = [(start, _fitted(window, margin)) for start, window in self._pending]

    def add(self, windows: Sequence[Window], samples: int, declared_s: float | None, *, decoded: bool) -> None:
        """Take in what a decoder has found, but for the windows that are known."""
        self.samples, self.declared_s, self.decoded = max(self.samples, samples), declared_s, decoded
        for window in windows:
            if window.end > self._known_until:
                # In its earlier life a job may have had windows of another length: what they hold is done.
                self._push(window.behind(self._known_until))
                self._known_until = window.end

    def restore(self, steps: Iterable[StepResult]) -> None:
        """Take in the steps of an earlier life, before any window comes. What they sent back waits for its sound."""
        for result in steps:
            done = {outcome.window.start for outcome in result.windows}
            for window in [window for start, window in self._pending if start in done]:
                self._pending.remove((window.start, window))
                self._open -= window.sound
            heapq.heapify(self._pending)
            self._known_until = max(self._known_until, *(outcome.window.end for outcome in result.windows))
            self.complete(result)

    def take(self, limit: int) -> tuple[Window, ...]:
        """The earliest window and, up to ``limit``, the next ones that are encoded at its length; it alone where the
        language is still unknown or it is a retry."""
        taken = [heapq.heappop(self._pending)[1]]
        if not taken[0].retry and self.options.language is not None:
            for following in sorted(self._pending):
                if len(taken) >= limit or following[1].end > self.samples:
                    break
                if not following[1].retry and following[1].encoded == taken[0].encoded:
                    taken.append(following[1])
                    self._pending.remove(following)
            heapq.heapify(self._pending)
        self._running = {window.start: window for window in taken}
        return tuple(taken)

    def put_back(self) -> None:
        """The step was lost with its worker: its windows wait again."""
        for window in self._running.values():
            heapq.heappush(self._pending, (window.start, window))
        self._running = {}

    def complete(self, result: StepResult) -> tuple[Segment, ...]:
        """Take in a step's result; returns the segments that are final with it, in order of time."""
        if self.options.language is None and any(outcome.segments for outcome in result.windows):
            self.options = replace(self.options, language=result.language)
        self.backend = result.backend
        self.prompt_tokens += result.prompt_tokens
        self.decoded_tokens += result.decoded_tokens
        for outcome in result.windows:
            if self._running.pop(outcome.window.start, None) is not None:
                self._open -= outcome.window.sound
            if outcome.segments:
                heapq.heappush(self._held, (outcome.window.start, outcome.segments))
            for window in outcome.again:
                self._push(window)
        fresh: list[Segment] = []
        while self._held and self._held[0][0] < self._first_open():
            fresh.extend(heapq.heappop(self._held)[1])
        self.segments.extend(fresh)
        return tuple(fresh)

    def _push(self, window: Window) -> None:
        if self.margin is not None:
            window = _fitted(window, self.margin)
        heapq.heappush(self._pending, (window.start, window))
        self._open += window.sound

    def transcript(self) -> Transcript:
        """All of it; call once ``finished``."""
        translated = self.options.task == "translate"
        return Transcript(
            language="en" if translated else self.options.language or _NOBODY_SPEAKS,
            duration=round(self.duration, 3),
            segments=tuple(self.segments),
            task=self.options.task,
            prompt_tokens=self.prompt_tokens,
            decoded_tokens=self.decoded_tokens,
            with_logprobs=self.options.logprobs,
            backend=self.backend,
        )

    def _first_open(self) -> int:
        """The earliest sample that may still get text: of a window to go, else of one still to be cut."""
        starts = [*(start for start, _ in self._pending[:1]), *self._running]
        if starts:
            return min(starts)
        return self.samples + 1 if self.decoded else self._known_until


def _fitted(window: Window, margin: int | None) -> Window:
    if window.retry:
        return window
    return replace(window, encoded=MAX_WINDOW) if margin is None else window.fitted(margin)
