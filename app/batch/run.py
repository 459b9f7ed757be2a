"""Recordings into texts, one after the other; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.batch.bars import Bars
from app.batch.doors import Transcribe
from app.batch.results import Results
from app.batch.sources import Source
from app.errors import InvalidRequest, WhisperdError


@dataclass(frozen=True, slots=True)
class Failure:
    """A recording without a text, and why, in a sentence."""

    name: str
    reason: str


def run(sources: Sequence[Source], results: Results, transcribe: Transcribe) -> list[Failure]:
    """Transcribe all of ``sources``; those that failed. Each outcome is said once it is known."""
    failures = []
    with Bars([_size(source) for source in sources]) as bars:
        for source in sources:
            try:
                transcribe_one(source, results, transcribe, bars)
            except BrokenPipeError:  # nobody reads what we print
                raise
            except (WhisperdError, OSError) as error:
                failures.append(Failure(source.name, reason_of(error)))
                bars.say(f"whisperd: {source.name}: {failures[-1].reason}")
    return failures


def transcribe_one(source: Source, results: Results, transcribe: Transcribe, bars: Bars) -> None:
    """Transcribe ``source``, and write or print its texts. Raises ``WhisperdError`` and ``OSError``."""
    with bars.recording(Path(source.name).name, _size(source)) as show:
        if source.problem:
            raise InvalidRequest(source.problem)
        transcript = transcribe(source.path, show)
    written = results.write(source, transcript)
    if transcript.warning:
        bars.say(f"{source.name}: {transcript.warning}")
    if written:
        bars.say(f"{source.name} -> {', '.join(map(str, written))}")
    else:
        for text in results.texts(transcript).values():
            bars.print(text)


def reason_of(error: WhisperdError | OSError) -> str:
    """What went wrong, in a sentence."""
    if isinstance(error, WhisperdError):
        return error.message
    named = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{named}."


def table_of(failures: Sequence[Failure]) -> str:
    """The recordings that failed, a line each, their reasons below each other."""
    width = max(len(failure.name) for failure in failures)
    return "\n".join(f"  {failure.name:<{width}}  {failure.reason}" for failure in failures)


def _size(source: Source) -> int:
    try:
        return source.path.stat().st_size
    except OSError:
        return 0
