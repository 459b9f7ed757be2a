"""The figures as plain text, and as the JSON that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.bench.measure import SHORT_S
from app.bench.quoted import MACHINE, NOTE, quoted
from app.bench.results import Conditions
from app.bench.row import Figures, Row, Status
from app.model_names import MICRO

_MEMORY = {
    "pss": "the peak of the worker's process (PSS)",
    "uss": "the peak of the worker's process (USS, which leaves out what is shared)",
    "rss": "the peak of the worker's process (RSS)",
    "footprint": "the peak of the worker's process as Activity Monitor counts it",
}
#: Rounds of a machine that does nothing else differ by less.
_STEADY = 1.3


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    cell: Callable[[Row], str]
    left: bool = False


def to_json(conditions: dict[str, Any], rows: Sequence[Row], *, with_quoted: bool) -> dict[str, Any]:
    """``conditions`` (what ``Results.to_json`` gives, but for its rows) with these rows."""
    listed = []
    for row in rows:
        figures = quoted(row.backend, row.model) if with_quoted else None
        listed.append(row.to_json() | ({"quoted": asdict(figures) if figures else None} if with_quoted else {}))
    return conditions | {"rows": listed} | ({"quoted_note": NOTE} if with_quoted else {})


def text(conditions: Conditions, machine: str, rows: Sequence[Row], *, with_quoted: bool) -> str:
    """Machine, table and notes; several lines."""
    versions = ", ".join(f"{name} {version}" for name, version in _versions(conditions, rows).items())
    rounds = conditions.options["rounds"]
    how = f"median of {rounds} rounds" if rounds > 1 else "one round"
    head = [machine, versions, f"{conditions.recordings['title']}; {how}."]
    return "\n".join(
        [*head, "", *_table(_columns(rows, with_quoted), rows), "", *_notes(conditions, rows, with_quoted)]
    )


def _columns(rows: Sequence[Row], with_quoted: bool) -> list[_Column]:
    found = [row.figures for row in rows if row.figures]
    columns = [
        _Column("model", lambda row: row.model or "-", left=True),
        _Column("backend", lambda row: row.backend, left=True),
        _Column("device", lambda row: row.figures.device if row.figures else str(row.status), left=True),
        _Column("precision", _of(lambda figures: figures.precision), left=True),
        _Column("x real time", _of(lambda figures: digits(figures.speed))),
    ]
    if any(figures.short_s is not None for figures in found):
        columns.append(_Column("dictation", _of(lambda figures: seconds(figures.short_s))))
    columns += [
        _Column("load", _of(lambda figures: seconds(figures.load_s))),
        _Column("memory", _of(lambda figures: gigabytes(figures.memory))),
    ]
    if any(figures.library_peak for figures in found):
        columns.append(_Column("library's", _of(lambda figures: gigabytes(figures.library_peak))))
    if any(figures.words for figures in found):
        columns.append(_Column("word errors", _of(lambda figures: percent(figures.error_rate))))
    if with_quoted:
        columns += [
            _Column(f"quoted ({MACHINE})", _quoted_cell),
            _Column("its memory", _quoted_memory),
            _Column("ratio", _share),
        ]
    return columns


def _of(cell: Callable[[Figures], str]) -> Callable[[Row], str]:
    return lambda row: cell(row.figures) if row.figures else ""


def _quoted_cell(row: Row) -> str:
    figures = quoted(row.backend, row.model)
    return f"{figures.speed:g}" if figures else ""


def _quoted_memory(row: Row) -> str:
    figures = quoted(row.backend, row.model)
    return gigabytes(figures.memory) if figures else ""


def _share(row: Row) -> str:
    figures = quoted(row.backend, row.model)
    return digits(row.figures.speed / figures.speed) if figures and row.figures else ""


def _table(columns: Sequence[_Column], rows: Sequence[Row]) -> list[str]:
    cells = [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    rule = "  ".join("-" * width for width in widths)
    lines = [
        "  ".join(
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    ]
    return [lines[0], rule, *lines[1:]]


def _notes(conditions: Conditions, rows: Sequence[Row], with_quoted: bool) -> list[str]:
    found = [row.figures for row in rows if row.figures]
    notes = [
        f"{row.model or 'any model'} on {row.backend}: {row.status}. {row.note}".rstrip() for row in rows if row.note
    ]
    if any(row.model == MICRO and row.figures for row in rows):
        notes.append("micro is a toy: it shows what the backends cost beside each other, and understands no person.")
    if any(figures.short_s is not None for figures in found):
        notes.append(f"dictation: the median of the recordings of at most {SHORT_S:g} s, from file to text.")
    kinds = sorted({figures.memory_kind for figures in found if figures.memory})
    if kinds:
        notes.append(f"memory: {' or '.join(_MEMORY[kind] for kind in kinds)}; 1 GB is a billion bytes.")
    if any(figures.library_peak for figures in found):
        notes.append("library's: the most that the library itself says it held, which on a GPU may be more.")
    if any(figures.words for figures in found):
        notes.append(f"word errors: by word of the references, {_spelling(conditions.options['word_errors'])}.")
    noisy = [
        row.name for row in rows if row.figures and max(row.figures.rounds_s) > _STEADY * min(row.figures.rounds_s)
    ]
    if noisy:
        notes.append(
            f"The rounds differ by more than {_STEADY - 1:.0%}: something else used the machine ({', '.join(noisy)})."
        )
    fitted = [row.name for row in rows if row.figures and row.figures.fitted]
    if fitted:
        notes.append(f"Short windows were encoded at their own length (encoder_window) by: {', '.join(fitted)}.")
    if with_quoted:
        notes.append("ratio: times real time as measured, to those quoted.")
        if any(row.status is Status.NOT_RUN for row in rows):
            notes.append(
                "not run: `whisperd bench --models tiny,base --pull` downloads what is quoted and measures it."
            )
        notes.append(NOTE)
    return notes


def _spelling(normaliser: str) -> str:
    return f"both spelled by {normaliser}" if "normaliser" in normaliser else normaliser


def _versions(conditions: Conditions, rows: Sequence[Row]) -> dict[str, str]:
    used = [row.libraries for row in rows if row.status is Status.MEASURED]
    return conditions.versions | {name: version for each in used for name, version in each.items()}


def digits(value: float) -> str:
    """Three digits, as far as a figure like this has them."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{digits(value)} s"


def gigabytes(value: int) -> str:
    return f"{value / 1e9:.2f} GB" if value else ""


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
