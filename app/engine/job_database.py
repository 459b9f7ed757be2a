"""The file that stored jobs live in: an SQLite database, private, of one server alone."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from app.engine.job_rows import MIGRATIONS
from app.errors import StorageFull
from app.log import event

_CANNOT_STORE = {
    sqlite3.SQLITE_FULL: "The server's disk is full.",
    # Also what SQLite makes of a quota (EDQUOT) and of a file that may not grow (EFBIG).
    sqlite3.SQLITE_IOERR: "The server cannot store the job right now.",
    sqlite3.SQLITE_CANTOPEN: "The server cannot store the job right now.",  # no descriptors left
    sqlite3.SQLITE_READONLY: "The server cannot store the job right now.",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreBusy(Exception):
    """Another server holds the store; the message is a sentence for whoever starts this one."""


class StoreUnusable(Exception):
    """The store cannot be opened; the message is a sentence that says why and what to do."""


class Database:
    """``jobs.sqlite3`` in ``folder``, opened for this process alone; safe to use from several threads.

    A damaged file is moved aside and a new one begun. Raises ``StoreBusy``, ``StoreUnusable``.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        path = folder / "jobs.sqlite3"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._held = _hold(folder)
            try:
                self._connection = _open(path)
            except BaseException:
                os.close(self._held)
                raise
        except (OSError, sqlite3.Error) as error:
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise StoreBusy(f"Another program has {path} open: close it there.") from error
            message = f"The jobs in {folder} cannot be opened ({error}): make the folder writable, or choose another."
            raise StoreUnusable(message) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone: all that is done with it is kept durably, or nothing where it raises.

        Raises ``StorageFull`` where the disk takes no more.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                if sentence := _CANNOT_STORE.get(_code(error)):
                    raise StorageFull(sentence) from error
                raise

    def shred(self) -> None:
        """Call after deletions: leaves nothing of them in the files, and gives their space back to the disk."""
        with self._lock:
            try:
                # A script, since ``execute`` gives a single page back. The log still holds the pages as they were.
                self._connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
            except sqlite3.OperationalError as error:
                # What was deleted stays deleted; the next call does the rest.
                event("job store not shrunk", logging.WARNING, code=error.sqlite_errorname)

    def close(self) -> None:
        """Harmless a second time; nothing else may be called after it."""
        with self._lock:
            self._connection.close()
            if self._held >= 0:
                os.close(self._held)
                self._held = -1


def _hold(folder: Path) -> int:
    """The locked file that says whose folder this is; the lock goes with the process."""
    held = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if isinstance(error, BlockingIOError):
            message = f"Another server keeps its jobs in {folder}: stop it, or give this one a folder of its own."
            raise StoreBusy(message) from error
        raise
    return held


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if _code(error) not in _DAMAGED:
            raise
        _move_aside(path)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite gives the files it puts beside this one the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    # No other reader can keep deleted pages in the log, and no memory is shared through files.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"{path} is of version {version}, and this whisperd knows versions up to {len(MIGRATIONS)}: "
            "start the newer whisperd that wrote it, or move the file away to begin without its jobs."
        )
    if [row[0] for row in connection.execute("PRAGMA quick_check(1)")] != ["ok"]:
        damaged = sqlite3.DatabaseError("The check found damage.")
        damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damaged
    if not version:  # It holds for files without tables only, and would write to any other for nothing.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN; {statements}; PRAGMA user_version = {number}; COMMIT;")


def _move_aside(path: Path) -> None:
    """Rename a damaged file to the first ``.damaged-<n>`` that is free, with what SQLite keeps beside it."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    event("job store damaged, a new one begun", logging.ERROR, kept=aside.name)


def _code(error: BaseException) -> int:
    """SQLite's primary code of an error, 0 for one of another kind."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
