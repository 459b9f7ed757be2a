"""Probabilities of speech to windows: what Whisper is shown, cut where nobody speaks.

Pure and incremental: figures go in as they come (one for every ``FRAME`` samples), windows come out as soon as no later
sound can change them. Inside, all positions are whole frames; only a finished ``Window`` is in samples.

A window holds as many spans of speech as fit in its longest length, 30 s of sound or less: the middle of a long pause
between them is not heard (``Window.takes``). It ends
* at the first long pause in its last third;
* else at the longest pause there, where the next span does not fit any more;
* else, where somebody speaks all that time without a breath, at the quietest point there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.transcript import MAX_WINDOW, SAMPLE_RATE, Vad, Window, left_out

#: Samples of one figure: 32 ms, the only size that Silero takes at 16 kHz.
FRAME = 512
#: Speech begins at the first, and has ended where it stays under the second. Silero's own 0.5 and 0.35 lose faint words
#: behind a louder speaker ("ask" of an old recording peaked at 0.49); noise and tones stay under 0.2, one frame in
#: thousands under 0.4.
BEGINS, ENDS = 0.35, 0.2
#: Five frames, 160 ms: shorter gaps are a consonant's closure, and no place to cut.
MIN_SILENCE = 5
#: A span under three frames (96 ms) whose probability never gets to ``SURE`` is a click. "Oh" and "no" take 150 ms.
MIN_SPEECH, SURE = 3, 0.75
#: Eight frames, 256 ms, are kept around speech: Silero misses weak first and last consonants.
PAD = 8
#: Where a request sets the threshold, speech ends this much under it, as in Silero's own code; at the last at least.
ENDS_UNDER, LOWEST_END = 0.15, 0.01
#: A request may ask for a silence of 8 s at most to end a span: it is heard with the span.
LONGEST_SILENCE = 8 * SAMPLE_RATE // FRAME
#: More than 6 s before speech would push speech out of the window.
MOST_PADDING = 6 * SAMPLE_RATE // FRAME


@dataclass(slots=True)
class _Open:
    """Speech that goes on: where it began, its frames' energies, its best probability, where silence may have begun."""

    start: int
    energies: list[float] = field(default_factory=list)
    peak: float = 0.0
    quiet: int | None = None


class WindowCutter:
    """Cuts one recording: ``feed`` it from the start, then ``finish`` it once.

    The windows are in order, disjoint, within the recording, at most ``longest`` samples of sound, and together their
    ``speech`` is all the speech there is; how the figures are divided among the calls makes no difference.
    """

    def __init__(self, vad: Vad | None = None, longest: int = MAX_WINDOW) -> None:
        """``vad`` is a request's own: its padding is that in front of a window (at most 6 s), its silence ends a span
        (8 s at the latest).
        """
        self._begins, self._ends, self._pad, self._silence = BEGINS, ENDS, PAD, MIN_SILENCE
        if vad is not None:
            self._begins, self._ends = vad.threshold, max(vad.threshold - ENDS_UNDER, LOWEST_END)
            self._pad = max(0, min(_frames(vad.padding_s), MOST_PADDING))
            self._silence = max(1, min(_frames(vad.silence_s), LONGEST_SILENCE))
        #: The longest window (frames of sound), and where its last third begins: a cut there loses little of the room.
        self._longest = longest // FRAME
        self._late = self._longest * 2 // 3
        self._now = 0
        self._open: _Open | None = None
        self._spans: list[tuple[int, int]] = []
        #: End of the last window: the next one may not begin before it.
        self._floor = 0

    def feed(self, probabilities: Sequence[float], energies: Sequence[float]) -> list[Window]:
        """The windows decided by these frames' speech probabilities and energies (any linear unit)."""
        windows: list[Window] = []
        for probability, energy in zip(probabilities, energies, strict=True):
            self._hear(probability, energy)
            self._now += 1
            windows.extend(self._decide())
        return windows

    def finish(self, samples: int) -> list[Window]:
        """The last windows of a recording of ``samples`` (of which the last frame may have only a part)."""
        if self._open is not None:
            self._close(self._open, self._now if self._open.quiet is None else self._open.quiet)
        return [_clip(self._emit(len(self._spans), None), samples)] if self._spans else []

    def _hear(self, probability: float, energy: float) -> None:
        """Let the next frame begin, continue or end a span."""
        span = self._open
        if span is None:
            if probability < self._begins:
                return
            span = self._open = _Open(self._now)
        span.energies.append(energy)
        span.peak = max(span.peak, probability)
        if probability >= self._begins:
            span.quiet = None
        elif probability < self._ends and span.quiet is None:
            span.quiet = self._now
        if span.quiet is not None and self._now + 1 - span.quiet >= self._silence:
            self._close(span, span.quiet)

    def _close(self, span: _Open, end: int) -> None:
        self._open = None
        if end - span.start >= MIN_SPEECH or span.peak >= SURE:
            self._spans.append((span.start, end))

    def _decide(self) -> Iterator[Window]:
        span = self._open
        if span is None:
            if self._spans and self._is_over():
                yield self._emit(len(self._spans), None)
            return
        # Silence that has just begun may turn out to be the span's end: it does not count yet.
        end = self._now if span.quiet is None else span.quiet
        while self._sound(end) + PAD > self._longest:
            if self._spans:
                yield self._emit(self._best_cut(span.start), span.start)
            else:
                yield self._split(span)

    def _is_over(self) -> bool:
        """Whether the pause that is on ends the window."""
        spoken_until = self._spans[-1][1]
        return left_out((self._now - spoken_until) * FRAME) > 0 and self._sound(spoken_until) >= self._late

    def _sound(self, end: int) -> int:
        """Frames that are heard of the window in hand up to ``end``, or one more for each long pause."""
        length = end - self._start()
        if length + PAD <= self._late:  # far from any decision
            return length
        starts = [start for start, _ in self._spans] + ([self._open.start] if self._open else [])
        pauses = [start - until for (_, until), start in zip(self._spans, starts[1:], strict=False) if start < end]
        return length - sum(left_out(pause * FRAME) // FRAME for pause in pauses)

    def _start(self) -> int:
        """Where the window in hand begins: a little before its first span."""
        first = self._spans[0][0] if self._spans or self._open is None else self._open.start
        return max(first - self._pad, self._floor)

    def _best_cut(self, next_start: int) -> int:
        """How many spans to take: up to the longest pause in the last third, else all of them."""
        starts = [*(start for start, _ in self._spans[1:]), next_start]
        cuts = [
            (start - end, taken)
            for taken, ((_, end), start) in enumerate(zip(self._spans, starts, strict=True), 1)
            if self._sound(end) >= self._late
        ]
        return max(cuts)[1] if cuts else len(self._spans)

    def _split(self, span: _Open) -> Window:
        """Cut an endless span at its quietest point in the last third of the window: of three frames the middle."""
        energies = span.energies
        offset = self._start() - span.start
        # Where silence went on for long before it turned out to be none, more was heard than a window holds.
        places = range(offset + self._late, min(offset + self._longest + 1, len(energies) - 1))
        quietest = min(places, key=lambda i: sum(energies[i - 1 : i + 2]))
        cut = span.start + quietest
        self._spans.append((span.start, cut))
        window = self._emit(1, cut)
        span.start, span.energies, span.peak = cut, energies[quietest:], 1.0
        return window

    def _emit(self, taken: int, next_start: int | None) -> Window:
        """The first ``taken`` spans as a window; the pause to the next one, where known, is shared evenly."""
        spans, start = self._spans[:taken], self._start()
        if taken < len(self._spans):
            next_start = self._spans[taken][0]
        end = spans[-1][1] + PAD
        if next_start is not None:
            end = min(end, (spans[-1][1] + next_start) // 2)
        self._spans = self._spans[taken:]
        self._floor = end
        return Window(start * FRAME, end * FRAME, tuple((a * FRAME, b * FRAME) for a, b in spans))


def _frames(seconds: float) -> int:
    return round(min(seconds, 60) * SAMPLE_RATE / FRAME)


def _clip(window: Window, samples: int) -> Window:
    speech = tuple((start, min(end, samples)) for start, end in window.speech if start < samples)
    return Window(window.start, min(window.end, samples), speech)
