"""What a job still has to do and what it has: windows in, segments out in order. Pure.

Steps may end out of order (the remainder of a window goes back while later ones are done), so segments are held until
no window before them is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from app.backends.base import StepResult
from app.transcript import SAMPLE_RATE, Options, Segment, Transcript, Window

#: The language of a recording in which nobody speaks, as OpenAI answers.
_NOBODY_SPEAKS = "en"


class Progress:
    """The state of one job between steps. ``options.language`` is filled in once it is detected."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.samples = 0
        self.declared_s: float | None = None
        self.decoded = False
        self.segments: list[Segment] = []
        self.prompt_tokens = 0
        self.decoded_tokens = 0
        self._pending: list[tuple[int, Window]] = []
        self._running: dict[int, Window] = {}
        self._held: list[tuple[int, tuple[Segment, ...]]] = []

    @property
    def waiting(self) -> bool:
        """Whether there are windows that want a step."""
        return bool(self._pending)

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
        windows = [*(window for _, window in self._pending), *self._running.values()]
        return undecoded + sum(window.end - window.start for window in windows) / SAMPLE_RATE

    @property
    def done_s(self) -> float:
        """Seconds of the recording up to which everything is transcribed."""
        return min(self._first_open() / SAMPLE_RATE, self.duration)

    def add(self, windows: Sequence[Window], samples: int, declared_s: float | None, *, decoded: bool) -> None:
        """Take in what a decoder has found."""
        self.samples, self.declared_s, self.decoded = samples, declared_s, decoded
        for window in windows:
            heapq.heappush(self._pending, (window.start, window))

    def take(self, limit: int) -> tuple[Window, ...]:
        """The earliest windows, at most ``limit``: one alone where the language is still unknown or it is a retry, and
        only windows that are encoded at one length."""
        _, first = heapq.heappop(self._pending)
        taken = [first]
        if not first.retry and self.options.language is not None:
            while len(taken) < limit and self._pending:
                following = self._pending[0][1]
                if following.retry or following.encoded != first.encoded:
                    break
                taken.append(heapq.heappop(self._pending)[1])
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
        self.prompt_tokens += result.prompt_tokens
        self.decoded_tokens += result.decoded_tokens
        for outcome in result.windows:
            self._running.pop(outcome.window.start, None)
            if outcome.segments:
                heapq.heappush(self._held, (outcome.window.start, outcome.segments))
            for window in outcome.again:
                heapq.heappush(self._pending, (window.start, window))
        fresh: list[Segment] = []
        while self._held and self._held[0][0] < self._first_open():
            fresh.extend(heapq.heappop(self._held)[1])
        self.segments.extend(fresh)
        return tuple(fresh)

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
        )

    def _first_open(self) -> int:
        """The earliest sample that may still get text: of a window to go, else the end of what is decoded."""
        starts = [*(start for start, _ in self._pending[:1]), *self._running]
        if starts:
            return min(starts)
        return self.samples + 1
