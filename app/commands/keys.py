"""``whisperd keys``: make, list and revoke API keys. A running server follows at once."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from app import keys
from app.commands.flags import add_settings, settings_of
from app.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Give each person or app a key of its own: jobs, results and the queue are seen by the key that made them "
        "alone, and a lost key is revoked without disturbing the others. A running server follows at once."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    addition = actions.add_parser("add", help="make a key and print it, this once")
    addition.add_argument("name", metavar="NAME", help="who or what it is for; shown in metrics, logs and lists")
    addition.add_argument("--admin", action="store_true", help="may download and remove models too")
    addition.add_argument(
        "--max-jobs", type=_count, default=0, metavar="N", help="requests at once, jobs on disk included (default: any)"
    )
    addition.add_argument("--max-rpm", type=_count, default=0, metavar="N", help="requests a minute (default: any)")
    addition.set_defaults(action=_add)

    listing = actions.add_parser("list", help="names and limits; the keys themselves are kept nowhere")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(action=_list)

    revocation = actions.add_parser("revoke", help="take a key away; its next request is a 401")
    revocation.add_argument("name", metavar="NAME")
    revocation.set_defaults(action=_revoke)

    for action in (addition, listing, revocation):
        add_settings(action, {"keys_file"})


def run(options: argparse.Namespace) -> int:
    options.action(settings_of(options), options)
    return 0


def _add(settings: Settings, options: argparse.Namespace) -> None:
    secret = keys.add(
        settings.keys_file, options.name, admin=options.admin, max_jobs=options.max_jobs, max_rpm=options.max_rpm
    )
    print(secret)
    _say(f"This is the key {options.name!r}. It cannot be shown again: put it where it is used now.")


def _list(settings: Settings, options: argparse.Namespace) -> None:
    found = settings.keyring.keys
    if options.json:
        print(json.dumps([{name: value for name, value in asdict(key).items() if name != "digest"} for key in found]))
        return
    if not found:
        _say("There are no keys: a server on this machine alone needs none. `whisperd keys add NAME` makes one.")
        return
    print(f"{'NAME':32} {'MAY':7} {'AT ONCE':>7} {'A MINUTE':>8}  MADE")
    for key in found:
        made = key.created or f"WHISPERD_{'ADMIN' if key.admin else 'API'}_KEY"
        may = "admin" if key.admin else "use"
        print(f"{key.name:32} {may:7} {key.max_jobs or 'any':>7} {key.max_rpm or 'any':>8}  {made}")


def _revoke(settings: Settings, options: argparse.Namespace) -> None:
    keys.revoke(settings.keys_file, options.name)
    _say(f"The key {options.name!r} is revoked.")
    if all(key.admin for key in settings.keyring.keys):
        _say("No key is left: a server for this machine alone answers everybody on it now, one for others nobody.")


def _count(word: str) -> int:
    """A limit of the command line, at least 1."""
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 up")
    return int(word)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
