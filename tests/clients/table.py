"""``python -m tests.clients.table > docs/compatibility.md``: run tests/clients and say what came out for each client.

A client is what a test's ``client`` marker names, with where its version is found: ``package`` (installed for
Python), ``npm`` (programs/package.json), ``command`` (its ``--version``), or ``replayed``: the source file that its
requests were written from, where the client itself was not run.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

import app
from tests.clients.conftest import PROGRAMS

HEAD = """# Compatibility

Made by `python -m tests.clients.table > docs/compatibility.md` on {date}: whisperd {version} with faster-whisper and
the bundled model `micro`, Python {python}{node}, {system}. Every row is tests under [tests/clients](../tests/clients),
which run in CI; answers are held against JSON schemas written from OpenAI's specification, not against an SDK's models.
"""

RUN = """
## Clients that were run

| client | version | what was run | passed | failed | not run |
|---|---|---|---|---|---|
"""

REPLAYED = """
## Applications whose requests were replayed

The applications themselves were not run. Their requests were written from what is known of the source file named, and
the answers are read as it reads them.

| application | source | what was sent | passed | failed | not run |
|---|---|---|---|---|---|
"""

NOT_RUN = """
## Not run

* The realtime (WebSocket) API: whisperd has none yet, so the AI SDK's `experimental_streamTranscribe` and
  wyoming_openai's realtime mode have nothing to talk to.
* `diarized_json` and `known_speaker_*`: refused with a 400 that names the field.
* Node's clients ask for Node 22 in their package files; the version above is the one they were run with.
* LiteLLM runs beside a newer huggingface-hub than its metadata allows; transcription does not use it.
"""


@dataclass
class Row:
    marker: pytest.Mark
    tests: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)


class Collector:
    """A pytest plugin: the outcomes of the tests, by client."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._client_of: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            marker = item.get_closest_marker("client")
            if marker is not None:
                name = item.originalname if isinstance(item, pytest.Function) else item.name
                self._client_of[item.nodeid] = (marker.args[0], _sentence(name or item.name))
                self.rows.setdefault(marker.args[0], Row(marker))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        client, sentence = self._client_of.get(report.nodeid, (None, ""))
        if client is None or (report.when != "call" and report.passed):
            return
        row = self.rows[client]
        row.outcomes["not run" if report.skipped else report.outcome] += 1
        if report.passed and sentence not in row.tests:
            row.tests.append(sentence)
        if report.failed:
            row.reasons.append(f"fails: {sentence}")
        elif report.skipped:
            reason = f"not run: {_reason(report.longrepr)}"
            if reason not in row.reasons:
                row.reasons.append(reason)


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _reason(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def version_of(marks: dict[str, str]) -> str:
    if "package" in marks:
        try:
            return importlib.metadata.version(marks["package"])
        except importlib.metadata.PackageNotFoundError:
            return "-"
    if "npm" in marks:
        wanted = json.loads((PROGRAMS / "package.json").read_text())["dependencies"]
        names = [marks["npm"], *([marks["with_"]] if "with_" in marks else [])]
        return ", ".join(f"{name} {wanted[name]}" for name in names)
    return first_number([marks["command"], "--version"])


def first_number(command: list[str]) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "-"
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else "-"


def line(name: str, row: Row) -> str:
    marks = row.marker.kwargs
    second = f"`{marks['replayed']}`" if "replayed" in marks else version_of(marks)
    said = "; ".join([*row.tests, *(f"**{reason}**" for reason in row.reasons)])
    counts = " | ".join(str(row.outcomes[kind]) for kind in ("passed", "failed", "not run"))
    return f"| {name} | {second} | {said} | {counts} |\n"


def document(rows: dict[str, Row]) -> str:
    node = first_number(["node", "--version"])
    head = HEAD.format(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        version=app.__version__,
        python=platform.python_version(),
        node=f", Node {node}" if node != "-" else "",
        system=f"{platform.system()} {platform.machine()}",
    )
    run = {name: row for name, row in rows.items() if "replayed" not in row.marker.kwargs}
    replayed = {name: row for name, row in rows.items() if name not in run}
    parts = [head, RUN, *(line(name, run[name]) for name in sorted(run, key=str.lower))]
    parts += [REPLAYED, *(line(name, replayed[name]) for name in sorted(replayed, key=str.lower))]
    return "".join([*parts, NOT_RUN])


def main() -> None:
    collector = Collector()
    # pytest reports on standard output, where the document goes.
    document_out, sys.stdout = sys.stdout, sys.stderr
    code = pytest.main(["-q", str(PROGRAMS.parent)], [collector])
    sys.stdout = document_out
    sys.stdout.write(document(collector.rows))
    sys.exit(code)


if __name__ == "__main__":
    main()
