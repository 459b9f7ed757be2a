"""Where the texts of recordings go: files, written whole or not at all, or standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app import whole_file
from app.batch.sources import Source
from app.errors import InvalidRequest
from app.formats import FORMATS, GRANULARITIES
from app.transcript import Transcript

#: What people call the formats besides their names.
_ALIASES = {"txt": "text"}
FORMAT_NAMES = (*FORMATS, *_ALIASES)
#: File endings of the formats that are not their own.
_ENDINGS = {"text": "txt", "verbose_json": "json"}


def formats_of(words: Sequence[str]) -> tuple[str, ...]:
    """The formats that are asked for, each once: of words with commas in them. Raises ``InvalidRequest``."""
    names = [name.strip() for word in words for name in word.split(",")]
    formats = tuple(dict.fromkeys(_ALIASES.get(name, name) for name in names))
    if unknown := next((name for name in formats if name not in FORMATS), None):
        raise InvalidRequest(f"There is no format {unknown!r}; choose from {', '.join(FORMAT_NAMES)}.")
    return formats


class Results:
    """The texts of each recording in each of ``formats``, with the times of ``words`` if asked for.

    They go to ``file``; or into ``folder``, or beside the recording with ``beside``; or else to standard output.
    """

    def __init__(
        self,
        formats: tuple[str, ...],
        *,
        words: bool = False,
        file: Path | None = None,
        folder: Path | None = None,
        beside: bool = False,
    ) -> None:
        self._formats = formats
        self._granularities = GRANULARITIES if words else frozenset({"segment"})
        self._file = file
        self._folder = folder
        self._beside = beside
        self._owners: dict[Path, Source] = {}
        if file is not None and len(formats) > 1:
            raise InvalidRequest("One file holds one format; --output-dir writes several.")
        if self.to_files and len({_ending(name) for name in formats}) < len(formats):
            raise InvalidRequest("json and verbose_json would be the same file; ask for one of them.")

    @property
    def to_files(self) -> bool:
        return self._file is not None or self._folder is not None or self._beside

    def targets(self, source: Source) -> dict[str, Path]:
        """The file of each format; none where texts go to standard output."""
        if self._file is not None:
            return {self._formats[0]: self._file}
        if not self.to_files:
            return {}
        whole = source.folder / source.below.name if self._folder is None else self._folder / source.below
        return {name: whole.with_name(f"{whole.stem}.{_ending(name)}") for name in self._formats}

    def claim(self, source: Source) -> None:
        """Keep the recording's files for it. Raises ``InvalidRequest`` where another one has them, or they are it."""
        for target in self.targets(source).values():
            place = target.absolute()
            if place == source.path.absolute():
                raise InvalidRequest(f"The text of {source.name} would be written over it.")
            owner = self._owners.setdefault(place, source)
            if owner.path != source.path:
                raise InvalidRequest(
                    f"{owner.name} and {source.name} would both be written to {target}; transcribe them one by one, "
                    "with --output."
                )

    def done(self, source: Source) -> bool:
        """Whether each of its files is there and not older than the recording; a single file that was named is
        written whatever it holds.
        """
        if self._file is not None or not self.to_files or source.problem:
            return False
        try:
            made = source.path.stat().st_mtime
            return all(target.stat().st_mtime >= made for target in self.targets(source).values())
        except OSError:
            return False

    def texts(self, transcript: Transcript) -> dict[str, str]:
        """The transcript in each format."""
        return {name: FORMATS[name].render(transcript, self._granularities) for name in self._formats}

    def write(self, source: Source, transcript: Transcript) -> list[Path]:
        """Write the recording's files; which they are."""
        targets, texts = self.targets(source), self.texts(transcript)
        for name, target in targets.items():
            _write(target, texts[name])
        return list(targets.values())


def _ending(name: str) -> str:
    return _ENDINGS.get(name, name)


def _write(target: Path, text: str) -> None:
    """Write a file so that it is there whole, or as before. What is no regular file (``/dev/stdout``) is written to."""
    target = target.resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    whole_file.write(target, text.encode(), mode=0o666)
