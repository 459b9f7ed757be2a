"""The server: may it listen, does it, and is it started with the machine?"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import httpx

from app.doctor.check import Check, failed, ok, skipped
from app.errors import InvalidRequest
from app.settings import Settings, exposed

#: launchd's name for the agent (deploy/launchd), and systemd's for the unit.
LAUNCHD, SYSTEMD = "io.whisperd", "whisperd.service"
_LAUNCHD_INSTALL = "deploy/launchd/README.md says how to have it start with the Mac."
_ANSWER_S = 2
_COMMAND_S = 5


def check_server(settings: Settings) -> Iterator[Check]:
    yield _key(settings)
    yield _port(settings)
    yield _service()


def _key(settings: Settings) -> Check:
    try:
        count = len(settings.keyring.keys)
    except InvalidRequest as error:
        return failed("key", error.message, "Mend the file, or remove it and make new keys with `whisperd keys add`.")
    key = "No key is set." if not count else "A key is set." if count == 1 else f"{count} keys are set."
    if not exposed(settings.host):
        return ok("key", f"{key} {settings.host} is reached from this machine only.")
    if not count and not settings.no_auth:
        return failed(
            "key",
            f"{key} {settings.host} is reached from the network: the server will not start.",
            "Make a key with `whisperd keys add NAME`, or say --no-auth to let everybody in.",
        )
    return ok("key", f"{key} {settings.host} is reached from the network{'' if count else ', by everybody'}.")


def _port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    problem = _cannot_listen(settings)
    # Asked of a port that could be had too: macOS gives 127.0.0.1 to whoever asks, though another listens everywhere.
    if (problem is None or problem.errno == errno.EADDRINUSE) and (served := _served(settings)):
        return ok("port", f"{where}: {served}")
    if problem is None:
        return ok("port", f"{where} is free; no server runs there.")
    if problem.errno == errno.EADDRINUSE:
        remedy = f"Stop what is there (`lsof -nP -i :{settings.port}` names it), or choose another: --port."
        return failed("port", f"{where} is in use, and no whisperd answers there.", remedy)
    remedy = "Choose a port above 1023: --port."
    if problem.errno != errno.EACCES:
        remedy = "Choose an address of this machine: --host."
    return failed("port", f"{where} cannot be listened on ({problem.strerror}).", remedy)


def _cannot_listen(settings: Settings) -> OSError | None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return error
    return None


def _served(settings: Settings) -> str:
    """What a whisperd says that listens there already. No proxy of the environment's is asked for this machine."""
    try:
        response = httpx.get(f"{settings.url}/ready", timeout=_ANSWER_S, verify=settings.trust, trust_env=False)
        server = response.headers.get("server", "")
        if not server.startswith("whisperd/"):
            return ""
        if response.is_success:
            return f"{server} runs and is ready."
        return f"{server} runs, and is not ready: {response.json()['error']['message']}"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return ""


def _service() -> Check:
    if shutil.which("launchctl"):
        return _launchd(_run(["launchctl", "print", f"gui/{os.getuid()}/{LAUNCHD}"]))
    if shutil.which("systemctl"):
        return _systemd(_run(["systemctl", "--user", "show", SYSTEMD, "--property=LoadState,ActiveState"]))
    return skipped("service", "Neither launchd nor systemd is here.")


def _launchd(said: str) -> Check:
    # The first is the agent's own; its coalitions, further down, have a state too.
    lines = (line.strip().partition(" = ") for line in said.splitlines())
    state = next((value for key, _, value in lines if key == "state"), "")
    return _standing(known=bool(said), running=state == "running", state=state, install=_LAUNCHD_INSTALL)


def _systemd(said: str) -> Check:
    lines = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    known, state = lines.get("LoadState") == "loaded", lines.get("ActiveState", "")
    return _standing(known=known, running=state == "active", state=state)


def _standing(*, known: bool, running: bool, state: str, install: str = "") -> Check:
    if not known:
        return skipped("service", "Not installed: the server starts when you start it.", install)
    if running:
        return ok("service", "Installed and running.")
    return failed(
        "service", f"Installed, and not running ({state or 'no state'}).", "Its log says why; start it again."
    )


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
