"""What somebody names on the command line as recordings: files, folders, quoted globs, standard input."""

from __future__ import annotations

import glob
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import InvalidRequest
from app.recordings import sounds_in

#: The word for standard input.
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """A recording: where it lies, what people call it, and where its text goes: beside it into ``folder``, or by its
    path ``below`` a folder of texts. ``problem`` says why there is nothing to transcribe, where there is not.
    """

    path: Path
    name: str
    folder: Path
    below: Path
    problem: str = ""


def sources_of(words: Sequence[str], spool: Path) -> list[Source]:
    """The recordings that ``words`` name, in order, each once. Standard input is copied into the folder ``spool``."""
    found: dict[Path, Source] = {}
    for word in words:
        for source in _sources(word, spool):
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def recorded(path: Path, name: str) -> Source:
    """A recording that has no place of its own: its text goes to where we stand, called ``name``."""
    return Source(path, name, Path(), Path(name))


def in_folder(folder: Path) -> list[Source]:
    """The recordings in ``folder`` and the folders in it."""
    return [Source(path, str(path), path.parent, path.relative_to(folder)) for path in sounds_in(folder)]


def _sources(word: str, spool: Path) -> Iterator[Source]:
    path = Path(word)
    if word == STDIN:
        yield _stdin(spool)
    elif path.is_dir():
        yield from in_folder(path) or [_nothing(word, "There are no recordings in this folder.")]
    elif path.exists() or not glob.has_magic(word):
        yield _file(path, "" if path.exists() else "There is no such file.")
    else:
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no pattern of a whole path
        if not matches:
            yield _nothing(word, "Nothing has a name like that.")
        for match in matches:
            yield from _sources(match, spool)


def _file(path: Path, problem: str) -> Source:
    return Source(path, str(path), path.parent, Path(path.name), problem)


def _nothing(word: str, problem: str) -> Source:
    return _file(Path(word), problem)


def _stdin(spool: Path) -> Source:
    if sys.stdin.isatty():
        raise InvalidRequest(
            "Standard input is the keyboard: pipe a recording into it, as in `... | whisperd transcribe -`."
        )
    path = spool / "stdin"
    if not path.exists():
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    return recorded(path, "stdin")
