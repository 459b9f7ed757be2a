"""Recordings as commands are given them: files, folders, manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.recordings import SAMPLE, SPEECH, Recording, bundled, recordings_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.MP3", "notes.pdf", "below/c.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "b.txt").write_text("What is said.")
    return tmp_path


def manifest(folder: Path, rows: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps(rows))
    return path


def test_the_bundled_sentences_have_texts() -> None:
    found = bundled()
    assert len(found) == 60
    assert all(each.reference and each.language == "en" for each in found)
    assert SAMPLE.is_file()
    assert SPEECH.is_dir()


def test_a_folder_is_searched_for_sound_and_a_file_is_taken_as_it_is(folder: Path) -> None:
    found = recordings_in([folder / "notes.pdf", folder])
    assert [each.path.name for each in found] == ["notes.pdf", "a.MP3", "b.wav", "c.flac"]
    assert {each.reference for each in found} == {None}


def test_a_text_beside_a_file_is_its_reference_where_that_is_said(folder: Path) -> None:
    assert recordings_in([folder / "b.wav"], references=True) == [Recording(folder / "b.wav", "What is said.")]
    with pytest.raises(InvalidRequest, match=r"a\.MP3 has no text beside it"):
        recordings_in([folder], references=True)


def test_a_manifest_names_files_beside_it_texts_and_languages(folder: Path) -> None:
    rows = [{"file": "b.wav", "text": "Ja.", "language": "German", "voice": "x"}, {"file": "below/c.flac"}]
    assert recordings_in([manifest(folder, rows)]) == [
        Recording(folder / "b.wav", "Ja.", "de"),
        Recording(folder / "below/c.flac"),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"file": "b.wav"}, "manifest.json is not a list"),
        ([], "not a list of recordings"),
        (["b.wav"], "Entry 1 of manifest.json is not like"),
        ([{"file": "b.wav"}, {"text": "No file."}], "Entry 2 of manifest.json is not like"),
        ([{"file": "b.wav", "text": 3}], "Entry 1 of manifest.json is not like"),
        ([{"file": "gone.wav"}], "names 'gone.wav', and there is no such file"),
        ([{"file": "b.wav", "language": "Klingon"}], "Entry 1 of manifest.json: The language 'klingon'"),
    ],
)
def test_what_is_no_manifest_is_a_sentence(folder: Path, rows: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        recordings_in([manifest(folder, rows)])


def test_nothing_to_transcribe_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no recordings in that folder"):
        recordings_in([tmp_path])
    with pytest.raises(InvalidRequest, match="no file or folder"):
        recordings_in([tmp_path / "gone.wav"])
    (tmp_path / "m.json").write_text("[")
    with pytest.raises(InvalidRequest, match=r"m.json is not JSON"):
        recordings_in([tmp_path / "m.json"])
