"""``whisperd transcribe``: recordings into text, through the running server if there is one, else without."""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app.batch import microphone
from app.batch.doors import Transcribe, in_process, through_server
from app.batch.results import Results, formats_of
from app.batch.run import run as run_batch
from app.batch.run import table_of
from app.batch.sources import Source, recorded, sources_of
from app.batch.watch import watch
from app.client import Client
from app.commands.flags import add_settings, settings_of
from app.errors import InvalidRequest
from app.formats import FORMATS
from app.settings import Settings
from app.transcriber import Transcriber
from app.transcript import Options

_EPILOG = """\
The text goes to standard output, or to one file (--output), or to a file for each recording: beside it (--output-dir),
or into a folder (--output-dir FOLDER), where what lies in folders keeps its path. What has its texts already, none of
them older than the recording, is passed over (--force does it again). A recording that fails does not stop the rest;
the exit code is then 1.

With --watch a folder is looked at until Ctrl-C or SIGTERM: what lies there and what comes is transcribed, each file
once it is whole, into files as with --output-dir. While the server is away or busy, work waits.

examples:
  whisperd transcribe talk.m4a
  whisperd transcribe talk.m4a --format srt --output talk.en.srt
  whisperd transcribe *.mp3 podcasts/ --output-dir              (podcasts/one.mp3 -> podcasts/one.txt)
  whisperd transcribe 'lectures/**/*.mp4' --output-dir texts --format txt,srt
  whisperd transcribe --watch ~/dictations
  whisperd transcribe --microphone --language en
  ffmpeg -i film.mkv -map 0:a:1 -f wav - | whisperd transcribe -
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="sound or video files, folders of them, quoted globs, - for standard input",
    )
    parser.add_argument(
        "--format",
        action="append",
        metavar="FORMAT",
        help=f"what to write: {', '.join(FORMATS)}; several with commas between them (default text; txt is the same)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--output", "-o", metavar="FILE", type=Path, help="file to write, for one recording")
    output.add_argument(
        "--output-dir",
        metavar="FOLDER",
        nargs="?",
        const="",
        help="write a file for each recording into this folder; without a folder, beside the recording",
    )
    parser.add_argument(
        "--watch",
        metavar="FOLDER",
        type=Path,
        help="transcribe what lies in this folder and what comes, until told to end",
    )
    parser.add_argument(
        "--microphone",
        action="store_true",
        help="record until Enter or Ctrl-C, then transcribe that (pip install 'whisperd[microphone]')",
    )
    parser.add_argument(
        "--seconds", type=_seconds, metavar="N", help="with --microphone: stop recording after so many seconds"
    )
    parser.add_argument("--force", action="store_true", help="transcribe again what has its files already")
    parser.add_argument("--language", default="", help="spoken language, such as en or German (default: detected)")
    parser.add_argument("--prompt", default="", help="names and words to expect, in a sentence")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy; up to 1 samples (default 0)")
    parser.add_argument("--words", action="store_true", help="word times too (with verbose_json)")
    parser.add_argument("--local", action="store_true", help="load the model here even if a server runs")
    add_settings(
        parser, {"host", "port", "backend", "model", "device", "precision", "threads", "beam_size", "tls_cert"}
    )


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    formats = formats_of(options.format or ["text"])
    words = options.words and "verbose_json" in formats  # finding them moves the times of segments
    results = _results(options, formats, words=words)
    transcriber = Transcriber(settings)
    asked = transcriber.options(
        language=options.language, prompt=options.prompt, temperature=options.temperature, words=words
    )  # what cannot be asked fails before anything is loaded
    if options.watch is not None:
        with _door(settings, transcriber, asked, local=options.local) as transcribe:
            _watch(options.watch, results, transcribe, force=options.force)
        return 0
    with tempfile.TemporaryDirectory(prefix="whisperd-") as spool:
        sources = _named(options, Path(spool))
        if options.output is not None and len(sources) > 1:
            raise InvalidRequest("--output names one file, for one recording; --output-dir writes a file for each.")
        for source in sources:
            results.claim(source)
        todo = _not_done(sources, results, force=options.force)
        if not todo:
            return 0
        with _door(settings, transcriber, asked, local=options.local) as transcribe:
            failures = run_batch(todo, results, transcribe)
        if options.microphone and any(failure.name == sources[-1].name for failure in failures):
            _keep(sources[-1])
    if failures and len(sources) > 1:
        print(f"\n{len(failures)} of {len(sources)} recordings failed:\n{table_of(failures)}", file=sys.stderr)
    return 1 if failures else 0


def _results(options: argparse.Namespace, formats: tuple[str, ...], *, words: bool) -> Results:
    folder = Path(options.output_dir) if options.output_dir else None
    if folder is not None and folder.is_file():
        raise InvalidRequest(f"{folder} is a file, not a folder; say --output-dir behind the recordings.")
    if options.output is not None and options.output.is_dir():
        raise InvalidRequest(f"{options.output} is a folder; --output-dir writes into folders.")
    if options.seconds is not None and not options.microphone:
        raise InvalidRequest("--seconds says how long to record: it goes with --microphone.")
    if options.watch is not None:
        _check_watch(options)
    beside = options.output_dir == "" or (options.watch is not None and folder is None)
    return Results(formats, words=words, file=options.output, folder=folder, beside=beside)


def _check_watch(options: argparse.Namespace) -> None:
    if options.paths or options.microphone or options.output is not None:
        raise InvalidRequest("--watch takes a folder and nothing else; --output-dir says where the texts go.")
    if not options.watch.is_dir():
        raise InvalidRequest(f"There is no folder {str(options.watch)!r} to watch.")


def _watch(folder: Path, results: Results, transcribe: Transcribe, *, force: bool) -> None:
    """Watch ``folder`` until Ctrl-C or SIGTERM, which are its usual ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"Watching {folder}; Ctrl-C ends it.", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        watch(folder, results, transcribe, time.sleep, force=force)


def _named(options: argparse.Namespace, spool: Path) -> list[Source]:
    if options.microphone:
        path = spool / time.strftime("recording-%Y-%m-%d-%H%M%S.wav")
        microphone.record(path, options.seconds)
        return [*sources_of(options.paths, spool), recorded(path, path.name)]
    if not options.paths:
        raise InvalidRequest("Say what to transcribe: a file, a folder, - for standard input, or --microphone.")
    return sources_of(options.paths, spool)


def _keep(source: Source) -> None:
    """What somebody said is not lost where it could not be transcribed."""
    shutil.move(source.path, source.name)
    print(f"The recording is kept: {source.name}", file=sys.stderr)


def _seconds(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(word) < math.inf:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds above 0")


def _not_done(sources: list[Source], results: Results, *, force: bool) -> list[Source]:
    """The sources that want work; of the others it is said where their texts are."""
    todo = []
    for source in sources:
        if force or not results.done(source):
            todo.append(source)
        else:
            there = ", ".join(map(str, results.targets(source).values()))
            print(f"{source.name}: done already, in {there} (--force does it again)", file=sys.stderr)
    return todo


@contextlib.contextmanager
def _door(settings: Settings, transcriber: Transcriber, asked: Options, *, local: bool) -> Iterator[Transcribe]:
    """The running server if there is one, else the engine here, with its model kept warm."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(settings))
        if not local and client.runs():
            yield through_server(client, asked)
        else:
            yield in_process(stack.enter_context(transcriber), asked)
