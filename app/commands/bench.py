"""``whisperd bench``: the table that people want before they choose a backend and a model, on their own machine."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from app.bench import chart, table
from app.bench.bundled import joined
from app.bench.measure import measure
from app.bench.plan import backends_of, micro_rows, models_of, quoted_rows, rows_of
from app.bench.quoted import is_quoted_machine
from app.bench.results import Results, conditions_of
from app.bench.row import Row
from app.commands.flags import add_settings, settings_of
from app.errors import InvalidRequest
from app.hardware import Hardware, detect
from app.languages import language_code
from app.recordings import Recording, recordings_in
from app.settings import Settings

_SETTINGS = {"device", "precision", "threads", "beam_size", "encoder_window", "pull"}
_FOLDERS = {"hub_dir", "cache_dir", "state_dir"}
_MICRO_NOTE = (
    "No model is downloaded, so the bundled toy model micro is measured. `whisperd models pull base` brings a real one."
)

_EPILOG = """\
Each backend that is installed transcribes with each model that is downloaded for it, one after the other: how many
times faster than real time, how long a dictation takes and the model to load, how much memory, how many word errors.
What is done is kept, so that the same command goes on after Ctrl-C, and adds rows later.

Your own recordings are the better judge. A manifest is a JSON list of {"file": "talk.wav", "text": "What is said.",
"language": "en"} beside its files; text and language may be missing. Without any, sentences of synthetic English that
come with whisperd are taken.

examples:
  whisperd bench
  whisperd bench --models tiny,base --pull --chart bench.png
  whisperd bench --backends mlx-whisper,whisper.cpp --manifest recordings/manifest.json
  whisperd bench --models mine=~/models/mine-ct2,mine=~/models/mine-hf talk.m4a
  whisperd bench --models tiny,base --quoted
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", type=Path, help="recordings, folders or manifests of them")
    add("--manifest", metavar="FILE", type=Path, action="append", default=[], help="manifest of recordings")
    add("--references", action="store_true", help="each recording FILE has what is said beside it, as .txt")
    add("--language", default="", help="spoken language where a manifest does not say it (default: detected)")
    add("--backends", metavar="A,B", default="", help="backends to measure (default: all that are installed)")
    add(
        "--models",
        dest="names",
        metavar="A,B",
        default="",
        help="names, hub ids, folders or NAME=FOLDER (default: all that are downloaded)",
    )
    add("--rounds", type=int, default=3, metavar="N", help="times that each recording is transcribed (default 3)")
    add("--out", type=Path, metavar="FOLDER", help="where bench.json is kept (default: in the state folder)")
    add("--json", action="store_true", help="print JSON instead of the table")
    add("--chart", type=Path, metavar="FILE.png", help="draw the table too")
    add("--quoted", action="store_true", help="show what people quote of an Apple M4 Pro beside it (there: always)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what bench.json holds, or say why not")
    again.add_argument("--fresh", action="store_true", help="measure everything anew")
    add_settings(parser, _SETTINGS | _FOLDERS)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.rounds < 1:
        raise InvalidRequest("It takes one round at least.")
    if options.chart and importlib.util.find_spec("matplotlib") is None:
        raise InvalidRequest("The chart needs matplotlib: pip install 'whisperd[bench]'")
    machine = detect()
    names, folders = models_of(_listed(options.names))
    backends = backends_of(_listed(options.backends))
    with tempfile.TemporaryDirectory() as scratch:
        recordings, title = _recordings(options, Path(scratch))
        results = Results(
            (options.out or settings.state_dir / "bench").resolve() / "bench.json",
            conditions_of(machine, settings, recordings, title, options.rounds),
        )
        _take_up(results, options)
        wanted = rows_of(settings, backends, names, folders)
        if not names and not any(row.path for row in wanted):
            print(_MICRO_NOTE, file=sys.stderr)
            wanted = micro_rows(settings, backends) or wanted
        try:
            _measure(wanted, results, settings, recordings, options.rounds)
        except KeyboardInterrupt:
            _show(wanted, results, machine, options)
            left = sum(row.path is not None and not results.done(row) for row in wanted)
            print(f"Interrupted with {left} of the rows not measured; the same command goes on there.", file=sys.stderr)
            raise
    _show(wanted, results, machine, options)
    return 0 if any(row.figures for row in results.rows) else 1


def _listed(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _recordings(options: argparse.Namespace, scratch: Path) -> tuple[list[Recording], str]:
    """What is transcribed, and a few words on it."""
    given = [*options.manifest, *options.files]
    if not given:
        found = joined(scratch)
        return found, "Bundled synthetic sentences: 59 joined to four minutes, and one alone"
    language = language_code(options.language)
    found = [
        replace(recording, language=recording.language or language)
        for recording in recordings_in(given, references=options.references)
    ]
    referenced = sum(recording.reference is not None for recording in found)
    texts = "with" if referenced == len(found) else "without" if not referenced else f"{referenced} of them with"
    return found, f"{len(found)} recording{'s' if len(found) > 1 else ''}, {texts} references"


def _take_up(results: Results, options: argparse.Namespace) -> None:
    """Find what was measured before, as far as it may stand in one table with what comes."""
    if options.fresh:
        return
    results.load()
    if not results.differing:
        return
    what = f"{results.file} holds figures of other conditions ({', '.join(results.differing)})"
    if options.resume:
        raise InvalidRequest(f"{what}: --out takes another folder, --fresh starts over.")
    results.set_aside()
    print(f"{what}. They are kept as {results.kept}; this is a new table.", file=sys.stderr)


def _measure(
    wanted: Sequence[Row], results: Results, settings: Settings, recordings: Sequence[Recording], rounds: int
) -> None:
    runnable = [row for row in wanted if row.path is not None]
    pending = [row for row in runnable if not results.done(row)]
    if len(pending) < len(runnable):
        done = ", ".join(row.name for row in runnable if row not in pending)
        print(f"Measured before, and kept: {done}. (--fresh measures them again.)", file=sys.stderr)
    a_row = rounds * len(recordings)
    with tqdm(total=a_row * len(pending), unit="recording", disable=not sys.stderr.isatty()) as bar:
        for number, row in enumerate(pending, 1):
            bar.set_description(f"{row.name} ({number} of {len(pending)})")
            results.put(measure(row, settings, recordings, rounds, bar.update))
            bar.update(number * a_row - bar.n)


def _show(wanted: Sequence[Row], results: Results, machine: Hardware, options: argparse.Namespace) -> None:
    """The table of all rows in the file, and of those that are wanted but not there."""
    there = {row.key for row in results.rows}
    rows = [*results.rows, *(row for row in wanted if row.key not in there)]
    with_quoted = options.quoted or is_quoted_machine(machine.chip)
    if with_quoted:
        rows += quoted_rows(rows)
    rows.sort(key=lambda row: row.order)
    if options.json:
        print(json.dumps(table.to_json(results.to_json(rows), rows, with_quoted=with_quoted), indent=1))
    else:
        print(table.text(results.conditions, str(machine), rows, with_quoted=with_quoted))
        print(f"All figures: {results.file}")
    if options.chart:
        chart.draw(results.conditions, str(machine), rows, options.chart, with_quoted=with_quoted)
