"""``whisperd completion``, asked as the shells ask: by the shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.test_cli import whisperd

#: Makes bash complete the words that it is given, and prints what it offers.
_BASH = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
complete=$(complete -p whisperd); function=${complete#*-F }; ${function%% *} whisperd "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

#: Words that somebody typed -> what is to be offered, and what is not.
CASES = [
    (["tr"], {"transcribe"}, set()),
    (["models", ""], {"list", "pull", "convert"}, {"transcribe"}),
    (["transcribe", "ta"], {"talk.m4a"}, {"podcasts"}),
    (["transcribe", "talk.m4a", "po"], {"podcasts"}, {"talk.m4a"}),
    (["transcribe", "--fo"], {"--format", "--force"}, {"--output"}),
    (["transcribe", "--format", "s"], {"srt"}, {"vtt"}),
    (["transcribe", "--watch", ""], {"podcasts"}, {"talk.m4a"}),
    (["serve", "--log-level", ""], {"debug", "warning"}, {"talk.m4a"}),
    (["serve", "--tls-cert", ""], {"talk.m4a"}, {"debug"}),
    (["models", "convert", "--format", ""], set(), {"srt"}),
]
EACH = pytest.mark.parametrize(("words", "offered", "not_offered"), CASES, ids=lambda value: " ".join(sorted(value)))


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not here")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script for each shell, and where somebody stands who asks."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, name in (("bash", "bash"), ("zsh", "_whisperd"), ("fish", "whisperd.fish")):
        done = whisperd("completion", shell)
        assert done.returncode == 0, done.stderr
        (folder / name).write_text(done.stdout)
    (folder / "here" / "podcasts").mkdir(parents=True)
    (folder / "here" / "talk.m4a").touch()
    return folder


def run(words: list[str], folder: Path) -> set[str]:
    done = subprocess.run(words, cwd=folder / "here", capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return {line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()}


@EACH
def test_bash(scripts: Path, words: list[str], offered: set[str], not_offered: set[str]) -> None:
    found = run(["bash", "-c", _BASH, "bash", str(scripts / "bash"), "whisperd", *words], scripts)
    assert offered <= found
    assert not found & not_offered


@needs("fish")
@EACH
def test_fish(scripts: Path, words: list[str], offered: set[str], not_offered: set[str]) -> None:
    asked = f"source {scripts / 'whisperd.fish'}; complete --do-complete 'whisperd {' '.join(words)}'"
    found = run(["fish", "--no-config", "-c", asked], scripts)
    assert offered <= found
    assert not found & not_offered


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("whisperd tr", "whisperd transcribe "),
        ("whisperd transcribe ta", "whisperd transcribe talk.m4a "),
        ("whisperd transcribe --watch ", "whisperd transcribe --watch podcasts/"),
        ("whisperd serve --log-level w", "whisperd serve --log-level warning "),
    ],
)
def test_zsh(scripts: Path, typed: str, completed: str) -> None:
    process, terminal = pty.fork()
    if not process:
        os.chdir(scripts / "here")
        environment = {**os.environ, "PS1": "> ", "TERM": "dumb", "ZDOTDIR": str(scripts)}
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment)  # noqa: S606 - it replaces the fork of this process
    try:
        loaded = f"fpath=({scripts} $fpath); autoload -Uz compinit; compinit -u -D; echo load''ed\n"
        _until("loaded", terminal, loaded)
        _until(completed, terminal, f"{typed}\t")
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(terminal)


def _until(said: str, terminal: int, typed: str) -> None:
    """Type something, and read until the terminal shows ``said``."""
    os.write(terminal, typed.encode())
    shown, deadline = "", time.monotonic() + 30
    while said not in shown:
        assert time.monotonic() < deadline, repr(shown)
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
