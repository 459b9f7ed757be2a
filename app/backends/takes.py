"""A window's sound, which is its takes joined, and where what is found in it lies in the recording. Pure.

Positions in the sound are samples from the window's start, as if the middles of its long pauses had never been; a
``Window`` and what comes out of here counts samples of the recording. Where a text ends in one take and the next begins
in another, the pause between them is a join, and Whisper's times are off by a few tenths of a second: so a stretch
belongs to the takes in which it has speech, not to those that it touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import InferenceFailed
from app.transcript import KEPT_PAUSE, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Span = tuple[int, int]


def join(pcm: NDArray[np.int16], window: Window) -> NDArray[np.float32]:
    """The window's sound as float32 in [-1, 1); nothing else of ``pcm`` is read.

    Raises ``InferenceFailed`` where the recording ends before the window does.
    """
    import numpy as np

    if not window.start < window.end <= len(pcm):
        raise InferenceFailed("The recording is shorter than the window asked for.")
    parts = [np.asarray(pcm[begin:end]) for begin, end in window.takes]
    return np.concatenate(parts).astype(np.float32) / np.float32(32768)


def position(window: Window, offset: int) -> int:
    """The sample of the recording that lies ``offset`` samples into the sound; of a join, the one before it."""
    for begin, end in window.takes:
        if offset <= end - begin:
            return begin + max(0, offset)
        offset -= end - begin
    return window.end


def place(window: Window, start: int, end: int) -> Span:
    """Where ``[start, end)`` of the sound lies: from the first to the last take in which it has half a second of its
    speech, or in the one where it has most."""
    stretches = _stretches(window, start, end)
    spoken = [sum(_overlap(stretch, span) for span in window.speech) for stretch in stretches]
    most = max(spoken)
    enough = [
        stretch for stretch, speech in zip(stretches, spoken, strict=True) if speech >= min(most, KEPT_PAUSE // 2)
    ]
    return enough[0][0], enough[-1][1]


def place_word(window: Window, start: int, end: int) -> Span:
    """Where ``[start, end)`` of the sound lies, a word's: in the one take that has most of it."""
    return max(_stretches(window, start, end), key=lambda stretch: stretch[1] - stretch[0])


def _stretches(window: Window, start: int, end: int) -> list[Span]:
    """``[start, end)`` of the sound cut at the joins, as spans of the recording; at least one, which may be empty."""
    stretches, offset = [], 0
    for begin, until in window.takes:
        length = until - begin
        first, last = max(start - offset, 0), min(max(start, end) - offset, length)
        if first <= last:
            stretches.append((begin + first, begin + last))
        offset += length
    return stretches or [(window.end, window.end)]


def _overlap(one: Span, other: Span) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
