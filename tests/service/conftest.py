"""A machine with a supervisor of its own: home, PATH, and the stand-in of launchctl or systemctl."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import free_port, script_of, wait_for

_STAND_INS = Path(__file__).with_name("supervisors.py")
_ROOT = Path(__file__).parents[2]


@dataclass
class Machine:
    """``home`` has a blank in its name and what else makes trouble in templates; ``folder`` is the stand-in's."""

    home: Path
    folder: Path
    path: str
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": self.path,
            "SUPERVISORS": str(self.folder),
            "XDG_CONFIG_HOME": str(self.home / "config"),
        }

    def whisperd(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *words],
            cwd=self.home,
            env={**self.environment, "PYTHONPATH": str(_ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def service(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.whisperd("service", *words, **environment)

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        """With micro, on this machine's port."""
        return self.service("install", "--port", str(self.port), "--model", "micro", *words)

    def install_fake(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """With the backend that is there at once, on this machine's port."""
        model = script_of(self.home, seconds_per_step=1)
        words = ("--port", str(self.port), "--backend", "fake", "--model", str(model), *words)
        return self.service("install", *words, **environment)

    @property
    def job(self) -> dict[str, Any]:
        """The stand-in's own knowledge of what it runs; empty if nothing."""
        try:
            return json.loads((self.folder / "job.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def end(self) -> None:
        """End what the stand-in started."""
        if not (supervisor := self.job.get("supervisor")):
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(supervisor).terminate()
            wait_for(lambda: not psutil.pid_exists(supervisor) or not self.job, 30, self.folder / "calls")


@pytest.fixture
def machine_with(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    made: list[Machine] = []

    def make(program: str) -> Machine:
        folders = {name: tmp_path / name for name in ('Ada\'s 100% "home" $1', "supervisor", "bin")}
        for each in folders.values():
            each.mkdir()
        home, folder, bin_ = folders.values()
        for name in [program] if program == "launchctl" else [program, "loginctl"]:
            stand_in = bin_ / name
            stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_STAND_INS}" {name} "$@"\n')
            stand_in.chmod(0o755)
        # Without the real ones, but with tail.
        (bin_ / "tail").symlink_to("/usr/bin/tail")
        made.append(Machine(home, folder, f"{bin_}{os.pathsep}/bin" if program == "launchctl" else str(bin_)))
        return made[-1]

    yield make
    for each in made:
        each.end()
