"""Who may come in: a slot and room on the disk for each upload, taken before its body is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.engine.spool import Spool
from app.errors import QueueFull

#: Room on the disk is taken in such pieces where an upload does not say how long it is.
_PIECE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What the queue holds at once: ``jobs`` requests, ``spool_bytes`` of uploads, ``audio_s`` seconds of audio."""

    jobs: int
    spool_bytes: int
    audio_s: float

    @property
    def retry_reserve(self) -> int:
        """Slots for retries alone, which mostly meet the job that they ask for and cost no more than their upload."""
        return max(1, self.jobs // 8)


class Upload:
    """A slot in the queue and a private folder whose file ``source`` is to be written, until ``close``."""

    def __init__(self, admission: Admission, folder: Path) -> None:
        self.folder = folder
        #: Whether it became a job, or met one: then that gives its room back.
        self.submitted = False
        self.source = folder / "upload"
        #: SHA-256 of the file, hex; "" until it is whole, and where nobody took it.
        self.digest = ""
        self._admission = admission
        self._bytes = 0
        self._has_slot = False

    def grow(self, size: int) -> None:
        """Make room on the disk for ``size`` bytes in all. Raises ``QueueFull``."""
        if size > self._bytes:
            self.resize(-(-size // _PIECE) * _PIECE)

    def resize(self, size: int) -> None:
        """Take room for ``size`` bytes, or give some back. Raises ``QueueFull``."""
        self._admission.check_bytes(size - self._bytes, own=self._bytes)
        self._admission.bytes += size - self._bytes
        self._bytes = size

    def take_slot(self) -> None:
        """Count among the requests at once, whatever the limit says."""
        self._admission.slots += not self._has_slot
        self._has_slot = True

    def give_slot(self) -> None:
        """No longer count among the requests at once; the room on the disk stays taken."""
        self._admission.slots -= self._has_slot
        self._has_slot = False

    def close(self) -> None:
        """Give everything back; harmless a second time."""
        self.give_slot()
        self.resize(0)
        self._admission.spool.remove(self.folder)


class Admission:
    """The counters, and the limits on them. ``slots`` and ``bytes`` are what is taken now."""

    def __init__(self, spool: Spool, limits: QueueLimits) -> None:
        self.spool = spool
        self.limits = limits
        #: Gives up something that is only kept in case; says whether there was anything.
        self.make_room: Callable[[], bool] = lambda: False
        self.slots = 0
        self.bytes = 0

    def enter(self, size: int = 0, *, retry: bool = False) -> Upload:
        """Let an upload of ``size`` bytes in (0 where it does not say); ``retry`` may use the reserve.

        Raises ``QueueFull``, and ``StorageFull`` where the disk takes no folder.
        """
        most = self.limits.jobs + (self.limits.retry_reserve if retry else 0)
        if self.slots >= most:
            raise QueueFull(f"The queue is full ({self.limits.jobs} requests); try again later.")
        self.check_bytes(size)
        upload = Upload(self, self.spool.folder())
        upload.take_slot()
        upload.resize(size)
        return upload

    def check_bytes(self, more: int, own: int = 0) -> None:
        """Raise ``QueueFull`` where ``more`` bytes besides one's ``own`` find no room. What comes alone always does."""
        while more > 0 and self.bytes > own and self.bytes + more > self.limits.spool_bytes:
            if self.make_room():
                continue
            limit = self.limits.spool_bytes // 2**20
            raise QueueFull(f"The uploads in work take all of the {limit} MiB for them; try again later.")
