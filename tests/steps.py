"""What the fake backend's log says: the device's steps, of all the processes that a model had."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step: ``windows`` are the starts of its windows in ms; ``begun`` and ``ended`` are monotonic seconds, the end
    infinite where there is none.
    """

    log: Path
    pid: int
    windows: tuple[int, ...]
    begun: float
    ended: float


def steps_of(*logs: Path) -> list[Step]:
    """The steps in these logs, in the order in which they began."""
    steps = []
    for log in logs:
        ends = {(line["pid"], line["step"]): line["time"] for line in lines_of(log, "end")}
        for line in lines_of(log, "begin"):
            windows = tuple(start * 1000 // 16_000 for start, _ in line["windows"])
            ended = ends.get((line["pid"], line["step"]), math.inf)
            steps.append(Step(log, line["pid"], windows, line["time"], ended))
    return sorted(steps, key=lambda step: step.begun)


def lines_of(log: Path, event: str = "") -> list[dict[str, Any]]:
    """The log's lines of an event, or of all, as they were written; none where nothing was."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if event in ("", line["event"])]


def processes_of(*logs: Path) -> set[int]:
    """The processes that held these models: each writes a line at its first rest, if not before."""
    return {line["pid"] for log in logs for line in lines_of(log)}


def windows_of(steps: list[Step]) -> list[int]:
    """The windows of these steps, in the order in which they were begun."""
    return [window for step in steps for window in step.windows]


def text_of(steps: list[Step]) -> str:
    """The transcript of a job that these steps alone made, each window in its order, as the fake writes it."""
    return " ".join(f"w{window}" for window in windows_of(steps))


def overlap(steps: list[Step]) -> bool:
    """Whether any two of these steps were on the device at once; one without an end is for ever."""
    return any(after.begun < before.ended for before, after in pairwise(steps))
