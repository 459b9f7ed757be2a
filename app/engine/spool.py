"""Where uploads live while they are worked on: a private folder for each job, gone with it.

The spool's own folder is locked while its server runs, so that a start sweeps what a killed server left and nothing
else.
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
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        #: The children's working directory: empty, so that a relative path leads nowhere.
        self.empty = self.path / "empty"
        self.empty.mkdir(mode=0o500)

    def folder(self) -> Path:
        """A new folder for one upload, 0700; ``remove`` it. Raises ``StorageFull``."""
        try:
            return Path(tempfile.mkdtemp(prefix="job-", dir=self.path))
        except OSError as error:
            raise StorageFull("The server cannot store the upload right now.") from error

    def remove(self, folder: Path) -> None:
        """Remove a folder with all that is in it; harmless where it is gone."""
        shutil.rmtree(folder, ignore_errors=True)

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
