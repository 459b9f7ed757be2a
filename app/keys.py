"""API keys by name: their digests lie in a file beside the configuration, which a running server reads when it changes.

The keys themselves are 256 random bits, told once and kept nowhere, so a plain SHA-256 of each is all that a thief of
the file gets: there is nothing to guess.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from app import json_file
from app.errors import InvalidRequest, NotFound
from app.log import event

#: Names of the keys that the environment gives: WHISPERD_API_KEY and WHISPERD_ADMIN_KEY.
DEFAULT, ADMIN = "default", "admin"
#: What logs and metrics call those who come by Wyoming, which knows no keys.
WYOMING = "wyoming"
#: Many apps believe a key of OpenAI's shape only.
PREFIX = "sk-whisperd-"
_SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key's name, the SHA-256 of its bytes in hex, and what it may: ``admin`` manages models; ``max_jobs`` requests
    at once and ``max_rpm`` a minute, 0 for no limit of its own. ``created`` is an ISO 8601 time.
    """

    name: str
    digest: str
    admin: bool = False
    max_jobs: int = 0
    max_rpm: int = 0
    created: str = ""

    @property
    def owner(self) -> str:
        """A mark for what the key's holder owns, which says nothing of the key."""
        return self.digest[:16]


class Keyring:
    """The keys that open a server: ``given`` ones, and those of the file at ``path``, which may come and go."""

    def __init__(self, path: Path, given: Iterable[Key] = ()) -> None:
        """Raises ``InvalidRequest`` where the file is there and cannot be used."""
        self._path = path
        self._given = tuple(given)
        self._stamp = _stamp(path)
        self._kept = read(path)

    @property
    def keys(self) -> tuple[Key, ...]:
        """All of them, as the file is now; one that became unreadable counts as it was."""
        with contextlib.suppress(OSError):
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._given + self._kept

    def _read_again(self) -> None:
        try:
            self._kept = read(self._path)
        except InvalidRequest as error:
            event("keys not read", logging.ERROR, reason=error)
        else:
            event("keys read", keys=len(self._kept))

    def find(self, offered: bytes) -> Key | None:
        """The key that these bytes are. Every key is compared, by digest: the time it takes says nothing."""
        digest = digest_of(offered)
        matching = [key for key in self.keys if hmac.compare_digest(key.digest, digest)]
        return matching[0] if matching else None

    def name_of(self, owner: str) -> str:
        """The name of the key with this mark; "" where there is none (any more)."""
        return next((key.name for key in self.keys if key.owner == owner), "")


def digest_of(key: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(key).hexdigest()


def read(path: Path) -> tuple[Key, ...]:
    """The keys in the file, none where there is no file. Raises ``InvalidRequest`` for a file that cannot be used."""
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["schema"] != _SCHEMA:
            raise ValueError("another version of whisperd wrote it")
        return tuple(Key(**row) for row in data["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        raise InvalidRequest(f"The keys in {path} cannot be read ({reason}).") from None


def add(path: Path, name: str, *, admin: bool = False, max_jobs: int = 0, max_rpm: int = 0) -> str:
    """Make a key and keep its digest; returns the key, which nothing can show again. Raises ``InvalidRequest``."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be a key's name: take up to 32 letters, digits, dots, dashes and underscores."
        )
    if name in (DEFAULT, ADMIN):
        raise InvalidRequest(
            f"{name!r} is what the key in WHISPERD_{'API' if name == DEFAULT else 'ADMIN'}_KEY is called."
        )
    if name == WYOMING:
        raise InvalidRequest(f"{name!r} is what logs and metrics call recordings that come by Wyoming, without a key.")
    secret = PREFIX + secrets.token_urlsafe(32)
    made = Key(
        name, digest_of(secret.encode()), admin, max_jobs, max_rpm, datetime.now(UTC).isoformat(timespec="seconds")
    )
    with _changing(path):
        keys = read(path)
        if any(key.name == name for key in keys):
            raise InvalidRequest(f"There is a key named {name!r}; revoke it first, or take another name.")
        _write(path, (*keys, made))
    return secret


def revoke(path: Path, name: str) -> int:
    """Take the key away; returns how many are left. Raises ``NotFound``, and ``InvalidRequest`` as ``read`` does."""
    with _changing(path):
        keys = read(path)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise NotFound(f"There is no key named {name!r} in {path}.")
        _write(path, left)
    return len(left)


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile. Raises ``InvalidRequest`` where the folder cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise InvalidRequest(f"The keys cannot be kept in {path} ({error.strerror}).") from None


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    json_file.write(path, {"schema": _SCHEMA, "keys": [asdict(key) for key in keys]})


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the file: () where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
