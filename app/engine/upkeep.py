"""What an idle device owes its warm model: to unload it, or to use it once. Knows of clocks, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

#: Who looks, looks every second: so long a gap by the wall clock was a sleep of the machine (the monotonic clock stands
#: still in it), or a clock that was set; then a warm-up does no harm.
_GAP_S = 30.0
#: Seconds without work after which memory that others want is given up: the next dictation may come at once.
_SPARE_S = 10.0


class Upkeep:
    """``worked`` is called when the device was used, ``due`` every second while it is not.

    ``keep_alive``: seconds without work after which the model is unloaded, -1 for never. ``keep_warm_s``: after which
    it is used once, 0 for never. ``pressed``: whether the system is short of memory. Of the seconds that they are told
    ``now`` is monotonic, ``wall`` is not.
    """

    def __init__(self, keep_alive: float, keep_warm_s: float, pressed: Callable[[], bool]) -> None:
        self._keep_alive = keep_alive
        self._keep_warm_s = keep_warm_s
        self._pressed = pressed
        self._worked = self._used = 0.0
        self._seen = float("inf")

    def worked(self, now: float, wall: float) -> None:
        self._worked = self._used = now
        self._seen = wall

    def due(self, now: float, wall: float) -> Literal["unload", "warm up", ""]:
        """What to do now; "warm up" counts as done."""
        woke, self._seen = wall - self._seen > _GAP_S, wall
        idle = now - self._worked
        if 0 <= self._keep_alive < idle or (idle > _SPARE_S and self._pressed()):
            return "unload"
        if woke or 0 < self._keep_warm_s < now - self._used:
            self._used = now
            return "warm up"
        return ""
