"""What can go wrong, the figure to reach and the one reached: measures the rows and writes docs/reliability.md.

    python -m benchmarks.reliability                   all rows; about two hours
    python -m benchmarks.reliability --rows 8,9,23     some, the others stay as they were measured
    python -m benchmarks.reliability --render          only write the page anew

Figures are kept in benchmarks/reliability.json with the machine and the day. Ends with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tqdm import tqdm

from benchmarks import verdicts
from benchmarks.reliability_rows import ON_A_MAC, ROWS, Row
from benchmarks.server import machine

ROOT = Path(__file__).parent.parent
_FIGURES, _PAGE = ROOT / "benchmarks" / "reliability.json", ROOT / "docs" / "reliability.md"
_HEAD = """\
# Reliability

What can go wrong in a service that stands in a corner for a year, the figure to reach, and the one that was reached.
Made by `python -m benchmarks.reliability`; each row's own commands stand behind `python -m`. Scripts measure with the
scripted `fake` backend or the bundled toy model `micro`, over loopback, beside their clients on the same cores.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="numbers with commas between them (default all)")
    parser.add_argument("--commands", default="", metavar="TEXT", help="of these rows only commands that hold TEXT")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page from what was measured")
    options = parser.parse_args()
    rows = {int(row) for row in options.rows.split(",") if row} or {row.number for row in ROWS}
    wanted = dict.fromkeys(command for row in ROWS if row.number in rows for command in row.commands)
    with tqdm([] if options.render else [each for each in wanted if options.commands in each]) as bar:
        for command in bar:
            bar.set_description(command)
            found = measured(command)
            _FIGURES.write_text(json.dumps(_known() | {command: found}, indent=1) + "\n")  # others may measure too
            print(f"python -m {command}: {found['seconds']} s, {found['figures']}", flush=True)
    known = _known()
    _PAGE.write_text(page(known))
    return 0 if all(known[command]["holds"] for command in wanted if command in known) else 1


def _known() -> dict[str, Any]:
    return dict(json.loads(_FIGURES.read_text())) if _FIGURES.exists() else {}


def measured(command: str) -> dict[str, Any]:
    """Run it; its figures by row ("" are those of any), whether all goals hold, when and on what."""
    words, began = shlex.split(command), time.monotonic()
    own = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = words[len(own) :]
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report"
        if words[0] == "pytest":
            words += ["-q", f"--junitxml={report}"]
        elif "add_json" in (ROOT / Path(*words[0].split("."))).with_suffix(".py").read_text():
            words += ["--json", str(report)]
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if not report.exists():
            lines = [re.sub(r"\s+", " ", line).strip() for line in done.stdout.splitlines() if line != machine()]
            figures, holds = {"": [line for line in lines if line]}, done.returncode == 0
        elif words[0] == "pytest":
            figures, holds = of_tests(report)
        else:
            found = verdicts.read(report)
            holds = done.returncode == 0 and all(each.holds for each in found)
            figures = {}
            for each in found:
                missed = "" if each.holds else " (**missed**)"
                figures.setdefault(str(each.row), []).append(f"{each.what}: {each.figure}{missed}")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    seconds = round(time.monotonic() - began)
    return {"holds": holds, "figures": figures, "seconds": seconds, "machine": machine(), "day": day}


def of_tests(report: Path) -> tuple[dict[str, list[str]], bool]:
    """What tests noted for rows, how many passed, and whether all did."""
    root = ElementTree.parse(report).getroot()  # noqa: S314 - pytest wrote it just now
    cases = root.findall(".//testcase")
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    words = [f"{len(cases) - len(bad) - len(skipped)} tests passed"]
    words += [f"**{len(bad)} failed**"] if bad else []
    words += [f"{len(skipped)} skipped"] if skipped else []
    figures = {"": [", ".join(words)]}
    for noted in root.iterfind(".//property"):
        figures.setdefault(noted.get("name", "").removeprefix("row "), []).append(noted.get("value", ""))
    missed = any("**missed**" in text for texts in figures.values() for text in texts)
    return figures, not bad and not missed and len(cases) > len(skipped)


def page(known: dict[str, Any]) -> str:
    lines = [
        f"Measured on: {line}." for line in sorted({f"{each['machine']}, {each['day']}" for each in known.values()})
    ]
    lines += ["", "| | tested | goal | reached | measured by |", "|---|---|---|---|---|"]
    for row in ROWS:
        found = [known[command] for command in row.commands if command in known]
        missing = [command for command in row.commands if command not in known]
        figures = [text for each in found for of in ("", str(row.number)) for text in each["figures"].get(of, [])]
        figures += [f"not run: `{command}`" for command in missing] or ([row.why] if row.why else [])
        by = "<br>".join(f"`{command}`" for command in row.commands)
        cells = [str(row.number), row.tested, row.goal, "<br>".join(figures), by]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    held = sum(_holds(row, known) for row in ROWS)
    summary = f"{held} of {len(ROWS)} rows hold in every part.\n\n"
    end = f"\nNot run, since it needs a Mac: {ON_A_MAC}. `scripts/mac-check` takes its owner through them.\n"
    return _HEAD + summary + "\n".join(lines) + "\n" + end


def _holds(row: Row, known: dict[str, Any]) -> bool:
    """Whether all that belongs to the row was run and holds; of a script with several rows, this row's part."""
    for command in row.commands:
        found = known.get(command)
        if found is None:
            return False
        own = found["figures"].get(str(row.number))
        said = [*(own or []), *found["figures"].get("", [])]
        if not (found["holds"] or (own and not any("**missed**" in text or "failed**" in text for text in said))):
            return False
    return bool(row.commands)


if __name__ == "__main__":
    sys.exit(main())
