"""The plist against launchd.plist(5), key by key; and what launchctl says, read."""

from __future__ import annotations

import plistlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.service import program as programs
from app.service.launchd import LABEL, Launchd, state_of
from app.service.program import Program, flags_in, program_of
from app.settings import Settings, load_settings
from tests.service.conftest import Machine

ROOT = Path(__file__).parents[2]

#: launchd.plist(5) of macOS 15, all that is not marked deprecated or internal there. A set holds the values allowed, a
#: list the type of each element, a dict those of its keys ("*" is any).
SCHEMA: dict[str, Any] = {
    "Label": str,
    "Disabled": bool,
    "UserName": str,
    "GroupName": str,
    "inetdCompatibility": {"Wait": bool},
    "LimitLoadToHardware": {"*": [str]},
    "LimitLoadFromHardware": {"*": [str]},
    "LimitLoadToSessionType": {"Aqua", "Background", "LoginWindow", "StandardIO", "System"},
    "Program": str,
    "BundleProgram": str,
    "ProgramArguments": [str],
    "EnableGlobbing": bool,
    "EnableTransactions": bool,
    "EnablePressuredExit": bool,
    "KeepAlive": {
        "SuccessfulExit": bool,
        "Crashed": bool,
        "OtherJobEnabled": {"*": bool},
        "PathState": {"*": bool},
        "NetworkState": bool,
    },
    "RunAtLoad": bool,
    "RootDirectory": str,
    "WorkingDirectory": str,
    "EnvironmentVariables": {"*": str},
    "Umask": int,
    "TimeOut": int,
    "ExitTimeOut": int,
    "ThrottleInterval": int,
    "InitGroups": bool,
    "WatchPaths": [str],
    "QueueDirectories": [str],
    "StartOnMount": bool,
    "StartInterval": int,
    "StandardInPath": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "Debug": bool,
    "WaitForDebugger": bool,
    "Nice": int,
    "ProcessType": {"Background", "Standard", "Adaptive", "Interactive"},
    "AbandonProcessGroup": bool,
    "LowPriorityIO": bool,
    "LowPriorityBackgroundIO": bool,
    "MaterializeDatalessFiles": bool,
    "LaunchOnlyOnce": bool,
    "SessionCreate": bool,
    "LegacyTimers": bool,
    "AssociatedBundleIdentifiers": [str],
}
_LIMITS = "Core CPU Data FileSize MemoryLock NumberOfFiles NumberOfProcesses ResidentSetSize Stack"
for _kind in ("SoftResourceLimits", "HardResourceLimits"):
    SCHEMA[_kind] = dict.fromkeys(_LIMITS.split(), int)


def fits(value: object, wanted: Any) -> bool:
    if isinstance(wanted, set):
        return value in wanted
    if isinstance(wanted, list):
        return isinstance(value, list) and all(fits(each, wanted[0]) for each in value)
    if isinstance(wanted, dict):
        named = isinstance(value, dict) and all(
            fits(each, wanted.get(key, wanted.get("*"))) for key, each in value.items()
        )
        return bool(value) and named
    return wanted is not None and type(value) is wanted


@pytest.fixture
def launchd(machine_with: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> Launchd:
    machine = machine_with("launchctl")
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    return Launchd()


def program(launchd: Launchd, *words: str, **fields: Any) -> Program:
    return program_of(
        Settings(state_dir=Path("/home/ada/state"), **fields), words, {"HF_HOME": "/disk/hub"}, launchd.log
    )


def rendered(launchd: Launchd, *words: str, **fields: Any) -> dict[str, Any]:
    return plistlib.loads(launchd.render(program(launchd, *words, **fields)))


def test_every_key_is_documented_and_has_its_type(launchd: Launchd) -> None:
    plist = rendered(launchd, "--port=9500")
    wrong = {key: value for key, value in plist.items() if not fits(value, SCHEMA.get(key))}
    assert not wrong
    assert len(plist) > 10


def test_the_schema_would_notice() -> None:
    assert not fits("Urgent", SCHEMA["ProcessType"])
    assert not fits(True, SCHEMA["KeepAlive"])
    assert not fits(1, SCHEMA["RunAtLoad"])
    assert not fits({"NumberOfFiles": "4096"}, SCHEMA["SoftResourceLimits"])
    assert not fits({"Sometimes": True}, SCHEMA["KeepAlive"])
    assert not fits([1], SCHEMA["ProgramArguments"])


def test_what_each_key_must_say(launchd: Launchd) -> None:
    plist = rendered(launchd, "--port=9500")
    words = plist["ProgramArguments"]
    assert plist["Label"] == LABEL == launchd.file.stem, "the file is named for the label"
    assert Path(words[0]).is_absolute()
    assert words[words.index("serve") :] == ["serve", "--supervised", "--port=9500", f"--log-file={launchd.log}"]
    assert plist["KeepAlive"] == {"SuccessfulExit": False}, "again after a failure, not after an orderly end"
    assert plist["RunAtLoad"] is True
    assert plist["ProcessType"] == "Interactive", "others are throttled"
    assert plist["ThrottleInterval"] >= 10
    assert plist["Umask"] == 0o077
    assert plist["WorkingDirectory"] == "/home/ada/state/empty"
    assert "/opt/homebrew/bin" in plist["EnvironmentVariables"]["PATH"].split(":")
    assert plist["EnvironmentVariables"]["HF_HOME"] == "/disk/hub"
    assert plist["StandardErrorPath"] != str(launchd.log), "the log is rotated, under nobody's feet"
    assert "LimitLoadToSessionType" not in plist


@pytest.mark.parametrize(("drain_s", "at_least"), [(0, 20), (5, 15), (60, 65)])
def test_it_is_killed_later_than_it_is_done_draining(launchd: Launchd, drain_s: float, at_least: int) -> None:
    assert rendered(launchd, drain_s=drain_s)["ExitTimeOut"] >= at_least


def test_no_key_and_no_template_word_stands_in_it(launchd: Launchd) -> None:
    text = launchd.render(program(launchd, api_key="secret-secret", admin_key="secret-secret")).decode()
    assert "secret" not in text
    assert "@" not in text


def test_a_log_file_of_ones_own_is_left_alone(launchd: Launchd) -> None:
    words = rendered(launchd, log_file="/var/log/mine")["ProgramArguments"]
    assert not [word for word in words if word.startswith("--log-file")]


def test_what_was_installed_can_be_read_again(launchd: Launchd) -> None:
    flags = ["--model=/models/my model & <co>", "--keep-alive=-1"]
    launchd.file.parent.mkdir(parents=True)
    launchd.file.write_bytes(launchd.render(program(launchd, *flags)))
    assert flags_in(launchd.words()) == flags
    launchd.file.write_text("not a plist")
    assert launchd.words() == ()


def test_without_a_login_at_the_screen_it_lives_in_the_background(launchd: Launchd, tmp_path: Path) -> None:
    (tmp_path / "supervisor" / "headless").touch()
    plist = rendered(launchd)
    assert plist["LimitLoadToSessionType"] == "Background"
    assert fits(plist["LimitLoadToSessionType"], SCHEMA["LimitLoadToSessionType"])


def test_the_template_is_shown_in_deploy_and_is_a_plist() -> None:
    shown = ROOT / "deploy" / "launchd" / f"{LABEL}.plist"
    assert shown.read_bytes() == (programs.TEMPLATES / shown.name).read_bytes()
    with shown.open("rb") as file:
        assert plistlib.load(file)["Label"] == LABEL


#: As macOS 15 prints it: the coalitions have states of their own, behind the agent's.
RUNS = """\
gui/501/io.whisperd = {
\tactive count = 1
\tpath = /Users/ada/Library/LaunchAgents/io.whisperd.plist
\ttype = LaunchAgent
\tstate = running

\tprogram = /Users/ada/whisperd/.venv/bin/whisperd
\targuments = {
\t\t/Users/ada/whisperd/.venv/bin/whisperd
\t\tserve
\t}

\truns = 1
\tpid = 4711
\tlast exit code = (never exited)

\tresource coalition = {
\t\tID = 1348
\t\ttype = resource
\t\tstate = active
\t\tactive count = 1
\t\tname = io.whisperd
\t}

\tspawn type = interactive (4)
}
"""


def test_what_launchctl_prints_is_understood() -> None:
    state = state_of(RUNS, installed=True)
    assert (state.installed, state.running, state.pid, state.ended) == (True, True, 4711, "(never exited)")
    failed = RUNS.replace("state = running", "state = spawn scheduled").replace("\tpid = 4711\n", "")
    state = state_of(failed.replace("(never exited)", "1"), installed=True)
    assert (state.running, state.said, state.pid, state.ended) == (False, "spawn scheduled", None, "1")
    assert not state_of("", installed=False).installed
    assert load_settings(alone=True).port == 9447
