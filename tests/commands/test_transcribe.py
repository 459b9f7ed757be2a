"""``whisperd transcribe`` with many recordings, as people type it: a real process, mostly through a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.commands.test_cli import port_of, whisperd
from tests.conftest import Server, StartServer, clips, free_port, script_of, wait_for, word_error_rate

CLIP, OTHER = clips("en000")[0], clips("en024")[0]


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
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
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
