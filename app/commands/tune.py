"""``whisperd tune``: whether a model reads short windows at their own length as well as at 30 s, and how fast."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from app.commands.flags import add_settings, settings_of
from app.engine.build import catalog_of
from app.errors import StorageFull
from app.fitting import Verdict, Verdicts
from app.languages import language_code
from app.recordings import bundled, recordings_in
from app.settings import Settings
from app.tuning import Comparison, compare, verdict_of

_SETTINGS = {"backend", "model", "device", "precision", "threads", "beam_size", "fit_margin_s"}
_FOLDERS = {"hub_dir", "cache_dir", "state_dir"}

_EPILOG = """\
Whisper was trained on windows of 30 s, and every library encodes 30 s of sound for a dictation of 2. Many models read a
window that ends 3 s behind the speech just as well, several times faster. This command transcribes recordings both
ways and stores what it finds; `encoder_window = auto`, which is the default, goes by it.

Your own recordings are the better judge: a few minutes of what you dictate, in clips of 2 to 20 seconds. Without any,
60 sentences of synthetic English that come with whisperd are taken.

examples:
  whisperd tune --model large-v3-turbo
  whisperd tune --model large-v3-turbo ~/recordings
  whisperd tune --model small --references ~/recordings      (each talk.wav with what is said in talk.txt)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path, help="recordings, folders or manifests of them")
    parser.add_argument(
        "--references", action="store_true", help="judge by the .txt beside each recording, which holds what is said"
    )
    parser.add_argument("--language", default="", help="spoken language, such as en or German (default: detected)")
    parser.add_argument("--no-store", action="store_true", help="only say what was found")
    add_settings(parser, _SETTINGS | _FOLDERS)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    language = language_code(options.language)
    recordings = recordings_in(options.files, references=options.references) if options.files else bundled()
    model = catalog_of(settings).resolve("")
    comparison = Comparison()
    with tqdm(total=len(recordings), desc=model.name, unit="recording", disable=not sys.stderr.isatty()) as bar:
        for comparison in compare(settings, recordings, language):
            bar.update()
            bar.set_postfix_str(f"{comparison.gain:.1f} x, {comparison.differing} of {comparison.words} words differ")
    verdict = verdict_of(comparison, settings, model.path)
    print(_sentence(comparison, verdict, model.name))
    if not options.no_store:
        _store(settings, verdict)
    return 0


def _sentence(found: Comparison, verdict: Verdict, model: str) -> str:
    errors = f"; {found.fitted_errors} errors instead of {found.whole_errors}" if found.referenced else ""
    said = (
        f"{model} on {verdict.backend} with {verdict.margin_s:g} s of silence behind each window: "
        f"{found.gain:.1f} times faster, {found.differing} of {found.words} words differ{errors}; "
        f"{found.reruns} of {found.windows} windows had to be encoded again, longer."
    )
    if verdict.fit:
        return f"{said}\nIts windows can be fitted."
    if found.no_worse:
        return f"{said}\nThat gains too little: its windows stay whole."
    worse = f"{found.more_errors} errors more" if found.referenced else "too many words that differ"
    return f"{said}\nThat is {worse}: its windows stay whole."


def _store(settings: Settings, verdict: Verdict) -> None:
    try:
        Verdicts(settings.state_dir).store(verdict)
    except OSError as error:
        raise StorageFull(f"The result could not be stored in {settings.state_dir} ({error.strerror}).") from None
    print("Stored; encoder_window auto goes by it from the next request on.")
