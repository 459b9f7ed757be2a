"""The command line as people type it: real processes, the bundled model."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

import app
from app.cli import COMMANDS
from app.fitting import Verdicts
from tests.conftest import Recording, Server, StartServer, clips, word_error_rate

CLIP, OTHER = clips("en000")[0], clips("en024")[0]


def whisperd(
    *words: object, env: dict[str, str] | None = None, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """``before`` is a program, with its words, that starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
    environment |= {"WHISPERD_CONFIG": "/nonexistent/config.toml", **(env or {})}
    command = [*before, sys.executable, "-m", "app", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)


def port_of(server: Server) -> str:
    return server.url.rsplit(":", 1)[1]


def test_help_names_every_command_and_shows_examples() -> None:
    shown = whisperd("--help").stdout
    for word in (*COMMANDS, "examples:", "curl"):
        assert word in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = whisperd(command, "--help")
    assert result.returncode == 0
    assert "usage:" in result.stdout


def test_serve_without_weights_stops_with_the_command_that_brings_them(tmp_path: Path) -> None:
    result = whisperd("serve", "--backend", "faster-whisper", "--model", "large-v3-turbo", "--hub-dir", tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "whisperd: The model 'large-v3-turbo' is not downloaded; `whisperd models pull large-v3-turbo` downloads it.\n"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "many"], "'port'"),
        (["--backend", "kaldi"], "no backend 'kaldi'"),
        (["--model", "micro", "--host", "0.0.0.0"], "--no-auth"),
        (["--model", "micro", "--host", "203.0.113.7", "--no-auth"], "Cannot listen on 203.0.113.7"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_a_sentence(flags: list[str], said: str) -> None:
    result = whisperd("serve", *flags)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_named(server: Server) -> None:
    result = whisperd("serve", "--model", "micro", "--backend", "faster-whisper", "--port", port_of(server))
    assert result.returncode == 1
    assert f":{port_of(server)}" in result.stderr


def test_transcribe_goes_through_the_running_server(server: Server) -> None:
    result = whisperd("transcribe", CLIP.path, "--port", port_of(server), "--model", "whisper-1")
    assert result.returncode == 0, result.stderr
    assert word_error_rate([CLIP.text], [result.stdout]) == 0
    assert result.stderr == "", "no bar where there is no terminal"


def test_neither_sound_nor_key_go_through_a_proxy(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), address)
        result = whisperd("transcribe", CLIP.path, "--port", port_of(server), env=environment | {"NO_PROXY": ""})
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert word_error_rate([CLIP.text], [result.stdout]) == 0, result.stderr


def test_transcribe_sends_the_key_it_is_given(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    locked = start_server(backend="fake", model=tmp_path / "script.json", env={"WHISPERD_API_KEY": "long enough"})
    words = ("transcribe", CLIP.path, "--port", port_of(locked))
    assert "WHISPERD_API_KEY" in whisperd(*words).stderr
    assert whisperd(*words, env={"WHISPERD_API_KEY": "long enough"}).stdout.strip() == "w0"


def test_transcribe_works_without_a_server_and_writes_files(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = whisperd(
        "transcribe", CLIP.path, OTHER.path, "--model", "micro", "--backend", "faster-whisper", "--local",
        "--format", "srt", "--output-dir", folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["en000.srt", "en024.srt"]
    assert "--> " in (folder / "en000.srt").read_text()


def test_one_bad_file_does_not_stop_the_others(server: Server, tmp_path: Path) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("no sound in here")
    missing = tmp_path / "missing.wav"
    result = whisperd("transcribe", bad, missing, CLIP.path, "--port", port_of(server))
    assert result.returncode == 1
    assert word_error_rate([CLIP.text], [result.stdout]) == 0
    assert "notes.txt: The file is" in result.stderr
    assert "missing.wav" in result.stderr
    assert "Traceback" not in result.stderr


def test_words_come_with_verbose_json(server: Server) -> None:
    result = whisperd("transcribe", CLIP.path, "--port", port_of(server), "--format", "verbose_json", "--words")
    assert json.loads(result.stdout)["words"]


def test_a_bar_shows_on_a_terminal(server: Server, long_recording: Recording) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "app", "transcribe", str(long_recording.path), "--port", port_of(server)]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"long.wav" in shown
    assert b"%|" in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # what Linux says when the other side of a terminal has closed
        return b""


def test_models_lists_what_is_here_and_what_can_be_pulled(tmp_path: Path) -> None:
    shown = whisperd("models", "list", "--backend", "mlx-whisper", "--hub-dir", tmp_path).stdout
    assert "large-v3-turbo" in shown
    assert "whisperd models pull large-v3-turbo" in shown


def test_models_converts_a_checkpoint_that_then_serves(tmp_path: Path) -> None:
    checkpoint = Path(__file__).parents[2] / "app" / "data" / "micro"
    result = whisperd("models", "convert", checkpoint, "--backend", "faster-whisper", "--output", tmp_path / "mine")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "mine")
    transcript = whisperd(
        "transcribe", CLIP.path, "--model", tmp_path / "mine", "--backend", "faster-whisper", "--local"
    )
    assert word_error_rate([CLIP.text], [transcript.stdout]) == 0


def test_the_demo_ends_by_itself_when_told_to() -> None:
    result = whisperd("demo", "--once", "--backend", "faster-whisper", "--port", "0")
    assert result.returncode == 0, result.stderr
    assert "The old gentleman closed the book and looked at the fire." in result.stdout
    assert "times real time" in result.stdout
    assert "curl http://127.0.0.1:" in result.stdout


def test_tune_measures_says_what_it_found_and_stores_it(tmp_path: Path) -> None:
    speech = sorted((Path(app.__file__).parent / "data" / "speech").glob("*.ogg"))[:20]
    words = ["tune", "--model", "micro", "--backend", "faster-whisper", "--language", "en", "--state-dir", tmp_path]
    result = whisperd(*words, "--references", *speech)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "micro on faster-whisper with 3 s of silence behind each window:" in said
    assert "of 20 windows had to be encoded again, longer." in said
    verdict = Verdicts(tmp_path).find("faster-whisper", "micro")
    assert verdict is not None
    assert ("can be fitted" in said) == verdict.fit
    assert verdict.gain > 1
    assert 200 <= verdict.words < 300
    assert not whisperd(*words, "--no-store", *speech).returncode
    assert Verdicts(tmp_path).all() == [verdict]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([CLIP.path], "words only; it takes 200"),
        (["nowhere.wav"], "no file or folder 'nowhere.wav'"),
        ([CLIP.path, "--references"], "en000.flac has no text beside it"),
        (["--fit-margin-s", "0"], "'fit_margin_s'"),
        (["--language", "Klingon"], "Klingon"),
        ([Path(__file__)], "test_cli.py cannot be transcribed"),
    ],
)
def test_what_tune_cannot_use_is_a_sentence(tmp_path: Path, words: list[object], said: str) -> None:
    result = whisperd("tune", "--model", "micro", "--backend", "faster-whisper", "--state-dir", tmp_path, *words)
    assert result.returncode == 1
    assert said.lower() in result.stderr.lower()
    assert result.stderr.count("\n") == 1
    assert not Verdicts(tmp_path).all()
