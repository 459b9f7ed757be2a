"""whisperd as a service of this machine."""

from __future__ import annotations

import shutil

from app.service.launchd import Launchd
from app.service.program import Supervisor
from app.service.systemd import Systemd


def supervisor_here() -> Supervisor | None:
    """The machine's own, None where it has neither."""
    if shutil.which("launchctl"):
        return Launchd()
    return Systemd() if shutil.which("systemctl") else None
