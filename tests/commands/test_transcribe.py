"""``whisperd transcribe`` with many recordings, as people type it: a real process, mostly through a real server."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.commands.terminal import Terminal
from tests.commands.test_cli import port_of, whisperd
from tests.conftest import Server, StartServer, clips, free_port, join_clips, script_of, wait_for, word_error_rate

CLIP, OTHER = clips("en000")[0], clips("en024")[0]


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command while the context is open, and no longer."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of recordings, one of them in a folder of its own, and one that is none."""
    for name, clip in (("talk.flac", CLIP), ("below/other.flac", OTHER)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, tmp_path / "in" / name)
    (tmp_path / "in" / "broken.wav").write_text("no sound in here")
    return tmp_path


def test_a_folder_is_transcribed_beside_its_files_and_a_table_says_what_failed(server: Server, folder: Path) -> None:
    words = ("transcribe", folder / "in", "--port", port_of(server), "--output-dir", "--format", "txt,srt")
    result = whisperd(*words)
    assert result.returncode == 1
    assert (folder / "in" / "talk.txt").read_text().strip() == CLIP.text
    assert "-->" in (folder / "in" / "below" / "other.srt").read_text()
    assert sorted(path.name for path in (folder / "in").iterdir()) == [
        "below", "broken.wav", "talk.flac", "talk.srt", "talk.txt",
    ]  # fmt: skip
    *lines, _, count, row = result.stderr.splitlines()
    assert len(lines) == 3, "a line for each file and nothing else where there is no terminal"
    assert count == "1 of 3 recordings failed:"
    assert row.split(maxsplit=1) == [str(folder / "in" / "broken.wav"), "The file is a text file, not sound."]
    assert result.stdout == ""

    again = whisperd(*words)
    assert again.returncode == 1
    assert again.stderr.count("done already") == 2
    forced = whisperd(*words, "--force")
    assert "done already" not in forced.stderr
    assert forced.stderr.count(" -> ") == 2


def test_a_recording_that_changed_is_done_again(server: Server, folder: Path) -> None:
    words = ("transcribe", "--port", port_of(server), folder / "in" / "talk.flac", "--output-dir", folder / "texts")
    assert whisperd(*words).returncode == 0
    shutil.copy(OTHER.path, folder / "in" / "talk.flac")
    os.utime(folder / "texts" / "talk.txt", (1, 1))
    assert whisperd(*words).returncode == 0
    assert word_error_rate([OTHER.text], [(folder / "texts" / "talk.txt").read_text()]) == 0


def test_standard_input_is_a_recording(server: Server) -> None:
    with CLIP.path.open("rb") as sound:
        done = subprocess.run(
            [sys.executable, "-m", "app", "transcribe", "-", "--port", port_of(server)],
            stdin=sound, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, CLIP.text)


def test_a_server_that_goes_away_fails_the_rest_at_once(start_server: StartServer, folder: Path) -> None:
    server = start_server(backend="fake", model=script_of(folder, seconds_per_step=60), drain_s=0)
    words = ["transcribe", folder / "in" / "talk.flac", folder / "in" / "below", "--port", port_of(server)]
    command = [sys.executable, "-m", "app", *map(str, words)]
    with running(command) as process:
        wait_for(lambda: bool(httpx.get(f"{server.url}/v1/queue").json()["data"]), 30)
        server.process.kill()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "2 of 2 recordings failed" in said
    assert said.count("The server went away before it answered") == 4
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Say what to transcribe"),
        (["nowhere.wav"], "nowhere.wav: There is no such file."),
        (["*.ogg"], "*.ogg: Nothing has a name like that."),
        ([CLIP.path, OTHER.path, "--output", "one.txt"], "--output names one file"),
        ([CLIP.path, "--output", "."], "--output-dir writes into folders"),
        ([CLIP.path, "--output", "one.txt", "--format", "txt,srt"], "One file holds one format"),
        (["--output-dir", CLIP.path], "say --output-dir behind the recordings"),
        ([CLIP.path, "--seconds", "3"], "it goes with --microphone"),
        ([CLIP.path, "--watch", "."], "--watch takes a folder and nothing else"),
        (["--watch", "nowhere"], "There is no folder 'nowhere' to watch."),
        ([CLIP.path, "--format", "docx"], "There is no format 'docx'"),
        ([CLIP.path, "--language", "Klingon"], "klingon"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(words: list[object], said: str, tmp_path: Path) -> None:
    result = whisperd("transcribe", "--port", free_port(), "--model", "micro", "--backend", "faster-whisper", *words)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_two_recordings_of_one_name_are_an_error_before_work_begins(folder: Path) -> None:
    shutil.copy(CLIP.path, folder / "in" / "talk.wav")
    result = whisperd("transcribe", folder / "in", "--output-dir", "--port", free_port())
    assert result.returncode == 1
    assert "would both be written to" in result.stderr
    assert not list(folder.rglob("*.txt"))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_watched_folder_is_transcribed_as_files_come_whole(server: Server, tmp_path: Path, end: int) -> None:
    shutil.copy(CLIP.path, tmp_path / "here.flac")
    command = [sys.executable, "-m", "app", "transcribe", "--watch", str(tmp_path), "--port", port_of(server)]
    with running(command) as process:
        wait_for((tmp_path / "here.txt").exists, 60)
        sound = OTHER.path.read_bytes()
        with (tmp_path / "slow.flac").open("wb", buffering=0) as file:
            for start in range(0, len(sound), len(sound) // 8 + 1):
                file.write(sound[start : start + len(sound) // 8 + 1])
                before = time.monotonic()
                wait_for(lambda since=before: time.monotonic() - since > 0.4, 5)
        wait_for((tmp_path / "slow.txt").exists, 60)
        process.send_signal(end)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert word_error_rate([CLIP.text], [(tmp_path / "here.txt").read_text()]) == 0
    assert word_error_rate([OTHER.text], [(tmp_path / "slow.txt").read_text()]) == 0
    assert said.count(" -> ") == 2, "each was done once, when it was whole"
    assert "Traceback" not in said


def test_a_watcher_waits_for_a_server_that_comes_back(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    script = script_of(tmp_path, text=" back")
    server = start_server(backend="fake", model=script)
    command = [sys.executable, "-m", "app", "transcribe", "--watch", str(folder), "--port", port_of(server)]
    with running(command) as process:
        assert process.stderr is not None
        assert "Watching" in process.stderr.readline()
        server.stop()
        shutil.copy(CLIP.path, folder / "talk.flac")
        assert "tried again until it works" in process.stderr.readline()
        start_server(backend="fake", model=script, port=int(port_of(server)))
        wait_for((folder / "talk.txt").exists, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert (folder / "talk.txt").read_text() == "back\n"


#: What stands in for the library and the microphone: it gives a recording's samples to the callback, in blocks, and
#: then silence, faster than time passes.
_SOUNDDEVICE = """
import threading, time, wave

class PortAudioError(Exception):
    pass

class RawInputStream:
    def __init__(self, samplerate, channels, dtype, callback):
        if {problem!r}:
            raise PortAudioError({problem!r})
        assert (samplerate, channels, dtype) == (16000, 1, "int16")
        self.callback, self.over = callback, False

    def __enter__(self):
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def __exit__(self, *exception):
        self.over = True
        self.thread.join()

    def play(self):
        with wave.open({clip!r}) as file:
            while not self.over:
                block = file.readframes(1600) or bytes(3200)
                self.callback(memoryview(block), len(block) // 2, None, None)
                time.sleep(0.02)
"""


@pytest.fixture
def microphone(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment in which sounddevice is the stand-in."""
    clip = join_clips([CLIP], tmp_path / "clip.wav")

    def environment(problem: str = "", code: str = _SOUNDDEVICE) -> dict[str, str]:
        (tmp_path / "library").mkdir(exist_ok=True)
        (tmp_path / "library" / "sounddevice.py").write_text(code.format(problem=problem, clip=str(clip.path)))
        return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "library"), *sys.path])}

    return environment


def test_the_microphone_is_recorded_for_so_many_seconds(server: Server, microphone: Callable[..., dict]) -> None:
    words = ("transcribe", "--microphone", "--seconds", math.ceil(CLIP.duration) + 1, "--port", port_of(server))
    result = whisperd(*words, env=microphone())
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == CLIP.text
    assert result.stderr == ""


def test_a_recording_that_could_not_be_transcribed_is_kept(
    start_server: StartServer, microphone: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = start_server(backend="fake", model=script_of(tmp_path, on_step={"1": "raise"}))
    result = whisperd("transcribe", "--microphone", "--seconds", 2, "--port", port_of(server), env=microphone())
    assert result.returncode == 1
    (kept,) = tmp_path.glob("recording-*.wav")
    assert f"The recording is kept: {kept.name}" in result.stderr
    with wave.open(str(kept)) as file:
        assert file.getnframes() >= 32_000


@pytest.mark.parametrize("end", [b"\n", b"\x03"], ids=["Enter", "Ctrl-C"])
def test_enter_and_ctrl_c_end_a_recording(server: Server, microphone: Callable[..., dict], end: bytes) -> None:
    terminal = Terminal("transcribe", "--microphone", "--port", port_of(server), environment=microphone())
    terminal.read_until(f"{math.ceil(CLIP.duration) + 1}.".encode())
    assert terminal.end_with(end) == 0
    shown = terminal.shown
    assert b"Enter ends it" in shown
    assert b"####" in shown
    assert CLIP.text.encode() in shown


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        ("No default input device", _SOUNDDEVICE, "The microphone cannot be used: No default input device."),
        ("", "raise ImportError", "pip install 'whisperd[microphone]'"),
        ("", "raise OSError('PortAudio library not found')", "apt install libportaudio2"),
    ],
)
def test_without_a_microphone_there_is_a_sentence(
    microphone: Callable[..., dict], problem: str, code: str, said: str
) -> None:
    words = ("transcribe", "--microphone", "--port", free_port(), "--model", "micro", "--backend", "faster-whisper")
    result = whisperd(*words, env=microphone(problem, code))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert said in result.stderr
