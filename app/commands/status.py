"""``whisperd status``: the running server and its queue, live on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from app.batch.bars import about
from app.client import Client, Health, QueueEntry
from app.commands.flags import add_settings, settings_of
from app.errors import BackendUnavailable, Unauthorized

#: Nothing runs there; what systemctl and init scripts say of a service that does not.
EXIT_NOT_RUNNING = 3
_REDRAW_S = 1.0
#: Characters of a job's bar.
_BAR = 20
#: Put away the screen and the cursor, and bring them back; go to the screen's first line; clear to the end of a line,
#: of the screen (ECMA-48, and xterm's 1049).
_ENTER, _LEAVE = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\033[H", "\033[K", "\033[J"

_EPILOG = """\
The exit code is 0 where a server runs, 3 where none does. With several keys, you see the jobs of the one in
WHISPERD_API_KEY.

examples:
  whisperd status
  whisperd status --json | jq '.queue | length'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--once", action="store_true", help="print once and end, as where there is no terminal")
    form.add_argument("--json", action="store_true", help="print once, as JSON")
    add_settings(parser, {"host", "port", "tls_cert"})


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with Client(settings) as client:
        if not client.runs():
            return _not_running(settings.url, as_json=options.json)
        if options.json:
            print(json.dumps(_raw(settings.url, _facts(client)), indent=1))
        elif options.once or not sys.stdout.isatty():
            print("\n".join(_lines(settings.url, _facts(client))))
        else:
            _live(client, settings.url)
    return 0


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the server says; ``problem`` is why it does not show its ``queue``."""

    health: Health
    queue: list[QueueEntry]
    problem: str = ""


def _facts(client: Client) -> _Facts:
    health = client.health()
    try:
        return _Facts(health, client.queue())
    except Unauthorized as error:
        return _Facts(health, [], error.message)


def _not_running(url: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"url": url, "running": False}))
    else:
        print(f"No whisperd runs at {url}; `whisperd serve` starts one.", file=sys.stderr)
    return EXIT_NOT_RUNNING


def _raw(url: str, facts: _Facts) -> dict[str, Any]:
    queue = None if facts.problem else [asdict(entry) for entry in facts.queue]
    return {"url": url, "running": True, **asdict(facts.health), "queue": queue}


def _live(client: Client, url: str) -> None:
    """Draw the queue every second until Ctrl-C or SIGTERM; what was seen last stays."""
    lines: list[str] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _screen(), contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                lines = _lines(url, _facts(client))
            except BackendUnavailable:
                lines = [f"The server at {url} went away; this goes on when it is back."]
            columns, rows = shutil.get_terminal_size()
            shown = "".join(f"{line[:columns]}{_CLEAR_LINE}\n" for line in lines[: rows - 1])
            sys.stdout.write(f"{_HOME}{shown}{_CLEAR_REST}")
            sys.stdout.flush()
            time.sleep(_REDRAW_S)
    print("\n".join(lines))


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """A screen of our own while the context is open; then the other one is back as it was."""
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _lines(url: str, facts: _Facts) -> list[str]:
    health, details = facts.health, facts.health.details
    state = details.get("state", "ready") if health.ready else f"not ready: {health.reason}"
    lines = [f"whisperd {health.version} at {url}: {state}"]
    if details:
        on = ", ".join(filter(None, [details.get("device"), details.get("precision")]))
        lines.append(f"{details['model']} on {details['backend']}{f' ({on})' if on else ''}")
        lines += [
            f"{each['name']}: {each['state']}, {each['reason']}"
            for each in details["backends"]
            if each["state"] in ("failed", "broken")
        ]
    lines.append("")
    if facts.problem:
        return [*lines, facts.problem]
    return [*lines, *_table(facts.queue)] if facts.queue else [*lines, "Nothing is queued."]


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _table(queue: list[QueueEntry]) -> list[str]:
    now = time.time()
    rows = [("place", "status", "progress", "audio", "ready in", "model", "age")]
    rows += [
        (
            str(entry.position),
            entry.status,
            f"[{'#' * round(_BAR * entry.progress):<{_BAR}}] {entry.progress:4.0%}",
            _length(entry.audio_s) if entry.audio_s else "?",
            "?" if entry.estimated_s is None else about(entry.estimated_s),
            entry.model,
            about(now - entry.created_at),
        )
        for entry in queue
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
