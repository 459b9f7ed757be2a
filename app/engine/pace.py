"""How fast the device has turned out to be, and what follows from it. Pure."""

from __future__ import annotations

import math

#: A step should hold the device no longer than this, unless one window alone takes longer (docs/architecture.md).
STEP_SECONDS = 2.0
#: Weight of the newest measurement; a handful of steps forgets a cold start.
_NEW = 0.3


class Pace:
    """Measured device seconds a window, and device seconds a second of audio (the real-time factor)."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.window_seconds: float | None = None
        self.real_time_factor: float | None = None

    def measured(self, windows: int, audio_seconds: float, seconds: float) -> None:
        """Take in a step of ``windows`` with ``audio_seconds`` of sound that held the device for ``seconds``."""
        self.window_seconds = _blend(self.window_seconds, seconds / windows)
        if audio_seconds > 0:
            self.real_time_factor = _blend(self.real_time_factor, seconds / audio_seconds)

    def batch(self, *, alone: bool) -> int:
        """Windows for the next step: one where others wait, else as many as fit in ``STEP_SECONDS``."""
        if not alone or self.window_seconds is None:
            return 1
        return max(1, min(self._max_batch, int(STEP_SECONDS / max(self.window_seconds, 1e-6))))

    def seconds_for(self, audio_seconds: float) -> float | None:
        """Device seconds that so much audio should take; None while nothing is measured."""
        return None if self.real_time_factor is None else audio_seconds * self.real_time_factor

    def retry_after(self, queued_audio_seconds: float) -> int:
        """Seconds until that much audio should be through: whole, from 1 to 120, as ``Retry-After`` wants them."""
        estimate = queued_audio_seconds * (self.real_time_factor or 0.5)
        return max(1, min(120, math.ceil(estimate)))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (new - old)
