"""The chart of ``benchmarks.table``'s results: speed by length, and audio done a second by callers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Results, digits, figures, length, rows_with
from benchmarks.sides import NAMES

_COLOURS = {"whisperd": "#0b6e99", "library": "#e0a458", "plain": "#9aa5b1"}
_INK, _FAINT = "#1f2933", "#d9dee4"
#: A group of bars is so wide; groups are 1 apart.
_WIDTH = 0.82


def draw(results: Results, path: Path) -> None:
    """Write the chart as a PNG to ``path``; without matplotlib, say how to get it."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("There is no chart, since matplotlib is missing: pip install -c constraints.txt -e '.[benchmarks]'")
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [
        (title, rows)
        for title, burst in (("One caller, by length of the recording", False), ("Several callers at once", True))
        if (rows := rows_with(results, burst=burst))
    ]
    if not panels:
        return
    style = {
        "font.family": "sans-serif",
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with pyplot.rc_context(style):
        shares = [max(2, len(rows)) for _, rows in panels]
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(14.5 if len(panels) > 1 else 8, 5.2), width_ratios=shares, squeeze=False
        )
        for axis, (title, rows) in zip(axes[0], panels, strict=True):
            _panel(axis, rows, results["sides"])
            axis.set_title(title, loc="left", fontsize=11, pad=10)
        if not panels[0][1][0]["burst"]:
            _logarithmic(axes[0][0])
        axes[0][0].set_ylabel("seconds of audio a second (times real time)")
        search = "greedy" if results["beam_size"] == 1 else f"{results['beam_size']} beams"
        figure.suptitle(
            f"Whisper {results['model']}, {search}", x=0.012, y=0.985, ha="left", fontsize=15, fontweight="bold"
        )
        figure.text(0.012, 0.895, f"{results['machine']} · {results['date']}", ha="left", fontsize=9.5)
        handles, labels = axes[0][0].get_legend_handles_labels()
        labels = [f"{results['backend']} alone" if label == NAMES["library"] else label for label in labels]
        figure.legend(handles, labels, loc="upper right", ncols=len(labels), frameon=False, fontsize=10.5)
        figure.tight_layout(rect=(0, 0, 1, 0.91), w_pad=3)
        figure.savefig(path, dpi=160, facecolor="white")
        pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[dict[str, Any]], sides: Sequence[str]) -> None:
    """A group of bars a row; a side without a part in the row has no bar, and leaves no gap."""
    for number, row in enumerate(rows):
        found = [(side, each.speed) for side in sides if (each := figures(row, side))]
        width = _WIDTH / len(sides)
        for place, (side, speed) in enumerate(found):
            middle = number + (place - (len(found) - 1) / 2) * width
            axis.bar(middle, speed, width * 0.94, color=_COLOURS[side], zorder=2)
            axis.annotate(
                digits(speed),
                (middle, speed),
                (0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                color=_INK,
            )
    for side in sides:
        axis.bar(0, 0, color=_COLOURS[side], label=NAMES[side])  # for the legend alone
    axis.set_xticks(range(len(rows)), [_label(row) for row in rows])
    axis.set_xlim(-0.6, len(rows) - 0.4)
    axis.margins(y=0.1)
    axis.tick_params(length=0)
    axis.grid(axis="y", color=_FAINT, linewidth=0.8, zorder=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _logarithmic(axis: Any) -> None:
    """From a power of ten or its half below the lowest bar, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    heights = [bar.get_height() for bar in axis.patches if bar.get_height() > 0]
    axis.set_yscale("log")
    axis.set_ylim(min(1, 0.7 * min(heights)), 1.6 * max(heights))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _label(row: dict[str, Any]) -> str:
    return f"{length(row)}\n{row['callers']} caller{'s' if row['callers'] > 1 else ''}" if row["burst"] else length(row)
