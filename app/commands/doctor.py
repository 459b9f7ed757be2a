"""``whisperd doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import json
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
    hardware = detect()
    found: list[Check] = []
    for check in _checks(options, hardware):
        found.append(check)
        if not options.json:
            print(_line(check), flush=True)
    broken = sum(check.status is Status.FAILED for check in found)
    if options.json:
        print(json.dumps({"machine": asdict(hardware), "checks": [asdict(check) for check in found]}, indent=1))
    else:
        warnings = sum(check.status is Status.WARNING for check in found)
        print(f"\n{_last(broken, warnings)}")
    return 1 if broken else 0


def _checks(options: argparse.Namespace, hardware: Hardware) -> Iterator[Check]:
    yield from check_machine(hardware)
    try:
        settings = settings_of(options)
    except SettingsError as error:
        yield failed("settings", str(error), "Correct that setting; the checks go on with the defaults.")
        settings = Settings.model_construct()
    else:
        yield ok("settings", f"{settings.choice.reason}.")
    yield from check_backends(settings, hardware, quick=options.quick)
    yield from check_models(settings, hardware, quick=options.quick)
    yield from check_folders(settings)
    yield from check_server(settings)


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
