"""The server: may it listen, does it, and is it started with the machine?"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import httpx

from app.doctor.check import Check, failed, ok, skipped
from app.errors import WhisperdError
from app.settings import Settings, exposed, origin

#: launchd's name for the agent (deploy/launchd), and systemd's for the unit.
LAUNCHD, SYSTEMD = "io.whisperd", "whisperd.service"
_ANSWER_S = 2
_COMMAND_S = 5


def check_server(settings: Settings) -> Iterator[Check]:
    yield _key(settings)
    yield _port(settings)
    yield _service()


def _key(settings: Settings) -> Check:
    key = "A key is set." if settings.api_key else "No key is set."
    if not exposed(settings.host):
        return ok("key", f"{key} {settings.host} is reached from this machine only.")
    if settings.api_key is None and not settings.no_auth:
        return failed(
            "key",
            f"{key} {settings.host} is reached from the network: the server will not start.",
            "Set WHISPERD_API_KEY, or say --no-auth to let everybody in.",
        )
    return ok(
        "key", f"{key} {settings.host} is reached from the network{'' if settings.api_key else ', by everybody'}."
    )


def _port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if served := _served(settings):
                return ok("port", f"{where}: {served}")
            return failed(
                "port",
                f"{where} cannot be listened on ({error.strerror}), and no whisperd answers there.",
                "Stop what is there, or choose another: --port.",
            )
    return ok("port", f"{where} is free; no server runs there.")


def _served(settings: Settings) -> str:
    """What a whisperd says that listens there already."""
    host = settings.host if not exposed(settings.host) else "127.0.0.1"
    try:
        response = httpx.get(f"{origin(host, settings.port)}/ready", timeout=_ANSWER_S)
        server = response.headers.get("server", "")
        if not server.startswith("whisperd/"):
            return ""
        if response.is_success:
            return f"{server} runs and is ready."
        return f"{server} runs, and is not ready: {response.json()['error']['message']}"
    except (httpx.HTTPError, ValueError, KeyError, WhisperdError):
        return ""


def _service() -> Check:
    if shutil.which("launchctl"):
        return _launchd(_run(["launchctl", "print", f"gui/{os.getuid()}/{LAUNCHD}"]))
    if shutil.which("systemctl"):
        return _systemd(_run(["systemctl", "--user", "show", SYSTEMD, "--property=LoadState,ActiveState"]))
    return skipped("service", "Neither launchd nor systemd is here.")


def _launchd(said: str) -> Check:
    lines = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in said.splitlines())}
    return _standing(known=bool(said), running=lines.get("state") == "running", state=lines.get("state", ""))


def _systemd(said: str) -> Check:
    lines = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    known, state = lines.get("LoadState") == "loaded", lines.get("ActiveState", "")
    return _standing(known=known, running=state == "active", state=state)


def _standing(*, known: bool, running: bool, state: str) -> Check:
    if not known:
        return skipped("service", "Not installed: the server starts when you start it.", "deploy/launchd shows how.")
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
