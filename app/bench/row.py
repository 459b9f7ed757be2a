"""A row of the table: one backend with one model, and what was measured of it."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.model_names import CHECKPOINTS


class Status(enum.StrEnum):
    MEASURED = "measured"
    FAILED = "failed"
    NOT_DOWNLOADED = "not downloaded"
    NOT_INSTALLED = "not installed"
    NOT_USABLE = "not usable"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a row.

    ``device`` and ``precision`` as the library reports them; ``load_s`` until the model was warm; ``rounds_s`` what all
    recordings took, file to text, in each round, ``seconds`` their median; ``audio_s`` how long the recordings are.
    ``short_s`` is the median of the recordings of at most 5 s, None where there are none. ``memory`` is the worker's
    peak in bytes, counted by ``memory_kind`` (0: could not be looked at), ``library_peak`` the library's own account (0
    where it keeps none). ``words`` were in the references, ``errors`` against them. ``fitted`` says whether short
    windows were encoded at their own length.
    """

    device: str
    precision: str
    load_s: float
    rounds_s: tuple[float, ...]
    seconds: float
    audio_s: float
    short_s: float | None
    memory: int
    memory_kind: str
    library_peak: int
    words: int
    errors: int
    fitted: bool

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.audio_s / self.seconds

    @property
    def error_rate(self) -> float | None:
        """Word errors a reference word; None without references."""
        return self.errors / self.words if self.words else None


@dataclass(frozen=True, slots=True)
class Row:
    """``device`` and ``precision`` are what was asked for; ``path`` where the model lies, None where it cannot be run;
    ``libraries`` the versions of what ran it; ``note`` a sentence on why there are no ``figures``."""

    backend: str
    model: str
    status: Status
    device: str = "auto"
    precision: str = "default"
    path: Path | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    note: str = ""
    figures: Figures | None = None
    measured: str = ""

    @property
    def name(self) -> str:
        return f"{self.backend} {self.model}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """A table has one row of each."""
        return (self.backend, self.model, self.device, self.precision)

    @property
    def order(self) -> tuple[Any, ...]:
        """By model, those of the catalog first and by size, then by backend."""
        names = list(CHECKPOINTS)
        place = names.index(self.model) if self.model in names else len(names)
        return (place, self.model, self.backend, self.device, self.precision)

    def same_as(self, other: Row) -> bool:
        """Whether the other row is of the same files and libraries too."""
        return (self.key, self.path, self.libraries) == (other.key, other.path, other.libraries)

    def to_json(self) -> dict[str, Any]:
        """Plain types, with the figures that follow from others."""
        data = asdict(self) | {"path": str(self.path) if self.path else None}
        if self.figures:
            data["figures"] |= {"speed": round(self.figures.speed, 2), "error_rate": self.figures.error_rate}
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Raises KeyError, TypeError or ValueError for what ``to_json`` did not write."""
        figures = data["figures"]
        if figures is not None:
            figures = {name: value for name, value in figures.items() if name not in ("speed", "error_rate")}
            figures = Figures(**figures | {"rounds_s": tuple(figures["rounds_s"])})
        path = Path(data["path"]) if data["path"] else None
        return cls(**data | {"status": Status(data["status"]), "path": path, "figures": figures})
