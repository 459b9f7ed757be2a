"""A folder whose recordings are transcribed as they come. It is looked at again and again, which works on network
shares, where nobody tells of changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from app.batch.bars import Bars
from app.batch.doors import Transcribe
from app.batch.results import Results
from app.batch.run import reason_of, transcribe_one
from app.batch.sources import Source, in_folder
from app.errors import (
    BackendUnavailable,
    QueueFull,
    ShuttingDown,
    StorageFull,
    TooManyConnections,
    WhisperdError,
)

#: Seconds between looks at the folder.
_POLL_S = 1.0
#: So many looks in a row find a file as it was before somebody is taken to have written it whole.
_STILL = 2
#: What will pass: the server is away or busy.
_PASSING = (BackendUnavailable, QueueFull, ShuttingDown, StorageFull, TooManyConnections)

#: What tells a file from itself after a change: its bytes, and when they were written, in nanoseconds.
Stamp = tuple[int, int]


class Arrivals:
    """Which files are there whole, and not settled as they are. Pure: each look is shown it."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[Stamp, int]] = {}
        self._settled: dict[Path, Stamp] = {}

    def look(self, stamps: Mapping[Path, Stamp]) -> list[Path]:
        """The files of this look, in its order, that want to be transcribed now."""
        before = self._seen
        self._seen = {}
        for path, stamp in stamps.items():
            last, still = before.get(path, (None, 0))
            self._seen[path] = (stamp, still + 1 if stamp == last else 0)
        self._settled = {path: stamp for path, stamp in self._settled.items() if path in stamps}
        return [
            path for path, (stamp, still) in self._seen.items() if still >= _STILL and self._settled.get(path) != stamp
        ]

    def settle(self, path: Path) -> None:
        """Leave ``path`` out until it changes: it is transcribed, or cannot be."""
        self._settled[path] = self._seen[path][0]


def watch(
    folder: Path, results: Results, transcribe: Transcribe, wait: Callable[[float], None], *, force: bool = False
) -> None:
    """Transcribe what lies in ``folder`` and what comes, until ``wait``, which is given seconds, raises something.

    A recording that fails is said once, and tried again when it changes. While the server is away or busy, work waits.
    """
    arrivals, away = Arrivals(), False
    while True:
        sources = {source.path: source for source in in_folder(folder)}
        pause = _POLL_S
        for path in arrivals.look(_stamps(sources)):
            try:
                _one(sources[path], results, transcribe, force=force)
            except _PASSING as error:
                pause = max(pause, float(error.retry_after or 0))
                if not away:
                    _say(f"{path}: {error.message} It is tried again until it works.")
                away = True
                break
            except (WhisperdError, OSError) as error:
                _say(f"{path}: {reason_of(error)}")
            away = False
            arrivals.settle(path)
        wait(pause)


def _one(source: Source, results: Results, transcribe: Transcribe, *, force: bool) -> None:
    results.claim(source)
    if force or not results.done(source):
        with Bars([source.path.stat().st_size]) as bars:
            transcribe_one(source, results, transcribe, bars)


def _stamps(sources: Mapping[Path, Source]) -> dict[Path, Stamp]:
    found = {}
    for path in sources:
        try:
            status = path.stat()
        except OSError:  # it went while we looked
            continue
        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _say(line: str) -> None:
    Bars([]).say(f"whisperd: {line}")
