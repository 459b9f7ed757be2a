"""Rows and conditions as a measurement leaves them."""

from __future__ import annotations

from typing import Any

from app.bench.results import Conditions
from app.bench.row import Figures, Row, Status

CONDITIONS = Conditions(
    machine={"chip": "Apple M4 Pro", "cores": 14, "memory_gib": 48, "system": "macOS 15.5 arm64"},
    versions={"whisperd": "0.1.0", "python": "3.12.3"},
    recordings={"digest": "d", "count": 2, "title": "2 recordings, with references"},
    options={"rounds": 3, "word_errors": "case and punctuation aside"},
)


def figures(**changed: Any) -> Figures:
    given: dict[str, Any] = {
        "device": "gpu",
        "precision": "float16",
        "load_s": 0.5,
        "rounds_s": (10.0, 12.0, 11.0),
        "seconds": 11.0,
        "audio_s": 220.0,
        "short_s": 0.25,
        "memory": 1_400_000_000,
        "memory_kind": "footprint",
        "library_peak": 0,
        "words": 200,
        "errors": 5,
        "fitted": False,
    }
    return Figures(**{**given, **changed})


def measured(backend: str, model: str, **changed: Any) -> Row:
    return Row(backend, model, Status.MEASURED, libraries={backend: "1.0"}, figures=figures(**changed))
