"""What a supervisor is to run, and how it stands: the same for launchd and systemd."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import platformdirs

from app.settings import Settings

#: The templates, which ``deploy/`` shows too.
TEMPLATES = Path(__file__).parent.parent / "data" / "service"
#: Until a server that was told to end has answered what it holds (``drain_s``), cut its connections and ended its
#: children; and at least, so that a slow disk does not decide.
_END_S, _END_AT_LEAST_S = 10, 20
_COMMAND_S = 60


class ServiceFailed(Exception):
    """launchd or systemd did not do as it was told; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Program:
    """``words`` is the command line; it runs in ``folder``, which is private and empty, with ``environment`` beside
    what the supervisor gives. ``end_s`` seconds after SIGTERM it is killed. ``log`` is its log, None where the
    supervisor keeps it.
    """

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    end_s: int
    log: Path | None


@dataclass(frozen=True, slots=True)
class State:
    """How the service stands. ``said`` is the supervisor's own word for it; ``pid`` and ``ended`` (how the last run
    ended) where they are known.
    """

    installed: bool
    running: bool
    said: str = ""
    pid: int | None = None
    ended: str = ""


class Supervisor(Protocol):
    """launchd or systemd, as far as this user's service goes. All verbs may be said twice; all raise
    ``ServiceFailed``.
    """

    #: As people call it.
    name: str
    #: What installs the service.
    file: Path
    #: Where the log is, None where the supervisor keeps it.
    log: Path | None

    def render(self, program: Program) -> bytes:
        """``file`` for this program."""
        ...

    def words(self) -> tuple[str, ...]:
        """The command line in ``file``; empty where there is none."""
        ...

    def state(self) -> State: ...

    def start(self) -> None:
        """Start it, and have it started from the next login on. Returns before it answers."""
        ...

    def stop(self) -> None:
        """Have it end in order; returns once it has."""
        ...

    def remove(self) -> None:
        """Stop it and take ``file`` away."""
        ...

    def advice(self) -> str:
        """What its user should know of when the service runs, a sentence; "" for nothing."""
        ...

    def last_words(self, lines: int) -> list[str]:
        """What the server wrote outside of its log, at most so many lines: why it could not start, mostly."""
        ...

    def log_command(self, lines: int, *, follow: bool, log: Path | None) -> list[str]:
        """The command that shows the end of the log: of the file ``log``, if that is where it goes."""
        ...


def program_of(settings: Settings, words: Sequence[str], environment: Mapping[str, str], log: Path | None) -> Program:
    """The server with ``words`` for flags, which make ``settings``; its log goes to ``log`` if they name none."""
    if log is not None and settings.log_file is None:
        words = [*words, f"--log-file={log}"]
    return Program(
        # Not resolved: the python of a virtual environment is a link that must be called by its own name.
        words=(sys.executable, "-X", "faulthandler", "-m", "app", "serve", "--supervised", *words),
        folder=settings.state_dir / "empty",
        environment=environment,
        end_s=max(_END_AT_LEAST_S, math.ceil(settings.drain_s) + _END_S),
        log=log,
    )


def flags_in(words: Sequence[str]) -> list[str]:
    """The flags that ``program_of`` was given, of the words that it made."""
    if "--supervised" not in words:
        return []
    return [word for word in words[list(words).index("--supervised") + 1 :] if word != f"--log-file={log_file()}"]


def log_file() -> Path:
    """Where the log goes with supervisors that keep none."""
    return platformdirs.user_log_path("whisperd", appauthor=False) / "whisperd.log"


def tail(log: Path, lines: int, *, follow: bool) -> list[str]:
    """The command that shows the end of a log file."""
    return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log)]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of the supervisor's; returns whatever it said. Raises ``ServiceFailed`` if it cannot be run."""
    try:
        return subprocess.run(  # noqa: S603 - our own words, no shell
            command, capture_output=True, text=True, errors="replace", timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceFailed(f"{command[0]} could not be run ({type(error).__name__}).") from None
