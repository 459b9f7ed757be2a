"""What is named on the command line as recordings."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.batch.sources import sources_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.MP3", "notes.pdf", ".hidden.wav", "below/c.flac", "below/deep/d.mkv", ".cache/e.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(folder: Path, *words: str) -> list[str]:
    return [source.name for source in sources_of(words, folder)]


def test_a_file_is_taken_as_it_is_and_a_folder_is_searched(folder: Path) -> None:
    assert named(folder, "in/notes.pdf", "in") == [
        "in/notes.pdf",
        "in/a.MP3",
        "in/b.wav",
        "in/below/c.flac",
        "in/below/deep/d.mkv",
    ]
    assert [str(source.below) for source in sources_of(["in"], folder)][-1] == "below/deep/d.mkv"
    assert [str(source.below) for source in sources_of(["in/below/c.flac"], folder)] == ["c.flac"]


def test_a_glob_that_no_shell_expanded_is_expanded(folder: Path) -> None:
    assert named(folder, "in/*.wav") == ["in/b.wav"]
    assert named(folder, "in/**/*.flac") == ["in/below/c.flac"]
    assert named(folder, str(folder / "in" / "*.wav")) == [str(folder / "in" / "b.wav")]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "talk[1].wav").write_bytes(b"")
    (folder / "talk1.wav").write_bytes(b"")
    assert named(folder, "talk[1].wav") == ["talk[1].wav"]


def test_the_same_file_is_taken_once(folder: Path) -> None:
    (folder / "link.wav").symlink_to(folder / "in" / "b.wav")
    assert named(folder, "in/b.wav", "./in/b.wav", "link.wav", "in/*.wav") == ["in/b.wav"]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("nowhere.wav", "There is no such file."),
        ("*.ogg", "Nothing has a name like that."),
        ("empty", "There are no recordings in this folder."),
    ],
)
def test_what_names_no_recording_is_one_with_a_problem(folder: Path, word: str, problem: str) -> None:
    (folder / "empty").mkdir()
    assert [(source.name, source.problem) for source in sources_of([word], folder)] == [(word, problem)]


def test_standard_input_is_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"sound")))
    (source,) = sources_of(["-", "-"], folder)
    assert (source.name, source.path.read_bytes()) == ("stdin", b"sound")
