"""The service as macOS's launchd knows it: an agent of this user, ``launchd.plist(5)`` and ``launchctl(1)``.

What launchctl does not say in its manual: ``bootout`` returns before the agent is gone, and for seconds after that
``bootstrap`` fails with 5; ``kickstart -k`` kills without SIGTERM; without a login at the screen there is no ``gui``
domain, and agents live in ``user``.
"""

from __future__ import annotations

import os
import plistlib
import time
from pathlib import Path
from typing import Any

from app.service.program import TEMPLATES, Program, ServiceFailed, State, log_file, run, tail

LABEL = "io.whisperd"
#: For so long bootstrap is tried again while launchd lets go of the agent before.
_SETTLE_S = 20.0
_LOOK_S = 0.5
#: What bootstrap says then: input/output error, already in progress.
_BUSY = (5, 37)


class Launchd:
    name = "launchd"

    def __init__(self) -> None:
        self.file = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.log: Path | None = log_file()

    def render(self, program: Program) -> bytes:
        with (TEMPLATES / f"{LABEL}.plist").open("rb") as file:
            plist = plistlib.load(file)
        plist = _filled(plist, {"@FOLDER@": str(program.folder), "@LAST_WORDS@": str(_last_words())})
        plist["ProgramArguments"] = list(program.words)
        plist["ExitTimeOut"] = program.end_s
        plist["EnvironmentVariables"] |= program.environment
        if self._domain() == _domain("user"):
            plist["LimitLoadToSessionType"] = "Background"
        return plistlib.dumps(plist, sort_keys=False)

    def words(self) -> tuple[str, ...]:
        try:
            return tuple(plistlib.loads(self.file.read_bytes()).get("ProgramArguments", ()))
        except (OSError, plistlib.InvalidFileException, ValueError):
            return ()

    def state(self) -> State:
        return state_of(self._print(), installed=self.file.exists())

    def start(self) -> None:
        domain, until = self._domain(), time.monotonic() + _SETTLE_S
        target = f"{domain}/{LABEL}"
        run(["launchctl", "enable", target])  # somebody may have disabled it, which outlives the plist
        while True:
            done = run(["launchctl", "bootstrap", domain, str(self.file)])
            if done.returncode == 0:
                return
            if state_of(self._print(), installed=True).said:
                # It is known already. With RunAtLoad it runs, unless it ended by itself.
                run(["launchctl", "kickstart", target])
                return
            if done.returncode not in _BUSY or time.monotonic() > until:
                raise ServiceFailed(f"launchctl did not load {self.file}: {done.stderr.strip() or done.returncode}")
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        # Since it was started, somebody may have logged in at the screen, or out.
        for domain in (_domain("gui"), _domain("user")):
            if _said(f"{domain}/{LABEL}"):
                run(["launchctl", "bootout", f"{domain}/{LABEL}"])
                self._wait_until_gone(f"{domain}/{LABEL}")

    def remove(self) -> None:
        self.stop()
        self.file.unlink(missing_ok=True)

    def advice(self) -> str:
        return ""

    def log_command(self, lines: int, *, follow: bool, log: Path | None) -> list[str]:
        return tail(log or log_file(), lines, follow=follow)

    def last_words(self, lines: int) -> list[str]:
        try:
            return _last_words().read_text("utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    def _wait_until_gone(self, target: str) -> None:
        ends = plistlib.loads(self.file.read_bytes()).get("ExitTimeOut", 0) if self.file.exists() else 0
        until = time.monotonic() + ends + _SETTLE_S
        while _said(target):
            if time.monotonic() > until:
                raise ServiceFailed(f"launchd has not let go of {target}; try again in a minute.")
            time.sleep(_LOOK_S)

    def _print(self) -> str:
        return _said(f"{_domain('gui')}/{LABEL}") or _said(f"{_domain('user')}/{LABEL}")

    def _domain(self) -> str:
        """Where the user's agents live: where somebody is logged in at the screen, or else without one."""
        return _domain("gui") if _said(_domain("gui")) else _domain("user")


def state_of(said: str, *, installed: bool) -> State:
    """What ``launchctl print`` said of an agent; "" where it knows none."""
    facts: dict[str, str] = {}
    for line in said.splitlines():
        key, equals, value = line.strip().partition(" = ")
        if equals:
            facts.setdefault(key, value)  # the first are the agent's own; its coalitions, further down, have them too
    state, pid = facts.get("state", ""), facts.get("pid", "")
    return State(
        installed=installed or bool(said),
        running=state == "running",
        said=state,
        pid=int(pid) if pid.isdecimal() else None,
        ended=facts.get("last exit code", ""),
    )


def _said(target: str) -> str:
    done = run(["launchctl", "print", target])
    return done.stdout if done.returncode == 0 else ""


def _last_words() -> Path:
    return log_file().with_name("last-words.log")


def _domain(kind: str) -> str:
    return f"{kind}/{os.getuid()}"


def _filled(value: Any, words: dict[str, str]) -> Any:
    """``value`` with the template's words in it replaced."""
    if isinstance(value, dict):
        return {key: _filled(each, words) for key, each in value.items()}
    return words.get(value, value) if isinstance(value, str) else value
