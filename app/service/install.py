"""Installing the service: what would keep it from starting is found out before anything is changed."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from app import whole_file
from app.service.program import Program, Supervisor
from app.settings import SettingsError

#: Folders that macOS keeps from agents until somebody allows it at the screen.
_KEPT_FROM_AGENTS = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")
_TRY_S = 120
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


def check_place() -> None:
    """Refuse to install for another user, or from where an agent may not read. Raises ``SettingsError``."""
    home = Path.home()
    if home.stat().st_uid != os.getuid():
        raise SettingsError(f"{home} is another user's: install the service as yourself, without sudo.")
    for name in _KEPT_FROM_AGENTS:
        if sys.platform == "darwin" and Path(sys.prefix).is_relative_to(home / name):
            raise SettingsError(
                f"whisperd is installed in {sys.prefix}, and macOS lets no agent read in {home / name}: move it "
                "elsewhere in your home folder."
            )


def try_out(program: Program) -> None:
    """Run the program as the supervisor will, but only to check its settings. Raises ``SettingsError`` with what it
    says.
    """
    for folder in (program.folder.parent, program.folder, *([program.log.parent] if program.log else [])):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {"HOME": str(Path.home()), "USER": getpass.getuser(), "PATH": _PATH, **program.environment}
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            [*program.words, "--check"],
            cwd=program.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TRY_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"The server cannot be run as a service ({error}).") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise SettingsError(said[-1].removeprefix("whisperd: "))


def write(supervisor: Supervisor, program: Program) -> bool:
    """Put the supervisor's file in its place; returns whether that changes it. A service that runs is stopped first."""
    text = supervisor.render(program)
    file = supervisor.file
    if file.exists() and file.read_bytes() == text:
        return False
    supervisor.stop()
    whole_file.write(file, text)
    return True
