"""``whisperd completion``: a script by which a shell completes our commands, flags, files and choices."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import shtab

from app.backends import BACKENDS
from app.batch.results import FORMAT_NAMES
from app.languages import LANGUAGES
from app.model_names import ALIASES, CHECKPOINTS, MICRO
from app.settings import Settings

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
where the script goes, once; a new terminal knows it then:
  bash   whisperd completion bash > ~/.local/share/bash-completion/completions/whisperd
         (with the package bash-completion; without it: eval "$(whisperd completion bash)" in ~/.bashrc)
  zsh    whisperd completion zsh > ~/.zfunc/_whisperd
         (in ~/.zshrc: fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit)
  fish   whisperd completion fish > ~/.config/fish/completions/whisperd.fish
"""

#: What a flag's or argument's value is by the name that --help gives it.
_KINDS = {
    "FILE": shtab.FILE,
    "FILE.png": shtab.FILE,
    "PATH": shtab.FILE,
    "FOLDER": shtab.DIRECTORY,
    "SRC": shtab.DIRECTORY,
}
#: The values of a flag, by its name: there may be others, so that argparse holds nobody to them.
_VALUES = {
    "backend": BACKENDS,
    "fallback": BACKENDS,
    "format": FORMAT_NAMES,
    "language": LANGUAGES,
    "model": (MICRO, *CHECKPOINTS, *ALIASES),
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=SHELLS, help="the shell that shall complete")


def run(options: argparse.Namespace) -> int:
    _prepare(options.parser)
    print(shtab.complete(options.parser, options.shell))
    return 0


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Tell of each argument below ``parser`` what its values are."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _prepare(below)
        elif not action.choices and (values := _values_of(action.dest)):
            action.choices = values
        elif kind := _kind_of(action):
            action.complete = kind  # type: ignore[attr-defined] # shtab's way


def _values_of(name: str) -> tuple[str, ...]:
    if name in _VALUES:
        return tuple(_VALUES[name])
    words = get_args(_annotation(name))
    return words if words and all(isinstance(word, str) for word in words) else ()


def _kind_of(action: argparse.Action) -> object:
    if isinstance(action.metavar, str) and action.metavar in _KINDS:
        return _KINDS[action.metavar]
    kind = _annotation(action.dest)
    if kind is Path or Path in get_args(kind):
        return shtab.DIRECTORY if action.dest.endswith("_dir") else shtab.FILE
    return None


def _annotation(name: str) -> Any:
    """The type of the setting ``name``; None for other flags."""
    return Settings.model_fields[name].annotation if name in Settings.model_fields else None
