"""The figures of ``benchmarks.table``'s raw results, and its tables in Markdown. Nothing here measures.

``results`` is what ``results.json`` holds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import word_error_rate
from benchmarks.sides import NAMES

Results = dict[str, Any]
_NONE = "–"  # noqa: RUF001
_MEMORY = {"pss": "PSS", "footprint": "footprint", "uss": "USS", "rss": "RSS, shared pages counted by each process"}


@dataclass(frozen=True)
class Figures:
    """One side of a row, medians over its rounds: ``seconds`` a request, ``speed`` in seconds of audio a second,
    ``cpu_seconds`` a request; the highest ``peak`` in bytes; word ``errors`` a word over all answers, None where it is
    not known what was said.
    """

    seconds: float
    speed: float
    cpu_seconds: float
    peak: int
    errors: float | None


def figures(row: dict[str, Any], side: str) -> Figures | None:
    """None where the side has no part in the row."""
    samples = row["samples"].get(side)
    if not samples:
        return None
    recordings = row["recordings"]
    pairs = [
        (recordings[number]["text"], text)
        for sample in samples
        for number, text in zip(sample["recordings"], sample["texts"], strict=True)
    ]
    known = all(reference is not None for reference, _ in pairs)
    return Figures(
        seconds=statistics.median(seconds for sample in samples for seconds in sample["requests"]),
        speed=statistics.median(_audio(row, sample) / sample["seconds"] for sample in samples),
        cpu_seconds=statistics.median(sample["cpu_seconds"] / len(sample["recordings"]) for sample in samples),
        peak=max(sample["peak"] for sample in samples),
        errors=word_error_rate([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if known else None,
    )


def _audio(row: dict[str, Any], sample: dict[str, Any]) -> float:
    return float(sum(row["recordings"][number]["seconds"] for number in sample["recordings"]))


def rows_with(results: Results, *, burst: bool) -> list[dict[str, Any]]:
    """The rows with several callers, or those with one, in the order in which they are shown."""
    rows = [row for row in results["rows"] if row["burst"] == burst]
    return sorted(rows, key=lambda row: (row["seconds"], row["callers"]))


def ratio(row: dict[str, Any], side: str) -> float | None:
    """How many times as long as whisperd the side took, the median over the rounds; None where it has no part."""
    if not row["samples"].get(side):
        return None
    pairs = zip(row["samples"][side], row["samples"]["whisperd"], strict=True)
    return statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)


def markdown(results: Results) -> str:
    """The heading and all tables that there are rows for."""
    rows = results["rows"]
    parts = [heading(results)]
    for burst, title in ((False, "One caller"), (True, "Several callers")):
        if chosen := rows_with(results, burst=burst):
            parts.append(f"{title}\n\n{_table(chosen, results['sides'])}")
    if any(recording["text"] is None for row in rows for recording in row["recordings"]):
        parts.append("Recordings without word errors were cut of longer clips, since no clip was short enough.")
    if results["accuracy"]:
        parts.append(f"Word errors, clip by clip, in %\n\n{_accuracy(results['accuracy'], results['sides'])}")
    return "\n\n".join(parts) + "\n"


def heading(results: Results) -> str:
    flags = f", whisperd with `{' '.join(results['flags'])}`" if results["flags"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    search = "greedy" if results["beam_size"] == 1 else f"{results['beam_size']} beams"
    loaded = [f"{NAMES[side]} {_mib(taken)}" for side, taken in results["loaded"].items()]
    return (
        f"`{results['model']}`, {search}, {results['date']}; {results['machine']}; {versions}.\n"
        f"Cells: {' / '.join(NAMES[side] for side in results['sides'])}{flags}. Medians of interleaved rounds.\n"
        "CPU-seconds are a request's, over all processes of a side; memory is the peak of all its processes\n"
        f"({_MEMORY[results['memory']]}). Loaded and idle, in MiB: {', '.join(loaded)}."
    )


def _table(rows: Sequence[dict[str, Any]], sides: Sequence[str]) -> str:
    others = [side for side in sides if side != "whisperd"]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "recording": length,
        **({"callers": lambda row: str(row["callers"])} if rows[0]["burst"] else {}),
        "seconds a request": lambda row: _cells(row, sides, lambda each: digits(each.seconds)),
        "seconds of audio a second": lambda row: _cells(row, sides, lambda each: digits(each.speed)),
        f"times as fast as {' / '.join(NAMES[side] for side in others)}": lambda row: " / ".join(
            digits(found) if (found := ratio(row, side)) else _NONE for side in others
        ),
        "CPU-seconds": lambda row: _cells(row, sides, lambda each: digits(each.cpu_seconds)),
        "memory, MiB": lambda row: _cells(row, sides, lambda each: _mib(each.peak)),
        "word errors, %": lambda row: _cells(row, sides, lambda each: percent(each.errors)),
    }
    return _grid([list(columns), *([cell(row) for cell in columns.values()] for row in rows)])


def _cells(row: dict[str, Any], sides: Sequence[str], cell: Callable[[Figures], str]) -> str:
    found = [figures(row, side) for side in sides]
    return " / ".join(cell(each) if each else _NONE for each in found)


def length(row: dict[str, Any]) -> str:
    """How long the recordings of the row are on the mean: the wanted length where that is within 5 %."""
    mean = statistics.mean(recording["seconds"] for recording in row["recordings"])
    exact = abs(mean / row["seconds"] - 1) < 0.05
    seconds = row["seconds"] if exact else mean
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if seconds >= size), (1, "s"))
    return f"{seconds / size:{'g' if exact else '.2g'}} {unit}"


def _accuracy(accuracy: dict[str, Any], sides: Sequence[str]) -> str:
    """A line for each language and one for all. ``accuracy``: ``clips`` with language, seconds and text, ``texts`` by
    side.
    """
    clips = accuracy["clips"]
    languages = sorted({clip["language"] for clip in clips})
    others = [side for side in sides if side != "whisperd"]
    lines = [["clips", "seconds", *(NAMES[side] for side in sides), *(f"points over {NAMES[side]}" for side in others)]]
    for language in languages if len(languages) == 1 else [*languages, ""]:
        chosen = [number for number, clip in enumerate(clips) if language in ("", clip["language"])]
        errors = {side: _errors(accuracy, side, chosen) for side in sides}
        lines.append(
            [
                f"{len(chosen)} {language or 'in all'}",
                f"{sum(clips[number]['seconds'] for number in chosen):,.0f}",
                *(percent(errors[side]) for side in sides),
                *(f"{100 * (errors['whisperd'] - errors[side]):+.2f}" for side in others),
            ]
        )
    return _grid(lines)


def _errors(accuracy: dict[str, Any], side: str, chosen: Sequence[int]) -> float:
    """Word errors a word; each language is normalised by its own rules."""
    wrong, words = 0.0, 0
    for language in {accuracy["clips"][number]["language"] for number in chosen}:
        numbers = [number for number in chosen if accuracy["clips"][number]["language"] == language]
        references = [accuracy["clips"][number]["text"] for number in numbers]
        weight = sum(len(text.split()) for text in references)
        wrong += weight * word_error_rate(references, [accuracy["texts"][side][number] for number in numbers], language)
        words += weight
    return wrong / words


def _grid(lines: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def digits(figure: float) -> str:
    """Three digits that count: 0.123, 1.23, 12.3, 123, 1,234."""
    places = next((places for most, places in ((0.9995, 3), (9.995, 2), (99.95, 1)) if figure < most), 0)
    return f"{figure:,.{places}f}"


def percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.2f}"


def _mib(taken: int) -> str:
    return f"{taken / 2**20:,.0f}"
