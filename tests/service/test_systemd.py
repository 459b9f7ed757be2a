"""The unit against systemd itself, where that is here; and what systemctl says, read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.service.program import TEMPLATES, flags_in, program_of
from app.service.systemd import UNIT, Systemd, state_of
from app.settings import Settings
from tests.service.conftest import Machine
from tests.service.supervisors import unquoted

#: What systemd.syntax(7) makes something of.
ODD = ['--model=/models/my "own" 100% model\'s', "--state-dir=/home/ada/$HOME and \\n", "--keep-alive=-1"]


@pytest.fixture
def systemd(machine_with: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> Systemd:
    machine = machine_with("systemctl")
    monkeypatch.setenv("XDG_CONFIG_HOME", machine.environment["XDG_CONFIG_HOME"])
    return Systemd()


def render(systemd: Systemd, *words: str, state: Path = Path("/home/ada/state")) -> str:
    program = program_of(Settings(state_dir=state, api_key="secret-secret"), words, {"HF_HOME": "/100% hub"}, None)
    return systemd.render(program).decode()


def test_odd_words_are_read_as_they_were_written(systemd: Systemd) -> None:
    text = render(systemd, *ODD)
    systemd.file.parent.mkdir(parents=True)
    systemd.file.write_text(text)
    assert flags_in(systemd.words()) == ODD, "by us"
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert unquoted(command)[-len(ODD) :] == ODD, "by systemd's rules"
    assert "secret" not in text
    assert not re.findall("@[A-Z_]+@", text)
    assert "--log-file" not in text, "the journal keeps it"


def test_systemd_finds_nothing_wrong_with_it(systemd: Systemd, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not here")
    folder = tmp_path / "100% state"
    (folder / "empty").mkdir(parents=True)
    unit = tmp_path / UNIT
    for text, fine in (
        (render(systemd, *ODD, state=folder), True),
        (render(systemd, state=folder).replace(sys.executable, "/nowhere/python"), False),
        (render(systemd, state=folder).replace("KillMode=mixed", "KillMode=sometimes"), False),
    ):
        unit.write_text(text)
        done = subprocess.run(
            [verify, "--user", "--man=no", "verify", str(unit)],
            env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert (not done.stderr) == fine, done.stderr


@pytest.mark.parametrize(
    ("said", "installed", "running", "word"),
    [
        ("LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=47\nResult=success\n", True, True, "running"),
        ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nMainPID=0\n", True, False, "auto-restart"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n", True, False, "failed"),
        ("LoadState=not-found\nActiveState=inactive\nSubState=dead\n", False, False, "inactive"),
        ("", False, False, ""),
    ],
)
def test_what_systemctl_shows_is_understood(said: str, installed: bool, running: bool, word: str) -> None:
    state = state_of(said, installed=False)
    assert (state.installed, state.running) == (installed, running)
    assert word in state.said
    assert state.pid == (47 if running else None)


def test_the_template_is_shown_in_deploy() -> None:
    shown = Path(__file__).parents[2] / "deploy" / "systemd" / UNIT
    assert shown.read_bytes() == (TEMPLATES / UNIT).read_bytes()
