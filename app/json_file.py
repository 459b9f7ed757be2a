"""JSON objects on disk that are nice to have: read as empty where they cannot be read, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app import whole_file


def read(path: Path) -> dict[str, Any]:
    """The object in ``path``; {} where there is none, or something else."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write(path: Path, data: dict[str, Any]) -> None:
    """Put ``data`` in the place of what ``path`` holds, which others see whole or not at all. Raises OSError."""
    whole_file.write(path, json.dumps(data, indent=1).encode())
