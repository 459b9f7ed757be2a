"""Whether a model's windows may be fitted: what was measured before a release, and what ``whisperd tune`` found here.

Whisper was trained on windows of 30 s. Most models read one that ends 3 s behind its sound as well, in a fraction of
the time; that one does must have been measured before ``auto`` relies on it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from app import json_file
from app.catalog import model_key
from app.model_names import MICRO
from app.transcript import SAMPLE_RATE

#: (backend, model) -> seconds of silence with which its words were measured to be no worse (docs/performance.md).
MEASURED = {
    ("faster-whisper", "base"): 3.0,
    ("faster-whisper", MICRO): 3.0,
    ("mlx-whisper", "base"): 3.0,
    ("mlx-whisper", MICRO): 3.0,
    ("whisper.cpp", "base"): 3.0,
    ("whisper.cpp", MICRO): 3.0,
    ("openai-whisper", "base"): 3.0,
    ("openai-whisper", MICRO): 3.0,
}
#: Of the file on disk; another one is not read.
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``whisperd tune`` found: whether to ``fit`` the windows of ``model`` with ``margin_s`` seconds of silence.

    Of ``words`` transcribed whole ``differing`` were others (with references: errors more, which may be negative);
    of ``windows`` fitted ones ``reruns`` were encoded again, longer; ``gain`` is whole seconds over fitted seconds.
    """

    backend: str
    model: str
    margin_s: float
    fit: bool
    words: int
    differing: int
    windows: int
    reruns: int
    gain: float
    measured: str = ""


class Verdicts:
    """The verdicts in the folder ``state_dir``, of every backend and model that was tuned here."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "tune.json"

    def find(self, backend: str, model: str) -> Verdict | None:
        return next((each for each in self.all() if (each.backend, each.model) == (backend, model)), None)

    def all(self) -> list[Verdict]:
        """None where there is no file, or one that another version wrote."""
        found = json_file.read(self._file)
        try:
            return [Verdict(**each) for each in found["verdicts"]] if found["schema"] == _SCHEMA else []
        except (TypeError, KeyError):
            return []

    def store(self, verdict: Verdict) -> None:
        """Put it in the place of an older one. Raises OSError."""
        others = [each for each in self.all() if (each.backend, each.model) != (verdict.backend, verdict.model)]
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        json_file.write(self._file, {"schema": _SCHEMA, "verdicts": [asdict(each) for each in [*others, verdict]]})


@dataclass(frozen=True, slots=True)
class Fitting:
    """The setting ``encoder_window`` (``auto``, ``fit`` or ``full``) for one backend, with ``margin_s`` seconds."""

    mode: str
    margin_s: float
    backend: str
    verdicts: Verdicts

    def margin(self, model_path: str) -> int | None:
        """Samples of silence behind a fitted window of the model in this folder; None where windows stay whole."""
        fits = self.mode == "fit" or (self.mode == "auto" and self._measured(model_key(Path(model_path))))
        return round(self.margin_s * SAMPLE_RATE) if fits else None

    def _measured(self, model: str) -> bool:
        """Whether it was found to be no worse with this silence, or less; what was found here counts first."""
        verdict = self.verdicts.find(self.backend, model)
        if verdict is not None:
            return verdict.fit and verdict.margin_s <= self.margin_s
        return MEASURED.get((self.backend, model), float("inf")) <= self.margin_s
