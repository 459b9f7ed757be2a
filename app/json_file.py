"""JSON objects on disk that are nice to have: read as empty where they cannot be read, written whole or not at all."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """The object in ``path``; {} where there is none, or something else."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write(path: Path, data: dict[str, Any]) -> None:
    """Put ``data`` in the place of what ``path`` holds, which others see whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as draft:
        json.dump(data, draft, indent=1)
    Path(draft.name).replace(path)
