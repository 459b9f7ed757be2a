"""The figures on disk: written after each row, and found again by the next run."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app import __version__, json_file
from app.bench.row import Row, Status
from app.errors import StorageFull
from app.hardware import Hardware
from app.recordings import Recording
from app.settings import Settings
from app.word_errors import normaliser_name

#: Of the file on disk; another one is not read.
_SCHEMA = 1
#: Settings that change the figures of all rows; device and precision tell rows apart.
_OPTIONS = ("threads", "beam_size", "encoder_window", "fit_margin_s", "max_batch")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all rows of a table share; rows of other conditions cannot be compared with them.

    ``recordings`` has their ``digest`` (sound, texts and languages), their ``count`` and ``title``.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    recordings: dict[str, Any]
    options: dict[str, Any]

    def differing(self, other: Conditions) -> list[str]:
        """What is not the same in both."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if mine[name] != theirs[name]]


def conditions_of(
    machine: Hardware, settings: Settings, recordings: Sequence[Recording], title: str, rounds: int
) -> Conditions:
    options = {name: getattr(settings, name) for name in _OPTIONS}
    referenced = any(recording.reference is not None for recording in recordings)
    return Conditions(
        machine={
            "chip": machine.chip,
            "cores": machine.cores,
            "memory_gib": round(machine.memory / 2**30),
            "system": f"{machine.system} {machine.version} {machine.python}",
            "gpu": machine.nvidia,
        },
        versions={"whisperd": __version__, "python": platform.python_version()},
        recordings={"digest": _digest(recordings), "count": len(recordings), "title": title},
        options=options | {"rounds": rounds, "word_errors": normaliser_name() if referenced else None},
    )


def _digest(recordings: Sequence[Recording]) -> str:
    digest = hashlib.sha256()
    for recording in recordings:
        with recording.path.open("rb") as file:
            sound = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(repr((sound, recording.reference, recording.language)).encode())
    return digest.hexdigest()[:16]


class Results:
    """``rows`` under ``conditions``, in ``file``: those found there, and those put in since."""

    def __init__(self, file: Path, conditions: Conditions) -> None:
        self.file = file
        self.conditions = conditions
        self._rows: dict[tuple[str, ...], Row] = {}
        #: Of figures that the file held under other conditions: what differs, and where they are kept.
        self.differing: list[str] = []
        self.kept: Path | None = None

    @property
    def rows(self) -> list[Row]:
        return sorted(self._rows.values(), key=lambda row: row.order)

    def load(self) -> None:
        """Take up the file's rows; rows of other conditions are only noted in ``differing``."""
        found = json_file.read(self.file)
        try:
            if found["schema"] != _SCHEMA:
                raise ValueError(found["schema"])
            conditions = Conditions(**found["conditions"])
            rows = [Row.from_json(row) for row in found["rows"]]
        except (AttributeError, KeyError, TypeError, ValueError):
            self.differing = ["format"] if self.file.exists() else []
            return
        self.differing = self.conditions.differing(conditions)
        if not self.differing:
            self._rows = {row.key: row for row in rows}

    def set_aside(self) -> None:
        """Give the file another name, so that its figures are not lost. Raises ``StorageFull``."""
        number = 1
        while (kept := self.file.with_stem(f"{self.file.stem}-{number}")).exists():
            number += 1
        try:
            self.kept = self.file.rename(kept)
        except OSError as error:
            raise self._unwritable(error) from None

    def done(self, row: Row) -> bool:
        """Whether the row was measured, with the same files and libraries."""
        there = self._rows.get(row.key)
        return there is not None and there.status is Status.MEASURED and there.same_as(row)

    def put(self, row: Row) -> None:
        """Take in a row that was run, and write all down. Raises ``StorageFull``."""
        self._rows[row.key] = row
        try:
            json_file.write(self.file, self.to_json(self.rows))
        except OSError as error:
            raise self._unwritable(error) from None

    def to_json(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "conditions": asdict(self.conditions),
            "rows": [row.to_json() for row in rows],
        }

    def _unwritable(self, error: OSError) -> StorageFull:
        return StorageFull(f"The figures could not be written to {self.file} ({error.strerror}).")
