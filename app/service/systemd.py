"""The service as systemd knows it: a unit of this user, ``systemd.service(5)`` and ``systemctl(1)``; its log is the
journal's, unless the settings name a file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import platformdirs

from app.service.program import TEMPLATES, Program, ServiceFailed, State, run, tail

UNIT = "whisperd.service"
_STATE = ("LoadState", "ActiveState", "SubState", "MainPID", "Result")
#: What systemctl says of a unit that it does not know.
_NOT_LOADED = "not loaded"
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Systemd:
    name = "systemd"

    def __init__(self) -> None:
        self.file = platformdirs.user_config_path() / "systemd" / "user" / UNIT
        self.log: Path | None = None

    def render(self, program: Program) -> bytes:
        environment = {"PATH": _PATH, **program.environment}
        text = (TEMPLATES / UNIT).read_text("utf-8")
        for word, value in {
            "@WORDS@": " ".join(_quoted(each).replace("$", "$$") for each in program.words),
            "@FOLDER@": str(program.folder).replace("%", "%%"),
            "@ENVIRONMENT@": " ".join(_quoted(f"{name}={value}") for name, value in environment.items()),
            "@END_S@": str(program.end_s),
        }.items():
            text = text.replace(word, value)
        return text.encode()

    def words(self) -> tuple[str, ...]:
        try:
            lines = self.file.read_text("utf-8").splitlines()
        except (OSError, ValueError):
            return ()
        command = next((line.partition("=")[2] for line in lines if line.startswith("ExecStart=")), "")
        return tuple(word.replace("$$", "$").replace("%%", "%") for word in shlex.split(command))

    def state(self) -> State:
        shown = run(["systemctl", "--user", "show", UNIT, f"--property={','.join(_STATE)}"])
        return state_of(shown.stdout, installed=self.file.exists())

    def start(self) -> None:
        self._do("daemon-reload")
        self._do("reset-failed", UNIT, unless=_NOT_LOADED)
        self._do("enable", UNIT)
        self._do("start", UNIT)

    def stop(self) -> None:
        self._do("stop", UNIT, unless=_NOT_LOADED)

    def remove(self) -> None:
        if self.file.exists():
            self._do("disable", "--now", UNIT)
            self.file.unlink()
            self._do("daemon-reload")

    def advice(self) -> str:
        if "yes" in run(["loginctl", "show-user", "--property=Linger", "--value"]).stdout:
            return ""
        return "It runs while you are logged in; for ever with `loginctl enable-linger`."

    def last_words(self, lines: int) -> list[str]:  # noqa: ARG002 - the journal has them
        return []

    def log_command(self, lines: int, *, follow: bool, log: Path | None) -> list[str]:
        if log is not None:
            return tail(log, lines, follow=follow)
        return ["journalctl", "--user", "--unit", UNIT, "--lines", str(lines), *(["--follow"] if follow else [])]

    def _do(self, *words: str, unless: str = "\n") -> None:
        """Tell systemctl; what it refuses with ``unless`` in its words is so already."""
        done = run(["systemctl", "--user", *words])
        if done.returncode and unless not in done.stderr:
            said = done.stderr.strip() or str(done.returncode)
            raise ServiceFailed(f"`systemctl --user {' '.join(words)}` failed: {said}")


def state_of(said: str, *, installed: bool) -> State:
    """What ``systemctl show`` said of the unit."""
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    pid, active = facts.get("MainPID", ""), facts.get("ActiveState", "")
    return State(
        installed=installed or facts.get("LoadState") == "loaded",
        running=active == "active",
        said=active if facts.get("SubState", active) == active else f"{active}, {facts['SubState']}",
        pid=int(pid) if pid.isdecimal() and pid != "0" else None,
        ended=facts.get("Result", ""),
    )


def _quoted(word: str) -> str:
    """A word as systemd.service(5) has them quoted; ``%`` begins a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
