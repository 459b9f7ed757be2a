"""``whisperd service``: have launchd or systemd start the server with the machine, and see how it stands."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from app.client import Health
from app.commands.flags import add_settings, flags_of
from app.commands.status import EXIT_NOT_RUNNING
from app.doctor.check import Status
from app.doctor.server import check_port, served
from app.service import supervisor_here
from app.service.install import check_place, try_out, write
from app.service.parking import Parking
from app.service.program import Program, ServiceFailed, Supervisor, flags_in, program_of
from app.settings import (
    Settings,
    SettingsError,
    environment_to_keep,
    load_settings,
    settings_in_environment,
    state_dir,
)

#: For so long a start is watched; a server that is ready to listen answers within two seconds.
_START_S = 60.0
#: Not running for so long is no start any more.
_GRACE_S = 5.0
_LOOK_S = 0.3
_EPILOG = """\
The service is yours alone, an agent of launchd on a Mac and a user unit of systemd on Linux: no sudo. It starts when
you log in, again when it fails, and gives up with a reason after five starts that come to nothing.

examples:
  whisperd service install                             by the configuration file and the defaults
  whisperd service install --model small --port 9500   with flags of `whisperd serve`, which it keeps
  whisperd service restart                             after an upgrade, or a change of the configuration
  whisperd service status && whisperd service logs -f
"""


class Service:
    """The service as it is installed, or is to be, with ``flags`` of ``whisperd serve``. Raises ``SettingsError`` where
    there are no such flags.
    """

    def __init__(self, supervisor: Supervisor, flags: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_settings(parser)
        try:
            self._options, unknown = parser.parse_known_args(flags)
        except argparse.ArgumentError as error:
            raise SettingsError(f"The service was installed with other flags ({error}); install it again.") from None
        if unknown:
            raise SettingsError(f"The service was installed with {unknown[0]}, which is no flag; install it again.")
        self.supervisor = supervisor
        self.flags = flags
        self.parking = Parking(state_dir(self._options.state_dir, alone=True))

    @cached_property
    def settings(self) -> Settings:
        """By the flags and the configuration file alone: the service sees no variables. Raises ``SettingsError``."""
        return load_settings(alone=True, **vars(self._options))

    @property
    def program(self) -> Program:
        return program_of(self.settings, self.flags, environment_to_keep(), self.supervisor.log)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    install = actions.add_parser(
        "install",
        help="have it started with each login, and start it now",
        epilog="Flags given here replace those of the last install; without any, those are kept. What would keep the "
        "server from starting is said before anything is changed. Keys are no flags: `whisperd keys add`.",
    )
    add_settings(install)
    install.set_defaults(action=_install)
    for name, line, action in (
        ("uninstall", "stop it and have it started no more; settings, keys, models, jobs and logs stay", _uninstall),
        ("start", "start it, if it does not run", _start),
        ("stop", "let it answer what it holds and end, until the next login or `start`", _stop),
        ("restart", "stop and start: after an upgrade, or a change of the configuration", _restart),
    ):
        actions.add_parser(name, help=line).set_defaults(action=action)
    status = actions.add_parser("status", help=f"how it stands; exit status {EXIT_NOT_RUNNING} if it does not run")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(action=_status)
    logs = actions.add_parser("logs", help="the end of its log")
    logs.add_argument("--lines", "-n", type=int, default=50, metavar="N", help="so many lines (default 50)")
    logs.add_argument("--follow", "-f", action="store_true", help="and what comes, until Ctrl-C")
    logs.set_defaults(action=_logs)


def run(options: argparse.Namespace) -> int:
    supervisor = supervisor_here()
    if supervisor is None:
        raise SettingsError("Neither launchd nor systemd is here; `whisperd serve` starts the server.")
    try:
        return int(options.action(supervisor, options))
    except ServiceFailed as error:
        _say(f"whisperd: {error}")
        return 1


def _installed(supervisor: Supervisor) -> Service:
    words = supervisor.words()
    if not words:
        raise SettingsError("The service is not installed; `whisperd service install` does that.")
    return Service(supervisor, flags_in(words))


def _install(supervisor: Supervisor, options: argparse.Namespace) -> int:
    check_place()
    service = Service(supervisor, flags_of(options) or flags_in(supervisor.words()))
    program, before = service.program, supervisor.state()
    if not service.settings.port:
        raise SettingsError("A service wants a port that stays: --port.")
    for name in settings_in_environment():
        _say(f"{name} is set here, and not for the service: give it as a flag, or write it into the configuration.")
    try_out(program)
    if not before.running:
        _check_port(service.settings)
    changed = write(supervisor, program)
    if before.running and not changed:
        _say(f"Installed already. {_answer(service.settings)} After an upgrade: `whisperd service restart`.")
        return 0
    code = _begin(service)
    if advice := supervisor.advice():
        _say(advice)
    return code


def _uninstall(supervisor: Supervisor, _: argparse.Namespace) -> int:
    if not supervisor.state().installed:
        _say("The service is not installed.")
        return 0
    supervisor.remove()
    _say("The service is gone. Settings, keys, models, jobs and logs are where they were.")
    return 0


def _start(supervisor: Supervisor, _: argparse.Namespace) -> int:
    service = _installed(supervisor)
    if supervisor.state().running:
        _say(f"It runs already. {_answer(service.settings)}")
        return 0
    return _begin(service)


def _stop(supervisor: Supervisor, _: argparse.Namespace) -> int:
    _installed(supervisor)
    supervisor.stop()
    _say("Stopped, until the next login or `whisperd service start`.")
    return 0


def _restart(supervisor: Supervisor, _: argparse.Namespace) -> int:
    service = _installed(supervisor)
    service.settings  # noqa: B018 - what is wrong with them is said while the old one runs
    supervisor.stop()
    return _begin(service)


def _status(supervisor: Supervisor, options: argparse.Namespace) -> int:
    state, facts = supervisor.state(), {"supervisor": supervisor.name}
    if words := supervisor.words():
        service = Service(supervisor, flags_in(words))
        facts |= {"reason": service.parking.reason, "flags": " ".join(service.flags), "file": str(supervisor.file)}
        try:
            facts |= {"url": service.settings.url, "log": str(_log_of(service) or "`whisperd service logs`")}
            facts |= {"server": _answer(service.settings) if state.running else ""}
        except SettingsError as error:
            facts["reason"] = facts["reason"] or str(error)
    if options.json:
        print(json.dumps({**asdict(state), **facts}, indent=1))
    elif not state.installed:
        print("Not installed; `whisperd service install` does that.")
    else:
        pid = f", process {state.pid}" if state.running else f"; it ended: {state.ended}" if state.ended else ""
        print(f"service   {state.said or 'not loaded'}{pid} ({supervisor.name})")
        for name in ("server", "url", "reason", "flags", "file", "log"):
            if facts.get(name):
                print(f"{name:9} {facts[name]}")
    return 0 if state.running else EXIT_NOT_RUNNING


def _logs(supervisor: Supervisor, options: argparse.Namespace) -> int:
    service = _installed(supervisor)
    for line in supervisor.last_words(options.lines):
        print(line, flush=True)
    log = None
    with contextlib.suppress(SettingsError):
        log = _log_of(service)
    command = supervisor.log_command(options.lines, follow=options.follow, log=log)
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own words, no shell


def _log_of(service: Service) -> Path | None:
    return service.settings.log_file or service.supervisor.log


def _check_port(settings: Settings) -> None:
    if answer := served(settings):
        raise SettingsError(f"{settings.url}: {answer.says} It is not the service: stop it first.")
    if (check := check_port(settings)).status is Status.FAILED:
        raise SettingsError(f"{check.found} {check.remedy}")


def _begin(service: Service) -> int:
    """Start the service and wait until it is ready; returns the exit code."""
    supervisor, settings = service.supervisor, service.settings
    service.parking.forget()
    supervisor.start()
    begun = seen = time.monotonic()
    answer: Health | None = None
    while time.monotonic() - begun < _START_S and not (answer and answer.ready):
        time.sleep(_LOOK_S)
        answer = served(settings)
        if answer or supervisor.state().running:
            seen = time.monotonic()
        if service.parking.reason or time.monotonic() - seen > _GRACE_S:
            _say(f"It does not start: {service.parking.reason or '`whisperd service logs` has its last words.'}")
            return 1
    if answer is None:
        _say("It runs, and does not answer yet (a download takes its time); `whisperd service logs -f` follows it.")
    else:
        _say(f"{answer.says} It starts with each login. Its page is {settings.url}/")
    return 0


def _answer(settings: Settings) -> str:
    answer = served(settings)
    return answer.says if answer else "It does not answer yet."


def _say(text: str) -> None:
    print(text, file=sys.stderr)
