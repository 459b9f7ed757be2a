"""The lane of a device: who gets the next step. Pure: no process, no clock, no I/O.

The policy is least remaining audio first, so that a short dictation overtakes a long recording, aged by the audio that
later comers were granted meanwhile, so that nothing waits for ever. Jobs are grouped by the model they want: another
model's job is worth the swap once it is better by what the swap costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")

#: How many seconds of a waiting job's remaining audio one second granted to a later comer outweighs. With 10, an
#: hour's recording among a stream of dictations gets a step after at most six minutes of theirs.
AGING = 10.0
#: Seconds of audio by which a job that asked for less stands back: behind ordinary recordings of an hour, but not for
#: ever.
BACKGROUND = 3600.0


@dataclass(slots=True)
class _Entry:
    order: int
    group: str
    background: bool
    remaining: float = 0.0
    waiting: bool = False
    age: float = 0.0


class Lane(Generic[Key]):
    """Jobs by any hashable key, from ``enter`` to ``leave``; of equal ones the first to come is named.

    Work conserving: ``next`` names a job whenever one waits. Call ``r`` the most seconds of audio that a waiting job
    had left since its last grant (in the background ``BACKGROUND`` more, of a model that is not loaded the swap's cost
    more). It is named at the latest once later comers were granted ``r / AGING`` seconds while it waited since then,
    plus one grant to each later comer that is overdue too; besides that only those that came before it go first, until
    they are done, and jobs of the loaded model until its load has paid off.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._count = 0
        self._loaded = ""
        #: Seconds of audio that are done in the time of a load.
        self.swap_cost = 0.0
        self._granted_since_swap = 0.0

    def __len__(self) -> int:
        """How many jobs are here, whether or not they want a step now."""
        return len(self._entries)

    @property
    def waiting(self) -> int:
        """How many jobs want a step."""
        return sum(entry.waiting for entry in self._entries.values())

    def enter(self, key: Key, *, group: str = "", background: bool = False) -> None:
        """A job comes; its order among equals is that of this call. Harmless where it is here."""
        if key not in self._entries:
            self._entries[key] = _Entry(self._count, group, background)
            self._count += 1

    def leave(self, key: Key) -> None:
        """Take a job out; harmless where it is not here."""
        self._entries.pop(key, None)

    def update(self, key: Key, remaining: float, *, waiting: bool) -> None:
        """Say how many seconds of audio a job has to go, and whether some of them want a step now."""
        entry = self._entries[key]
        entry.remaining, entry.waiting = remaining, waiting

    def promote(self, key: Key) -> None:
        """A job of the background is wanted by somebody who waits for it; harmless for others."""
        if key in self._entries:
            self._entries[key].background = False

    def next(self) -> Key | None:
        """The job that should get the next step, or None where nobody waits. Changes nothing."""
        waiting = [key for key, entry in self._entries.items() if entry.waiting]
        return min(waiting, key=lambda key: self._rank(self._entries[key]), default=None)

    def ahead(self, key: Key) -> list[Key]:
        """The waiting jobs that would be named before ``key`` if nothing else came; all where it is not here."""
        entry = self._entries.get(key)
        rank = self._rank(entry) if entry else None
        return [
            other
            for other, theirs in self._entries.items()
            if theirs.waiting and other != key and (rank is None or self._rank(theirs) < rank)
        ]

    def granted(self, key: Key, seconds: float) -> None:
        """Say that ``key`` gets a step of ``seconds`` of audio: those that came before it age, it is young again."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.age = 0.0
        for other in self._entries.values():
            if other.waiting and other.order < entry.order:
                other.age += seconds
        if entry.group == self._loaded:
            self._granted_since_swap += seconds

    def swapped(self, group: str, cost: float) -> None:
        """Say that the model of ``group`` was loaded, in the time in which ``cost`` seconds of audio are done."""
        self._loaded, self.swap_cost, self._granted_since_swap = group, cost, 0.0

    def _rank(self, entry: _Entry) -> tuple[bool, float, int]:
        away = entry.group != self._loaded
        rank = entry.remaining - AGING * entry.age
        if entry.background:
            rank += BACKGROUND
        if away:
            rank += self.swap_cost
        return away and self._granted_since_swap < self.swap_cost, rank, entry.order
