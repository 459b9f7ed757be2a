"""Where texts go, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.batch.results import Results, formats_of
from app.batch.sources import Source, recorded, sources_of
from app.errors import InvalidRequest
from app.transcript import Segment, Transcript

TRANSCRIPT = Transcript("en", 2.0, (Segment(0.0, 1.5, " Hello.", 0, (1,), 0.0, -0.2, 1.0, 0.0),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/talk.mp3", "in/below/deep.v2.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def source_of(path: Path) -> Source:
    (source,) = sources_of([str(path)], path.parent)
    return source


def test_formats_are_listed_with_commas_or_word_by_word() -> None:
    assert formats_of(["txt,srt", "vtt", "text"]) == ("text", "srt", "vtt")
    with pytest.raises(InvalidRequest, match="no format 'docx'"):
        formats_of(["docx"])


def test_texts_go_beside_the_recording(folder: Path) -> None:
    source = source_of(folder / "in" / "talk.mp3")
    written = Results(("text", "srt"), beside=True).write(source, TRANSCRIPT)
    assert written == [folder / "in" / "talk.txt", folder / "in" / "talk.srt"]
    assert written[0].read_text() == "Hello.\n"
    assert "--> 00:00:01,500" in written[1].read_text()


def test_texts_of_a_folder_keep_their_path_in_another_one(folder: Path) -> None:
    results = Results(("vtt",), folder=folder / "out")
    below, talk = sources_of([str(folder / "in")], folder)
    assert results.write(below, TRANSCRIPT) == [folder / "out" / "below" / "deep.v2.vtt"]
    assert results.write(talk, TRANSCRIPT) == [folder / "out" / "talk.vtt"]


def test_standard_input_has_its_text_where_we_stand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Results(("text",), beside=True).write(recorded(folder / "spooled", "stdin"), TRANSCRIPT)
    assert (folder / "stdin.txt").read_text() == "Hello.\n"


def test_a_file_is_whole_has_the_modes_of_others_and_no_part_stays(folder: Path) -> None:
    target = folder / "talk.txt"
    target.write_text("as before")
    umask = os.umask(0o027)
    try:
        Results(("text",), file=target).write(source_of(folder / "in" / "talk.mp3"), TRANSCRIPT)
    finally:
        os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.read_text() == "Hello.\n"
    assert sorted(path.name for path in folder.iterdir()) == ["in", "talk.txt"]


def test_a_link_stays_one_and_what_is_no_file_is_written_to(folder: Path) -> None:
    link = folder / "link.txt"
    link.symlink_to(folder / "real.txt")
    source = source_of(folder / "in" / "talk.mp3")
    Results(("text",), file=link).write(source, TRANSCRIPT)
    assert link.is_symlink()
    assert (folder / "real.txt").read_text() == "Hello.\n"
    Results(("text",), file=Path(os.devnull)).write(source, TRANSCRIPT)
    assert Path(os.devnull).is_char_device()


def test_two_recordings_for_one_file_are_an_error(folder: Path) -> None:
    (folder / "in" / "talk.wav").write_bytes(b"")
    results = Results(("text",), beside=True)
    results.claim(source_of(folder / "in" / "talk.mp3"))
    results.claim(source_of(folder / "in" / "talk.mp3"))
    with pytest.raises(InvalidRequest, match=r"talk\.mp3 and .*talk\.wav would both be written to .*talk\.txt"):
        results.claim(source_of(folder / "in" / "talk.wav"))


def test_a_recording_is_never_written_over(folder: Path) -> None:
    (folder / "talk.txt").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="would be written over it"):
        Results(("text",), beside=True).claim(source_of(folder / "talk.txt"))


@pytest.mark.parametrize("formats", [("json", "verbose_json"), ("verbose_json", "srt", "json")])
def test_two_formats_for_one_file_are_an_error(formats: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="same file"):
        Results(formats, beside=True)


def test_what_has_all_its_files_none_older_is_done(folder: Path) -> None:
    source = source_of(folder / "in" / "talk.mp3")
    results = Results(("text", "srt"), beside=True)
    assert not results.done(source)
    Results(("text",), beside=True).write(source, TRANSCRIPT)
    assert not results.done(source)
    _, srt = results.write(source, TRANSCRIPT)
    assert results.done(source)
    os.utime(srt, (1, 1))
    assert not results.done(source)


def test_a_file_that_was_named_is_written_whatever_it_holds(folder: Path) -> None:
    source = source_of(folder / "in" / "talk.mp3")
    results = Results(("text",), file=folder / "talk.txt")
    results.write(source, TRANSCRIPT)
    assert not results.done(source)
