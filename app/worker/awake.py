"""A clock that stands still while this machine, or the process, does: what deadlines of work are measured by."""

from __future__ import annotations

import time

#: Who looks at the clock looks again within a second: so long a gap is a sleep, or a SIGSTOP.
GAP_S = 5.0


class AwakeClock:
    """``now`` gives monotonic seconds, less all gaps over ``GAP_S`` between two looks; look every second to use it."""

    def __init__(self) -> None:
        self._seen = time.monotonic()
        self._asleep_s = 0.0

    def now(self) -> float:
        seen = time.monotonic()
        if seen - self._seen > GAP_S:
            self._asleep_s += seen - self._seen
        self._seen = seen
        return seen - self._asleep_s


#: The event loop's, which is all that looks at it.
CLOCK = AwakeClock()
