"""The ``whisperd`` command: a table of subcommands, each a module of ``app.commands`` imported when it is chosen."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from app import __version__
from app.errors import WhisperdError
from app.settings import SettingsError

#: Subcommand -> one line for --help. Each is a module ``app.commands.<name>`` with ``configure(parser)`` and
#: ``run(arguments)``.
COMMANDS = {
    "serve": "run the server",
    "transcribe": "turn recordings into text, through the running server or without one",
    "status": "show the running server and its queue, live",
    "models": "list, download and convert models",
    "keys": "make, list and revoke the keys that open the server to others",
    "service": "have the server start with this machine",
    "doctor": "find out what is wrong on this machine, and what to do about it",
    "tune": "find out whether a model can do short recordings several times faster",
    "bench": "measure every backend with every model on this machine",
    "demo": "start a server on the bundled toy model and try it",
    "completion": "print a script by which your shell completes these commands",
}

#: The command that looks at all of the others.
_WHOLE = "completion"

EXIT_FAILED = 1
#: What shells report for a program that Ctrl-C ended (128 + SIGINT).
EXIT_INTERRUPTED = 130

_EPILOG = """\
examples:
  whisperd models pull large-v3-turbo      download a model
  whisperd serve                           serve it on http://127.0.0.1:9447
  whisperd transcribe talk.m4a             print what is said in it
  whisperd transcribe *.mp3 --format srt --output-dir subtitles
  whisperd transcribe --watch ~/dictations write a text beside each recording that comes
  whisperd status                          watch the queue
  curl http://127.0.0.1:9447/v1/audio/transcriptions -F file=@talk.m4a -F model=whisper-1

`whisperd COMMAND --help` says more. Every setting is also a WHISPERD_* variable and a line in the configuration file.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (the process's own by default); returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words[0] if words else None)
    options = parser.parse_args(words, argparse.Namespace(parser=parser))
    try:
        return int(importlib.import_module(f"app.commands.{options.command}").run(options))
    except (WhisperdError, SettingsError) as error:
        print(f"whisperd: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return EXIT_FAILED


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="whisperd",
        description="Keeps Whisper warm on this machine and answers OpenAI's audio API.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"whisperd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        if chosen in (name, _WHOLE):
            importlib.import_module(f"app.commands.{name}").configure(command)
    return parser
