"""The whole performance table and its chart: whisperd, the library alone, and a plain server around the library.

    python -m benchmarks.table --out FOLDER                            micro; about half an hour
    python -m benchmarks.table --out FOLDER --model DIR --name base --manifest M.json --accuracy
    python -m benchmarks.table --out FOLDER --rows 2s 30s --callers -- --threads 4      flags of `whisperd serve`
    python -m benchmarks.table --chart FOLDER/results.json             table and chart again, nothing measured

All sides are loaded all the time; one works while the others idle, in an order that turns from round to round. With one
caller a round is one recording, another one each time; with several it is a burst of all the recordings. The library is
loaded and called as its README says, with its own defaults but for language and beams. Written into FOLDER:
``table.md``, ``chart.png``, and ``results.json`` with every sample.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app import __version__
from app.bench.usage import memory, memory_kind
from benchmarks import chart, corpus, report
from benchmarks.rows import Row, length_name, length_of, measured, takers
from benchmarks.server import machine, parser_of, turned
from benchmarks.sides import Side, running
from tests.conftest import Clip

#: Rounds by row; "rest" are those of recordings with one caller that have no entry.
_ROUNDS = {"rest": 10, "5min": 3, "1h": 1, "callers": 3}
#: Longer recordings than this are not sent to warm up.
_WARM_S = 60


def main() -> None:
    words, flags = sys.argv[1:], list[str]()
    if "--" in words:
        words, flags = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = _parser()
    options = parser.parse_args(words)
    if options.chart:
        written(json.loads(options.chart.read_text()), options.out or options.chart.parent)
        return
    if options.out is None:
        parser.error("--out FOLDER is needed")
    if options.backend == "mlx-whisper":
        if options.beam_size != 1:
            parser.error("mlx-whisper has no beams")
        print("There is no plain server around mlx-whisper: that side is left out.")
    options.flags += flags
    try:
        rows = rows_of(options)
    except ValueError as error:
        parser.error(str(error))
    written(measure(options, rows), options.out)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--name", help="what the model is called in table and chart (default: its folder's name)")
    add("--out", type=Path, help="folder for table.md, results.json and chart.png")
    add("--manifest", type=Path, action="append", help="clips to use, again for more (default: the test clips)")
    add("--language", default="en", help="language of the clips that the rows are made of")
    add("--rows", nargs="*", default=["1s", "2s", "5s", "10s", "30s", "5min", "1h"], help="lengths with one caller")
    add("--callers", type=int, nargs="*", default=[1, 4, 16], help="callers at once; none leaves these rows out")
    add("--callers-rows", nargs="*", default=["2s", "30s"], help="lengths that several callers send")
    add("--recordings", type=int, default=5, help="recordings a row with one caller")
    add("--requests", type=int, default=16, help="recordings, and so requests, a burst of several callers")
    add("--rounds", nargs="+", default=[], metavar="N | ROW=N", help=f"{_ROUNDS}; a bare N is the rest's")
    add("--pause", type=float, default=0.5, help="seconds of rest after each round of a side")
    add("--beam-size", type=int, default=1, help="beams of all sides")
    add("--flag", dest="flags", action="append", default=[], help="for `whisperd serve`: --flag=--threads=4")
    add(
        "--accuracy",
        type=int,
        nargs="?",
        const=10_000,
        default=0,
        metavar="N",
        help="compare word errors over every clip of the manifests too, or over N of them, evenly chosen",
    )
    add("--chart", type=Path, metavar="RESULTS", help="write table and chart of a results.json; measure nothing")
    return parser


def rows_of(options: argparse.Namespace) -> list[Row]:
    """The rows asked for: with one caller first, since whisperd steps smaller for a while after company."""
    rounds = dict(_ROUNDS)
    for word in options.rounds:
        name, _, number = word.rpartition("=")
        name = name or "rest"
        rounds[name if name in _ROUNDS else length_name(length_of(name))] = int(number)
    rows = []
    for seconds in map(length_of, options.rows):
        times = rounds.get(length_name(seconds), rounds["rest"])
        rows.append(Row(seconds, times, min(times, options.recordings)))
    bursts = [
        Row(seconds, rounds["callers"], max(callers, options.requests), callers, burst=True)
        for callers in sorted(options.callers)
        for seconds in map(length_of, options.callers_rows)
    ]
    return rows + bursts


def measure(options: argparse.Namespace, rows: Sequence[Row]) -> report.Results:
    """All that is asked for; what there is so far is written after each row."""
    clips = [clip for manifest in options.manifest or [corpus.MANIFEST] for clip in corpus.read(manifest)]
    spoken = [clip for clip in clips if clip.language == options.language]
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(options.backend, options.model, beam_size=options.beam_size, flags=options.flags) as sides,
    ):
        made = {
            row: corpus.make(corpus.choose(spoken, row.seconds, row.recordings), Path(scratch) / row.name)
            for row in rows
        }
        for side in sides.values():
            for row in rows:
                if row.seconds <= _WARM_S:
                    side.transcribe(made[row][0].path, options.language)
        time.sleep(1)
        results = _header(options, sides)
        with tqdm(total=sum(row.rounds * len(takers(row, sides)) for row in rows)) as progress:
            for row in rows:
                progress.set_description(row.name)
                results["rows"].append(entry := _entry(row, made[row]))
                how = {"language": options.language, "pause": options.pause, "memory": results["memory"]}
                for name, sample in measured(row, made[row], sides, **how):
                    entry["samples"].setdefault(name, []).append(sample)
                    progress.update()
                _save(results, options.out)
        if options.accuracy:
            results["accuracy"] = accuracy(clips[:: -(-len(clips) // options.accuracy)], sides)
    return results


def _header(options: argparse.Namespace, sides: Mapping[str, Side]) -> report.Results:
    kind = memory_kind(side.pid for side in sides.values())
    libraries = {"faster-whisper": ["faster-whisper", "ctranslate2"], "mlx-whisper": ["mlx-whisper", "mlx"]}
    return {
        "machine": machine(),
        "date": date.today().isoformat(),  # noqa: DTZ011 - the day where it was measured
        "backend": options.backend,
        "model": options.name or Path(options.model).name,
        "versions": {"whisperd": __version__, **{name: version(name) for name in libraries[options.backend]}},
        "beam_size": options.beam_size,
        "flags": options.flags,
        "pause": options.pause,
        "memory": kind,
        "loaded": {name: memory(side.pid, kind) for name, side in sides.items()},
        "sides": list(sides),
        "rows": [],
        "accuracy": None,
    }


def _entry(row: Row, made: Sequence[corpus.Made]) -> dict[str, Any]:
    return {
        "name": row.name,
        "seconds": row.seconds,
        "callers": row.callers,
        "burst": row.burst,
        "recordings": [{"seconds": each.seconds, "text": each.text} for each in made],
        "samples": {},
    }


def accuracy(clips: Sequence[Clip], sides: Mapping[str, Side]) -> dict[str, Any]:
    """Every clip, one by one, by every side."""
    texts: dict[str, list[str]] = {name: [] for name in sides}
    for number, clip in enumerate(tqdm(clips, desc="word errors")):
        for name in turned(list(sides), number):
            texts[name].append(sides[name].transcribe(clip.path, clip.language).text)
    rows = [{"language": clip.language, "seconds": clip.duration, "text": clip.text} for clip in clips]
    return {"clips": rows, "texts": texts}


def written(results: report.Results, folder: Path) -> None:
    """``results.json``, ``table.md`` (printed too) and ``chart.png`` in ``folder``."""
    _save(results, folder)
    text = report.markdown(results)
    (folder / "table.md").write_text(text)
    print(text)
    chart.draw(results, folder / "chart.png")


def _save(results: report.Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
