"""A row of ``benchmarks.table``: recordings of one length by so many callers, and how it is measured."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from app.bench.usage import Watch
from benchmarks.corpus import Made
from benchmarks.server import turned
from benchmarks.sides import Side

_UNITS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Row:
    """``seconds`` is the length that is wanted. A round is one recording sent by one caller; or, in a ``burst``, all
    recordings, each sent by the next of ``callers`` that is free.
    """

    seconds: float
    rounds: int
    recordings: int
    callers: int = 1
    burst: bool = False

    @property
    def name(self) -> str:
        return length_name(self.seconds) + (f" x {self.callers}" if self.burst else "")


@dataclass(frozen=True)
class Sample:
    """What a side took for one round of a row: ``recordings`` by number, their texts, and what it cost.

    ``seconds`` from the first request to the last answer, ``requests`` those of each; ``cpu_seconds`` and ``peak``
    (bytes) of all its processes, the pause after the work included, in which its threads may still spin.
    """

    round: int
    recordings: list[int]
    seconds: float
    requests: list[float]
    cpu_seconds: float
    peak: int
    texts: list[str]


def length_name(seconds: float) -> str:
    """``30s``, ``5min``, ``1h``."""
    unit = next((unit for unit in ("h", "min") if seconds >= _UNITS[unit] and not seconds % _UNITS[unit]), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


def length_of(name: str) -> float:
    """Seconds of ``30s``, ``5min``, ``1h``; raises ``ValueError``."""
    found = re.fullmatch(r"([\d.]+)(s|min|h)", name)
    if not found:
        raise ValueError(f"{name!r} is no length such as 30s, 5min, 1h")
    return float(found[1]) * _UNITS[found[2]]


def takers(row: Row, sides: Mapping[str, Side]) -> list[str]:
    """The sides that have a part in the row: those that have several callers where it wants them."""
    return [name for name, side in sides.items() if row.callers == 1 or side.many]


def measured(
    row: Row, made: Sequence[Made], sides: Mapping[str, Side], *, language: str, pause: float, memory: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each side's name and its sample as a dict, the sides of a round in an order that turns."""
    for round_ in range(row.rounds):
        numbers = list(range(len(made))) if row.burst else [round_ % len(made)]
        for name in turned(takers(row, sides), round_):
            yield name, asdict(_sample(sides[name], row, round_, numbers, made, language, pause, memory))


def _sample(
    side: Side,
    row: Row,
    round_: int,
    numbers: list[int],
    made: Sequence[Made],
    language: str,
    pause: float,
    memory: str,
) -> Sample:
    with Watch(side.pid, memory) as watch, ThreadPoolExecutor(row.callers) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda number: side.transcribe(made[number].path, language), numbers))
        seconds = time.perf_counter() - started
        time.sleep(pause)
    requests = [answer.seconds for answer in answers]
    return Sample(
        round=round_,
        recordings=numbers,
        seconds=sum(requests) if row.callers == 1 else seconds,
        requests=requests,
        cpu_seconds=watch.cpu_seconds,
        peak=watch.peak,
        texts=[answer.text for answer in answers],
    )
