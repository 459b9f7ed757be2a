"""The figures as a PNG: a bar a row, grouped by model. Needs matplotlib, which the extra ``bench`` brings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from app.bench.quoted import MACHINE, NOTE, quoted
from app.bench.results import Conditions
from app.bench.row import Row
from app.bench.table import digits, gigabytes, percent
from app.errors import StorageFull

_COLOURS = {
    "mlx-whisper": "#0b6e99",
    "faster-whisper": "#e0a458",
    "whisper.cpp": "#5b8c5a",
    "openai-whisper": "#8d6a9f",
}
_INK, _FAINT, _OTHER = "#1f2933", "#d9dee4", "#9aa5b1"
#: Inches: a bar with its gap, the gap above a group with its title, what is above and below all bars,
#: the note on what is quoted.
_BAR, _TITLE, _MARGIN = 0.36, 0.52, 1.5
_NOTE = 0.42
_WIDTH = 10.0


def draw(conditions: Conditions, machine: str, rows: Sequence[Row], path: Path, *, with_quoted: bool) -> None:
    """Write the rows that have figures to ``path``, and quoted ones where wanted. Raises ``StorageFull``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = [row for row in rows if row.figures or (with_quoted and quoted(row.backend, row.model))]
    style = {"font.family": "sans-serif", "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK}
    with pyplot.rc_context(style):
        groups = len({row.model for row in drawn})
        height = _MARGIN + (_NOTE if with_quoted else 0) + _BAR * len(drawn) + _TITLE * groups
        figure, axis = pyplot.subplots(figsize=(_WIDTH, height))
        _bars(axis, drawn, with_quoted)
        figure.text(0.02, 1 - 0.3 / height, "Whisper on this machine: times real time", fontsize=14, fontweight="bold")
        figure.text(0.02, 1 - 0.56 / height, machine, fontsize=9)
        figure.text(0.02, 1 - 0.76 / height, f"{conditions.recordings['title']}. {_label_note(drawn)}", fontsize=9)
        if with_quoted:
            figure.text(0.02, 0.1 / height, textwrap.fill(NOTE, 140), fontsize=8)
        figure.tight_layout(rect=(0.01, _NOTE / height if with_quoted else 0, 0.99, 1 - 0.85 / height))
        try:
            figure.savefig(path, dpi=160, facecolor="white", format="png")
        except OSError as error:
            raise StorageFull(f"The chart could not be written to {path} ({error.strerror}).") from None
        finally:
            pyplot.close(figure)


def _label_note(rows: Sequence[Row]) -> str:
    errors = ", word errors" if any(row.figures and row.figures.words for row in rows) else ""
    return f"At the bars: times real time, peak memory{errors}."


def _bars(axis: Any, rows: Sequence[Row], with_quoted: bool) -> None:
    """From the top down: a title for each model, and below it a bar a row."""
    longest = max([*(_longest(row, with_quoted) for row in rows), 1.0])
    place, ticks, labels = 0.0, list[float](), list[str]()
    for model, group in groupby(rows, key=lambda row: row.model):
        place += _TITLE
        axis.text(0, place - 0.75 * _BAR, model, fontsize=11, fontweight="bold", va="bottom")
        for row in group:
            _bar(axis, row, place, longest, with_quoted)
            ticks.append(place)
            labels.append(_name(row))
            place += _BAR
    if with_quoted:
        axis.barh(0, 0, color=_FAINT, edgecolor=_INK, linewidth=0.7, label=f"quoted ({MACHINE})")
        axis.legend(loc="upper right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axis.set_yticks(ticks, labels)
    axis.set_ylim(place - 0.3 * _BAR, 0.1)
    axis.set_xlim(0, longest * (1.7 if with_quoted else 1.3))
    axis.tick_params(length=0)
    axis.grid(axis="x", color=_FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _bar(axis: Any, row: Row, place: float, longest: float, with_quoted: bool) -> None:
    """What was measured, over what is quoted, with both in words behind them."""
    said = quoted(row.backend, row.model) if with_quoted else None
    label = str(row.status)
    if said:
        axis.barh(place, said.speed, height=0.78 * _BAR, color=_FAINT)
    if row.figures:
        axis.barh(place, row.figures.speed, height=0.78 * _BAR, color=_COLOURS.get(row.backend, _OTHER))
        parts = [f"{digits(row.figures.speed)}x", gigabytes(row.figures.memory), percent(row.figures.error_rate)]
        label = "   ".join(part for part in parts if part)
    if said:
        axis.barh(place, said.speed, height=0.78 * _BAR, color="none", edgecolor=_INK, linewidth=0.7)
        label += f"   (quoted: {said.speed:g}x, {gigabytes(said.memory)})"
    back = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axis.text(_longest(row, with_quoted) + 0.012 * longest, place, label, va="center", fontsize=9, bbox=back)


def _longest(row: Row, with_quoted: bool) -> float:
    """Where the row's longer bar ends."""
    said = quoted(row.backend, row.model) if with_quoted else None
    return max(row.figures.speed if row.figures else 0.0, said.speed if said else 0.0)


def _name(row: Row) -> str:
    return f"{row.backend}  {row.figures.device} {row.figures.precision}" if row.figures else row.backend
