"""How fast the device has turned out to be with a model, and what follows from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from app.transcript import MAX_WINDOW, SAMPLE_RATE

#: A step should hold the device no longer than this, unless one window alone takes longer (docs/architecture.md).
STEP_SECONDS = 2.0
#: Weight of the newest measurement; a handful of steps forgets a cold start.
_NEW = 0.3
#: A window may take so many times what windows take: the whole ladder, five samples each, and a busy machine.
_PATIENCE = 30.0
#: The real-time factor to reckon with while none is measured.
_GUESS = 0.5


class Pace:
    """Measured device seconds a second that the encoder sees, and a second of audio (the real-time factor)."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._at_once = 1
        self._warm_up_seconds = 0.0
        self.encoded_factor: float | None = None
        self.real_time_factor: float | None = None

    def warmed_up(self, seconds: float, at_once: int = 1) -> None:
        """Take the time of the model's warm-up, a short window of noise, for a window's while none is measured;
        ``at_once`` windows take the model about as long as one."""
        self._warm_up_seconds, self._at_once = seconds, min(at_once, self._max_batch)

    def measured(self, encoded_seconds: float, audio_seconds: float, seconds: float) -> None:
        """Take in a step that encoded so much for ``audio_seconds`` of sound, and held the device for ``seconds``."""
        self.encoded_factor = _blend(self.encoded_factor, seconds / encoded_seconds)
        if audio_seconds > 0:
            self.real_time_factor = _blend(self.real_time_factor, seconds / audio_seconds)

    def batch(self, encoded_seconds: float, *, alone: bool) -> int:
        """Windows of that length for the next step: one where others wait, else as many as fit in ``STEP_SECONDS``,
        but always as many as the model works on at once, and then a multiple of that."""
        if not alone or self.encoded_factor is None:
            return 1
        fitting = min(self._max_batch, int(STEP_SECONDS / max(self.encoded_factor * encoded_seconds, 1e-6)))
        return max(1, fitting // self._at_once) * self._at_once

    def deadline(self, windows: int, least: float) -> float:
        """Seconds after which a step of ``windows`` hangs: ``least``, and generously what such steps take."""
        factor = self.encoded_factor
        expected = self._warm_up_seconds if factor is None else factor * MAX_WINDOW / SAMPLE_RATE
        return least + _PATIENCE * windows * expected

    def seconds_for(self, audio_seconds: float) -> float | None:
        """Device seconds that so much audio should take; None while nothing is measured."""
        return None if self.real_time_factor is None else audio_seconds * self.real_time_factor

    def audio_in(self, seconds: float) -> float:
        """Seconds of audio that the device does in ``seconds``."""
        return seconds / max(self.real_time_factor or _GUESS, 1e-3)


def retry_after(device_seconds: Iterable[float]) -> int:
    """When to come back to a full queue, given the device time of each of its jobs: when half of them, the shortest
    first, should be done. Whole seconds from 1 to 120, as ``Retry-After`` wants them.
    """
    queued = sorted(device_seconds)
    return max(1, min(120, math.ceil(sum(queued[: (len(queued) + 1) // 2]))))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (new - old)
