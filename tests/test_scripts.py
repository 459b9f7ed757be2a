from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [*sorted(path for path in (ROOT / "scripts").iterdir() if path.suffix != ".md"), ROOT / ".ci" / "run"]
MAC_CHECK = ROOT / "scripts" / "mac-check"
NEWER_BASH = re.compile(
    r"\b(?:mapfile|readarray|wait -n|declare -A|local -A|coproc)\b|\$\{\w+[,^]{1,2}\}|&>>|\|&", re.ASCII
)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_well_formed(script: Path) -> None:
    done = run("bash", "-n", script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = run("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_needs_nothing_newer_than_the_macs_bash(script: Path) -> None:
    """bash 3.2 lacks these; ``bash -n`` of a newer one takes them all."""
    assert not NEWER_BASH.findall(script.read_text())


def test_mac_check_explains_each_of_its_steps() -> None:
    source = MAC_CHECK.read_text()
    steps = re.findall(r"^STEPS='(.*)'$", source, re.MULTILINE)[0].split()
    assert len(steps) >= 10
    assert sorted(re.findall(r"^step_(\w+)\(\)", source, re.MULTILINE)) == sorted(steps)
    done = run(MAC_CHECK, "--help")
    assert done.returncode == 0
    assert re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE) == steps
    assert "Not yet run on a Mac" in done.stdout


@pytest.mark.parametrize("words", [("--only", "nonsense"), ("--nonsense",), ("--model",)])
def test_mac_check_refuses_what_it_does_not_know(words: tuple[str, ...]) -> None:
    done = run(MAC_CHECK, *words)
    assert done.returncode == 1
    assert re.fullmatch(r"[^\n]+\.\n", done.stderr)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac is what it is for")
def test_mac_check_says_that_it_is_for_a_mac() -> None:
    done = run(MAC_CHECK)
    assert done.returncode == 1
    assert done.stderr.startswith("scripts/mac-check is for a Mac with Apple Silicon; this is ")
    assert done.stdout == ""
