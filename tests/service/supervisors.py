"""Stand-ins for launchctl and systemctl that really run what they are given: ``python supervisors.py launchctl WORDS``.

They keep to what the real ones do where that has bitten others: the program starts with nothing of the caller's
environment, ``bootout`` returns before the agent is gone, ``bootstrap`` fails with 5 for a while after it. Each call is
a line of ``calls`` in the folder that ``SUPERVISORS`` names. Waits between restarts are a thirtieth.
"""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

FOLDER = Path(os.environ.get("SUPERVISORS", "."))
JOB = FOLDER / "job.json"
#: Calls of bootstrap that fail after a bootout.
SETTLING = FOLDER / "settling"
#: There if nobody is logged in at the screen.
HEADLESS = FOLDER / "headless"
UID = os.getuid()


def say(code: int, text: str = "") -> NoReturn:
    print(text, file=sys.stderr if code else sys.stdout, end="\n" if text else "")
    sys.exit(code)


def job() -> dict[str, Any]:
    try:
        return json.loads(JOB.read_text())
    except (OSError, ValueError):
        return {}


def note(**facts: object) -> None:
    draft = JOB.with_suffix(".draft")
    draft.write_text(json.dumps(job() | facts))
    draft.replace(JOB)


def launch(spec: dict[str, Any]) -> None:
    """Run the program in a supervisor of its own, which outlives this call."""
    (FOLDER / "spec.json").write_text(json.dumps(spec))
    JOB.write_text(json.dumps({"state": "spawn scheduled", "runs": 0, "label": spec["label"]}))
    subprocess.Popen(
        [sys.executable, __file__, "supervise"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while "supervisor" not in job():
        time.sleep(0.02)


def supervise() -> None:
    """Keep the program running as its ``spec`` says, until SIGTERM."""
    spec = json.loads((FOLDER / "spec.json").read_text())
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    note(supervisor=os.getpid())
    home = {name: os.environ[name] for name in ("HOME", "USER", "TMPDIR") if name in os.environ}
    while not told:
        with Path(spec["out"]).open("ab") as out:
            process = subprocess.Popen(
                spec["words"], cwd=spec["folder"], env=home | spec["environment"], umask=spec["umask"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        note(state="running", pid=process.pid, runs=job()["runs"] + 1)
        while process.poll() is None and not told:
            time.sleep(0.05)
        if told:
            process.terminate()
            try:
                process.wait(spec["end_s"])
            except subprocess.TimeoutExpired:
                process.kill()
                (FOLDER / "killed").touch()
            break
        note(state="spawn scheduled" if process.returncode else "not running", pid=None, ended=process.returncode)
        until = time.monotonic() + spec["throttle_s"] / 30
        while not told and (process.returncode == 0 or time.monotonic() < until):
            time.sleep(0.05)
    time.sleep(0.5)  # launchd takes its time
    if spec["kind"] == "launchd":
        SETTLING.write_text("3")
    JOB.unlink()


def bootstrap(domain: str, path: str) -> NoReturn:
    with contextlib.suppress(OSError):
        left = int(SETTLING.read_text())
        if left:
            SETTLING.write_text(str(left - 1))
            say(5, "Bootstrap failed: 5: Input/output error")
    if job():
        say(37, "Bootstrap failed: 37: Operation already in progress")
    plist = plistlib.loads(Path(path).read_bytes())
    session = plist.get("LimitLoadToSessionType", "Aqua")
    if HEADLESS.exists() and domain.startswith("gui/"):
        say(125, "Bootstrap failed: 125: Domain does not support specified action")
    if (session == "Background") != domain.startswith("user/"):
        say(5, "Bootstrap failed: 5: Input/output error")
    assert plist["KeepAlive"] == {"SuccessfulExit": False}, "the only one that this one can"
    launch(
        {
            "kind": "launchd",
            "label": f"{domain}/{plist['Label']}",
            "words": plist["ProgramArguments"],
            "folder": plist["WorkingDirectory"],
            "environment": plist["EnvironmentVariables"],
            "umask": plist["Umask"],
            "out": plist["StandardErrorPath"],
            "end_s": plist["ExitTimeOut"],
            "throttle_s": plist["ThrottleInterval"],
        }
    )
    say(0)


def print_target(target: str) -> NoReturn:
    if target in (f"gui/{UID}", f"user/{UID}"):
        if HEADLESS.exists() and target.startswith("gui/"):
            say(125, "Could not print domain: 125: Domain does not support specified action")
        say(0, f"{target} = {{\n\ttype = login\n}}")
    known = job()
    if known.get("label") != target:
        say(113, f'Bad request.\nCould not find service "{target}" in domain for user gui: {UID}')
    ended = known.get("ended", "(never exited)")
    pid = f"\tpid = {known['pid']}\n" if known.get("pid") else ""
    say(
        0,
        f"{target} = {{\n\tactive count = 1\n\ttype = LaunchAgent\n\tstate = {known['state']}\n\n"
        f"\truns = {known['runs']}\n{pid}\tlast exit code = {ended}\n\n"
        "\tresource coalition = {\n\t\tstate = active\n\t\tpid = 1\n\t}\n}",
    )


def launchctl(words: list[str]) -> NoReturn:
    match words:
        case ["print", target]:
            print_target(target)
        case ["enable", _]:
            say(0)
        case ["bootstrap", domain, path]:
            bootstrap(domain, path)
        case ["bootout", target]:
            if job().get("label") != target:
                say(3, "Boot-out failed: 3: No such process")
            os.kill(job()["supervisor"], signal.SIGTERM)
            say(0)
        case ["kickstart", _]:
            say(0)
    say(64, f"launchctl: no such words: {words}")


def unquoted(line: str) -> list[str]:
    """The words of a line by systemd.syntax(7) and systemd.service(5), as far as our units go."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    return [re.sub(r"\\(.)", r"\1", word).replace("$$", "$").replace("%%", "%") for word in words]


def start_unit() -> NoReturn:
    if job().get("state") == "running":
        say(0)
    text = (Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "whisperd.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert (unit["Restart"], unit["KillMode"]) == ("on-failure", "mixed"), "the only ones that this one can"
    launch(
        {
            "kind": "systemd",
            "label": "whisperd.service",
            "words": unquoted(unit["ExecStart"]),
            "folder": unit["WorkingDirectory"].replace("%%", "%"),
            "environment": dict(word.split("=", 1) for word in unquoted(unit["Environment"])),
            "umask": int(unit["UMask"], 8),
            "out": str(FOLDER / "journal"),
            "end_s": int(unit["TimeoutStopSec"]),
            "throttle_s": int(unit["RestartSec"]),
        }
    )
    say(0)


def stop_unit() -> None:
    if known := job():
        os.kill(known["supervisor"], signal.SIGTERM)
        while JOB.exists():
            time.sleep(0.05)


def systemctl(words: list[str]) -> NoReturn:
    unit = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "whisperd.service"
    match words:
        case ["--user", "daemon-reload"]:
            say(0)
        case ["--user", "reset-failed" | "stop", "whisperd.service"]:
            if not unit.exists():
                say(5, f"Failed to {words[1]} whisperd.service: Unit whisperd.service not loaded.")
            if words[1] == "stop":
                stop_unit()
            say(0)
        case ["--user", "enable", "whisperd.service"]:
            (FOLDER / "enabled").touch()
            say(0)
        case ["--user", "disable", "--now", "whisperd.service"]:
            stop_unit()
            (FOLDER / "enabled").unlink(missing_ok=True)
            say(0)
        case ["--user", "start", "whisperd.service"]:
            start_unit()
        case ["--user", "show", "whisperd.service", _]:
            known, loaded = job(), "loaded" if unit.exists() else "not-found"
            active, sub = {"running": ("active", "running"), "spawn scheduled": ("activating", "auto-restart")}.get(
                known.get("state", ""), ("inactive", "dead")
            )
            ended = "exit-code" if known.get("ended") else "success"
            say(0, f"LoadState={loaded}\nActiveState={active}\nSubState={sub}\nMainPID={known.get('pid') or 0}\n"
                   f"Result={ended}")  # fmt: skip
    say(64, f"systemctl: no such words: {words}")


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program == "supervise":
        supervise()
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps([program, *rest]) + "\n")
    if program == "loginctl":
        say(0, "yes" if (FOLDER / "lingers").exists() else "no")
    {"launchctl": launchctl, "systemctl": systemctl}[program](rest)
