"""What each key may use: requests at once, requests a minute."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator

from app.errors import RateLimited
from app.keys import Key
from app.metrics import Metrics

_MINUTE_S = 60.0


class Allowances:
    """Counts of what runs now, and of the last minute, by key; they begin anew with the server."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running: Counter[str] = Counter()
        self._begun: defaultdict[str, deque[float]] = defaultdict(deque)

    @contextlib.contextmanager
    def request(self, key: Key | None, unfinished: int = 0) -> Iterator[None]:
        """A request of ``key`` until the context is left; ``unfinished`` of its jobs on disk count with those at once.

        Raises ``RateLimited``. Without a key all goes.
        """
        if key is None:
            yield
            return
        try:
            self._check_jobs(key, unfinished)
            self._check_rate(key)
        except RateLimited as error:
            self._metrics.jobs.labels(error.code).inc()
            raise
        self._count(key, 1)
        try:
            yield
        finally:
            self._count(key, -1)

    def _check_jobs(self, key: Key, unfinished: int) -> None:
        if 0 < key.max_jobs <= self._running[key.owner] + unfinished:
            raise RateLimited(
                f"The key {key.name!r} may have {key.max_jobs} request{'s' * (key.max_jobs > 1)} at once, and has "
                "them; try again when one is done."
            )

    def _check_rate(self, key: Key) -> None:
        if not key.max_rpm:
            return
        begun, now = self._begun[key.owner], time.monotonic()
        while begun and begun[0] <= now - _MINUTE_S:
            begun.popleft()
        if len(begun) >= key.max_rpm:
            error = RateLimited(f"The key {key.name!r} may send {key.max_rpm} requests a minute; try again later.")
            error.retry_after = math.ceil(begun[-key.max_rpm] + _MINUTE_S - now)
            raise error
        begun.append(now)

    def _count(self, key: Key, change: int) -> None:
        self._running[key.owner] += change
        self._metrics.key_requests.labels(key.name).set(self._running[key.owner])
