"""Under a supervisor that restarts what fails (launchd never gives up): after a few starts that failed, be still.

``status.json`` in the state folder holds when starts began that came to nothing, and once the server is parked, why.
The next start, by whomever, counts anew.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app import json_file
from app.errors import WhisperdError
from app.settings import SettingsError

#: So many starts that fail within so many seconds are no accident: a supervisor waits 10 to 30 s between them.
MOST_STARTS = 5
WITHIN_S = 600.0


class Parking:
    """The count of starts in ``folder``. Where that cannot be written nothing is counted, and nothing parked."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "status.json"

    def begin(self) -> bool:
        """Count a start; False where there were too many before it that did not even live to say why they failed."""
        now, starts = time.time(), json_file.read(self._file).get("starts")
        times = starts if isinstance(starts, list) else []
        # Times to come are those of a clock that was wrong.
        recent = [each for each in times if isinstance(each, int | float) and 0 <= now - each < WITHIN_S]
        if len(recent) >= MOST_STARTS:
            return False
        self._write({"status": "starting", "starts": [*recent, now]})
        return True

    def failed(self, reason: str) -> bool:
        """Note why the start failed; whether it was one too many, so that the server is parked now."""
        starts = json_file.read(self._file).get("starts", [])
        if len(starts) < MOST_STARTS:
            self._write({"status": "failed", "reason": reason, "starts": starts})
            return False
        self.park(reason)
        return True

    def park(self, reason: str) -> None:
        """Leave the reason for people to find."""
        self._write({"status": "parked", "reason": reason, "at": time.time()})

    def forget(self) -> None:
        """The server answers, or somebody has put it right: forget the starts before."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    @property
    def reason(self) -> str:
        """Why the server failed to start, or is parked; "" where it answers, or has not been started."""
        return str(json_file.read(self._file).get("reason", ""))

    @property
    def parked(self) -> bool:
        return json_file.read(self._file).get("status") == "parked"

    def _write(self, status: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            json_file.write(self._file, status)


def supervised(folder: Path, serve: Callable[[Callable[[], None]], int]) -> int:
    """Run ``serve``, which calls what it is given once it answers; returns the exit code, 0 where the server is parked.

    Raises what ``serve`` does, as long as that may be tried again.
    """
    parking = Parking(folder)
    if not parking.begin():
        parking.park(f"The server ended {MOST_STARTS} times before it could answer; its log says more.")
        return _parked(f"it ended {MOST_STARTS} times before it could answer")
    try:
        code = serve(parking.forget)
    except (WhisperdError, SettingsError) as error:
        if parking.failed(str(error)):
            return _parked(str(error))
        raise
    if code and parking.failed("The server could not start; its log says why."):
        return _parked("it could not start")
    return code


def _parked(reason: str) -> int:
    print(  # noqa: T201 - for the supervisor's log
        f"whisperd: parked after {MOST_STARTS} starts that failed: {reason}\nPut that right, then start it again.",
        file=sys.stderr,
    )
    return 0
