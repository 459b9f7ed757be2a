"""Every command of the documentation is run: here, or by the test that is named here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import _parser
from tests.conftest import Server, clips
from tests.docs.commands import ROOT, Example, commands, programs

#: How a command begins -> the test that runs it, or why none can.
ELSEWHERE = {
    "git clone": "a clone is what the tests stand in",
    "scripts/demo": "tests/test_scripts.py",
    "scripts/test": "it runs this",
    "scripts/check": ".ci/run runs it",
    ".venv/bin/python -m tests.hostile.fuzz": "tests/hostile/test_fuzz.py",
    ".venv/bin/python -m tests.hostile.kill_decoders": "tests/hostile/test_native_crashes.py",
    ".venv/bin/python -m benchmarks.soak": "by hand: docs/reliability.md has its figures",
    "scripts/serve": "tests/commands/test_serve.py",
    ".venv/bin/whisperd models pull": "tests/commands/test_cli.py",
    "whisperd models": "tests/commands/test_cli.py",
    "whisperd transcribe --watch": "tests/commands/test_transcribe.py",
    "whisperd transcribe --microphone": "tests/commands/test_transcribe.py",
    "ffmpeg -i film.mkv": "tests/commands/test_transcribe.py",
    'eval "$(whisperd completion': "tests/commands/test_completion.py",
    "whisperd serve": "tests/commands/test_serve.py",
    "whisperd service": "tests/e2e/test_service.py",
    "loginctl": "it changes the machine that the tests run on",
    "docker": "needs Docker; built and run by hand with buildah (CHANGELOG.md)",
    "pip install": "it would change what the tests stand in",
    "export KEY": "a word of the next line",
    "curl -N -X POST http://127.0.0.1:9447/v1/models": "tests/api/test_models.py",
    "curl -X POST http://127.0.0.1:9447/v1/models": "tests/api/test_models.py",
    "curl -X DELETE http://127.0.0.1:9447/v1/models": "tests/api/test_models.py",
    "curl http://127.0.0.1:9447/v1/audio/translations": "tests/api/test_translations.py",
    "dns-sd": "a program of macOS; tests/lan/test_bonjour.py looks with a library",
    "avahi-browse": "a program of Linux; tests/lan/test_bonjour.py looks with a library",
}
#: What an answer of each must hold, besides that it succeeds.
HEARD = "old gentleman"
URL = "http://127.0.0.1:9447"
CLIP = clips("en000")[0]
#: Programs that want a package which is not always here.
NEEDS = {"litellm": "litellm", "langchain": "langchain_community"}

COMMANDS, PROGRAMS = commands(), programs()


def named(example: Example) -> str | None:
    """Where it is run, if not here."""
    return next((ELSEWHERE[start] for start in ELSEWHERE if example.text.startswith(start)), None)


HERE = [each for each in COMMANDS if named(each) is None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where somebody stands who types them, with recordings."""
    for name in ("talk.m4a", "podcast.mp3", "other.mp3"):
        shutil.copy(CLIP.path, tmp_path / name)
    (tmp_path / "lectures").mkdir()
    shutil.copy(CLIP.path, tmp_path / "lectures" / "one.mp4")
    return tmp_path


def run(words: list[str], folder: Path, server: Server) -> str:
    port = server.url.rpartition(":")[2]
    environment = {
        **os.environ,
        "WHISPERD_PORT": port,
        "WHISPERD_KEYS_FILE": str(folder / "keys.json"),
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_commands_and_each_page_of_them_is_read() -> None:
    assert len(HERE) > 10
    assert {"README.md", "clients.md"} <= {each.page for each in HERE}
    assert len(PROGRAMS) > 5


@pytest.mark.parametrize("where", sorted({each for each in ELSEWHERE.values() if each.startswith("tests/")}))
def test_a_test_that_runs_the_others_is_there(where: str) -> None:
    assert (ROOT / where).is_file()


@pytest.mark.parametrize("start", ELSEWHERE)
def test_none_is_named_that_is_not_in_the_documentation(start: str) -> None:
    assert any(each.text.startswith(start) for each in COMMANDS)


OURS = [each for each in COMMANDS if re.match(r"(\S*/)?whisperd |scripts/serve", each.text)]


@pytest.mark.parametrize("example", OURS, ids=str)
def test_our_own_commands_are_words_that_the_command_line_knows(example: Example) -> None:
    first, *words = example.words
    words = ["serve", *words] if first == "scripts/serve" else words
    try:
        _parser(words[0]).parse_args(words)
    except SystemExit:
        pytest.fail(f"{example.text} is no command")


@pytest.mark.parametrize("example", HERE, ids=str)
def test_a_command_does_what_it_says(example: Example, folder: Path, server: Server) -> None:
    words = [word.replace(URL, server.url) for word in example.words]
    if any("<id>" in word for word in words):
        accepted = run(["curl", "-s", f"{server.url}/v1/audio/transcriptions", "-F", "file=@talk.m4a",
                        "-H", "Prefer: respond-async"], folder, server)  # fmt: skip
        (job,) = re.findall(r'"id":"(\w+)"', accepted.replace(" ", ""))[:1]
        words = [word.replace("<id>", job) for word in words]
        wait = ["-s", "--retry", "20", "--retry-delay", "1", "--retry-all-errors", "--fail"]
        words[1:1] = wait
    elif words[0] == "curl":
        words[1:1] = ["-s", "--fail-with-body"]
    if words[0] == "whisperd":
        if words[1:3] == ["keys", "revoke"]:
            run([sys.executable, "-m", "app", "keys", "add", words[3]], folder, server)
        words = [sys.executable, "-m", "app", *words[1:]]
        words = [name for word in words for name in (sorted(map(str, folder.glob(word))) if "*" in word else [word])]
    said = run(words, folder, server)
    if "transcri" in example.text and "-i " not in example.text and "--output" not in example.text:
        assert HEARD in said, said
    if "--output" in example.text:
        written = [path for path in folder.rglob("*") if path.suffix in (".srt", ".txt")]
        assert written
        assert all(HEARD in path.read_text() for path in written)


@pytest.mark.parametrize("example", PROGRAMS, ids=str)
def test_a_program_prints_what_is_said(example: Example, folder: Path, server: Server) -> None:
    for name, module in NEEDS.items():
        if name in example.text and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not here")
    if "langchain" in example.text and shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not here")
    code = example.text.replace(URL, server.url).replace('"large-v3-turbo"', '"micro"')
    code = code.replace('"podcast.mp3"', '"talk.m4a"')
    said = run([sys.executable, "-c", code], folder, server)
    assert "gentleman" in said, said
