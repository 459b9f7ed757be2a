"""Recordings that a command is to transcribe, with what is said in them where that is known: files, folders, manifests.

A manifest is a JSON list of ``{"file": "talk.wav", "text": "What is said.", "language": "en"}`` beside its files;
``text`` and ``language`` may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import InvalidRequest
from app.languages import language_code

#: The bundled recordings: sentences of synthetic English, and three of them in one file.
SPEECH = Path(__file__).parent / "data" / "speech"
SAMPLE = Path(__file__).parent / "data" / "sample.flac"
#: Endings of files with sound that are looked for in a folder.
_SOUND = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".caf", ".flac",
    ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg",
    ".oga", ".ogg", ".ogv", ".opus", ".tta", ".wav", ".weba", ".webm", ".wma", ".wmv", ".wv",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, its ``reference`` text and its spoken ``language`` (Whisper's code), None where they are not known."""

    path: Path
    reference: str | None = None
    language: str | None = None


def recordings_in(paths: Sequence[Path], *, references: bool = False) -> list[Recording]:
    """The recordings of files, folders and manifests (``.json``), in that order; at least one.

    ``references``: each file has its text beside it, as ``.txt``. Raises ``InvalidRequest`` with a sentence.
    """
    found = [recording for path in paths for recording in _in(path, references)]
    if not found:
        raise InvalidRequest("There are no recordings in that folder.")
    return found


def bundled() -> list[Recording]:
    """The sentences of synthetic English that come with whisperd, a file each."""
    return [Recording(path, _text_beside(path), "en") for path in sounds_in(SPEECH)]


def sounds_in(folder: Path) -> list[Path]:
    """The files of ``folder`` and the folders in it that are called like sound or video, hidden ones left out; none of
    a folder that is not there.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SOUND
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _in(path: Path, references: bool) -> Iterator[Recording]:
    if path.is_dir():
        for sound in sounds_in(path):
            yield Recording(sound, _text_beside(sound) if references else None)
    elif path.suffix.lower() == ".json" and path.is_file():
        yield from _manifest(path)
    elif path.is_file():
        yield Recording(path, _text_beside(path) if references else None)
    else:
        raise InvalidRequest(f"There is no file or folder {str(path)!r}.")


def _text_beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    try:
        return text.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{path.name} has no text beside it: {text} cannot be read.") from None


def _manifest(path: Path) -> Iterator[Recording]:
    try:
        rows = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise InvalidRequest(f"The manifest {path.name} is not JSON.") from None
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f"The manifest {path.name} is not a list of recordings.")
    for number, row in enumerate(rows, 1):
        yield _row(path, number, row)


def _row(manifest: Path, number: int, row: Any) -> Recording:
    """One entry of a manifest, the ``number``-th. Other keys than the three are for others."""
    wanted = {"file": str, "text": str | None, "language": str | None}
    if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in wanted.items()):
        raise InvalidRequest(
            f"Entry {number} of {manifest.name} is not like "
            '{"file": "talk.wav", "text": "What is said.", "language": "en"}.'
        )
    sound = manifest.parent / row["file"]
    if not sound.is_file():
        raise InvalidRequest(f"Entry {number} of {manifest.name} names {row['file']!r}, and there is no such file.")
    try:
        return Recording(sound, row.get("text"), language_code(row.get("language")))
    except InvalidRequest as error:
        raise InvalidRequest(f"Entry {number} of {manifest.name}: {error.message}") from None
