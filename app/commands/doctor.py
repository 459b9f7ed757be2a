"""``whisperd doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict

from app.commands.flags import add_settings, settings_of
from app.doctor.backends import check_backends
from app.doctor.check import Check, Status, failed, ok
from app.doctor.machine import check_machine
from app.doctor.models import check_folders, check_models
from app.doctor.server import check_server
from app.hardware import Hardware, detect
from app.log import logger
from app.settings import Settings, SettingsError, wants_colour

_COLOURS = {Status.OK: "32", Status.WARNING: "33", Status.FAILED: "31", Status.SKIPPED: "2"}
_EPILOG = """\
Each backend that is installed transcribes a sample with the bundled toy model, in a process of its own; a server that
runs is not disturbed. The exit status is 1 where something failed; warnings and what was skipped do not count.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--quick", action="store_true", help="leave out the transcriptions and the checksums")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    logger.addHandler(logging.NullHandler())  # a backend that cannot load is a check, and no line of a log besides
    hardware = detect()
    settings, first = _settings(options)
    found: list[Check] = []
    for check in _checks(settings, first, hardware, quick=options.quick):
        found.append(check)
        if not options.json:
            print(_line(check), flush=True)
    broken = sum(check.status is Status.FAILED for check in found)
    if options.json:
        checks = [asdict(check) for check in found]
        shown = {"machine": asdict(hardware), "choice": asdict(settings.choice), "checks": checks}
        print(json.dumps(shown, indent=1))
    else:
        warnings = sum(check.status is Status.WARNING for check in found)
        print(f"\n{_last(broken, warnings)}")
    return 1 if broken else 0


def _settings(options: argparse.Namespace) -> tuple[Settings, Check]:
    """The settings, or the defaults where they cannot be used; and which of these it is."""
    try:
        settings = settings_of(options)
    except SettingsError as error:
        remedy = "Correct that setting; the checks go on with the defaults."
        return Settings.model_construct(), failed("settings", str(error), remedy)
    return settings, ok("settings", f"{settings.choice.reason}.")


def _checks(settings: Settings, first: Check, hardware: Hardware, *, quick: bool) -> Iterator[Check]:
    yield from check_machine(hardware)
    yield first
    yield from check_backends(settings, hardware, quick=quick)
    yield from _readable("models", check_models(settings, hardware, quick=quick))
    yield from check_folders(settings)
    yield from check_server(settings)


def _readable(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """``checks``; what the system keeps from us is a failure among them, and not the end of all."""
    try:
        yield from checks
    except OSError as error:
        found = f"{error.filename} cannot be read ({error.strerror})."
        yield failed(name, found, "Make it readable for you, or choose another folder: --hub-dir, --model.")


def _line(check: Check) -> str:
    mark = check.status.upper() if check.status is Status.FAILED else str(check.status)
    if sys.stdout.isatty() and wants_colour():
        mark = f"\033[{_COLOURS[check.status]}m{mark:<8}\033[0m"
    remedy = f"\n{'':26}-> {check.remedy}" if check.remedy else ""
    return f"{mark:<8}  {check.name:<15} {check.found}{remedy}"


def _last(broken: int, warnings: int) -> str:
    if broken:
        return f"{broken} of these failed; the line under each says what to do."
    return "All is well." if not warnings else "It works; the warnings say what could be better."
