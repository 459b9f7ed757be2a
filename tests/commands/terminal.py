"""A command with a terminal of its own, as somebody sits before it."""

from __future__ import annotations

import contextlib
import os
import pty
import sys


class Terminal:
    """Runs ``whisperd`` with ``words``; what it has shown so far is ``shown``."""

    def __init__(self, *words: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "app", *words]
        self._process, self._terminal = pty.fork()
        if not self._process:
            os.execve(sys.executable, command, {**os.environ, **(environment or {})})  # noqa: S606 - in place of the fork
        self.shown = b""

    def read_until(self, said: bytes, times: int = 1) -> None:
        """Read until ``said`` was shown so often."""
        while self.shown.count(said) < times:
            self.shown += os.read(self._terminal, 4096)

    def end_with(self, typed: bytes) -> int:
        """Type something that ends the command, read what it still shows, and return its exit code."""
        os.write(self._terminal, typed)
        with contextlib.suppress(OSError):  # what Linux says when the other side of a terminal has closed
            while chunk := os.read(self._terminal, 4096):
                self.shown += chunk
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
