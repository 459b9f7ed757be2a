"""The lane of a device: who gets the next step. Pure: no process, no clock, no I/O.

The policy is least remaining audio first, so that a short dictation overtakes a long recording, aged by the audio that
others were granted meanwhile, so that nothing waits for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")

#: How many seconds of a waiting job's remaining audio one second granted to others outweighs. With 10, an hour's
#: recording among a stream of dictations gets a step after at most six minutes of theirs.
AGING = 10.0


@dataclass(slots=True)
class _Entry:
    remaining: float
    order: int
    age: float = 0.0

    @property
    def rank(self) -> tuple[float, int]:
        return self.remaining - AGING * self.age, self.order


class Lane(Generic[Key]):
    """Jobs that want a step, by any hashable key; equal ones keep the order in which they came.

    Work conserving: ``next`` names a job whenever there is one. A job with ``r`` seconds left is named at the latest
    once others were granted ``r / AGING`` seconds since its own last grant, plus one grant to each job that is
    overdue too.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def put(self, key: Key, remaining: float) -> None:
        """Enter a job with ``remaining`` seconds of audio to go, or tell what remains of one that is here."""
        if key in self._entries:
            self._entries[key].remaining = remaining
        else:
            self._entries[key] = _Entry(remaining, self._count)
            self._count += 1

    def discard(self, key: Key) -> None:
        """Take a job out; harmless where it is not here."""
        self._entries.pop(key, None)

    def next(self) -> Key | None:
        """The job that should get the next step, or None where nobody waits. Changes nothing."""
        return min(self._entries, key=lambda key: self._entries[key].rank, default=None)

    def ahead(self, key: Key) -> list[Key]:
        """The jobs that would be named before ``key`` if nothing else came; all of them where it is not here."""
        entry = self._entries.get(key)
        return [other for other, theirs in self._entries.items() if entry is None or theirs.rank < entry.rank]

    def granted(self, key: Key, seconds: float) -> None:
        """Say that ``key`` got a step of ``seconds`` of audio: the others age, it is young again."""
        for other, entry in self._entries.items():
            entry.age = 0.0 if other == key else entry.age + seconds
