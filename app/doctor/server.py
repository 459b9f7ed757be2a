"""The server: may it listen, does it, and is it started with the machine?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from app.client import Client, Health
from app.doctor.check import Check, failed, ok, skipped
from app.errors import InvalidRequest, WhisperdError
from app.service import supervisor_here
from app.service.program import ServiceFailed
from app.settings import Settings, exposed


def check_server(settings: Settings) -> Iterator[Check]:
    yield _key(settings)
    yield check_port(settings)
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


def check_port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    problem = _cannot_listen(settings)
    # Asked of a port that could be had too: macOS gives 127.0.0.1 to whoever asks, though another listens everywhere.
    if (problem is None or problem.errno == errno.EADDRINUSE) and (answer := served(settings)):
        return ok("port", f"{where}: {answer.says}")
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


def served(settings: Settings) -> Health | None:
    """How the whisperd is that answers where the settings say."""
    try:
        with Client(settings) as client:
            return client.health()
    except WhisperdError:
        return None


def _service() -> Check:
    supervisor = supervisor_here()
    if supervisor is None:
        return skipped("service", "Neither launchd nor systemd is here.")
    try:
        state = supervisor.state()
    except ServiceFailed as error:
        return skipped("service", str(error))
    if not state.installed:
        return skipped(
            "service",
            "Not installed: the server starts when you start it.",
            "`whisperd service install` has it start by itself.",
        )
    if state.running:
        return ok("service", "Installed and running.")
    return failed(
        "service",
        f"Installed, and not running ({state.said or 'not loaded'}).",
        "`whisperd service status` says why, `whisperd service start` starts it.",
    )
