"""The figures of one script, each beside its goal: said as they come, kept as JSON for ``benchmarks.reliability``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    """What was measured for a row of docs/reliability.md, and whether the row's goal holds."""

    row: int
    what: str
    figure: str
    holds: bool

    def __str__(self) -> str:
        return f"  {self.row:>2}  {self.what:56} {self.figure}  {'holds' if self.holds else 'MISSED'}"


class Verdicts(list[Verdict]):
    """They are printed as they are added."""

    def say(self, row: int, what: str, figure: str, *, holds: bool) -> None:
        self.append(Verdict(row, what, figure, bool(holds)))
        print(self[-1], flush=True)

    def end(self, path: Path | None) -> int:
        """Write them to ``path``, if any; returns the exit code: 1 where a goal was missed, or nothing measured."""
        if path:
            path.write_text(json.dumps([asdict(each) for each in self], indent=1))
        return 0 if self and all(each.holds for each in self) else 1


def read(path: Path) -> list[Verdict]:
    return [Verdict(**each) for each in json.loads(path.read_text())]


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
