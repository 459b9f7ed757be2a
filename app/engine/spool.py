"""Where uploads live while they are worked on: a private folder for each job, gone with it.

The spool's own folder is locked while its server runs, so that a start sweeps what a killed server left and nothing
else. Whoever deletes it meanwhile (people tidy up) finds it made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from app.errors import StorageFull


class Spool:
    """A server's folder under ``root``; ``close`` removes it. Raises ``OSError`` where ``root`` cannot be written."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(root)
        self.path = Path(tempfile.mkdtemp(prefix="server-", dir=root))
        #: The children's working directory: empty, so that a relative path leads nowhere.
        self.empty = self.path / "empty"
        #: Folders that could not be removed yet: that takes descriptors.
        self._left: set[Path] = set()
        self._lock = -1
        self.keep()

    def keep(self) -> None:
        """Make anew what is gone of the spool, under its lock, and remove what was left. Raises ``OSError``."""
        if not self._is_whole():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self._hold()
            self.empty.mkdir(mode=0o500, exist_ok=True)
        for folder in list(self._left):
            self.remove(folder)

    def _is_whole(self) -> bool:
        """Whether the lock that is held is still the one that others would see."""
        try:
            return os.path.samestat((self.path / "lock").stat(), os.fstat(self._lock)) and self.empty.is_dir()
        except OSError:
            return False

    def _hold(self) -> None:
        lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = lock
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def folder(self) -> Path:
        """A new folder for one upload, 0700; ``remove`` it. Raises ``StorageFull``."""
        try:
            self.keep()
            return Path(tempfile.mkdtemp(prefix="job-", dir=self.path))
        except OSError as error:
            raise StorageFull.of(error) from error

    def remove(self, folder: Path) -> None:
        """Remove a folder with all that is in it, now or as soon as the system lets us; harmless where it is gone."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            self._left.add(folder)
        else:
            self._left.discard(folder)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(root: Path) -> None:
    """Remove the folders of servers that no longer hold their lock."""
    for folder in root.glob("server-*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
