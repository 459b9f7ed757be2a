"""A watched folder, without waiting: what happens between two looks is told by ``wait``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.batch.bars import OnProgress
from app.batch.doors import Transcribe
from app.batch.results import Results
from app.batch.watch import Arrivals, watch
from app.errors import BackendUnavailable, QueueFull, UndecodableAudio, WhisperdError
from app.transcript import Segment, Transcript

TRANSCRIPT = Transcript("en", 2.0, (Segment(0.0, 1.5, " Hello.", 0, (1,), 0.0, -0.2, 1.0, 0.0),))
A, B = Path("a.wav"), Path("b.wav")


class Over(Exception):
    """The end of what happens."""


def days(*events: Callable[[], object]) -> Callable[[float], None]:
    """A ``wait`` in which the events happen, one after the other, and then nothing for a while."""
    left = [*events, *[lambda: None] * 4]

    def wait(_: float) -> None:
        if not left:
            raise Over
        left.pop(0)()

    return wait


def scripted(done: list[str], *errors: WhisperdError) -> Transcribe:
    """Fails with the errors first; ``done`` are the names of all that it was asked for."""
    left = list(errors)

    def transcribe(path: Path, show: OnProgress) -> Transcript:
        done.append(path.name)
        if left:
            raise left.pop(0)
        return TRANSCRIPT

    return transcribe


def seen(folder: Path, *events: Callable[[], object], errors: tuple[WhisperdError, ...] = ()) -> list[str]:
    """The names that are transcribed while the events happen."""
    done: list[str] = []
    with pytest.raises(Over):
        watch(folder, Results(("text",), beside=True), scripted(done, *errors), days(*events))
    return done


def test_a_file_arrives_when_two_looks_find_it_as_it_was() -> None:
    arrivals = Arrivals()
    looks = [{A: (1, 1)}, {A: (2, 1)}, {A: (2, 2)}, {A: (2, 2)}, {A: (2, 2), B: (1, 1)}]
    assert [arrivals.look(look) for look in looks] == [[], [], [], [], [A]]
    arrivals.settle(A)
    assert arrivals.look({A: (2, 2), B: (1, 1)}) == []
    assert arrivals.look({A: (2, 2), B: (1, 1)}) == [B]
    assert arrivals.look({A: (3, 3), B: (1, 1)}) == [B]
    assert [arrivals.look({A: (3, 3)}) for _ in range(2)] == [[], [A]]


def test_a_file_that_went_and_came_back_is_looked_at_anew() -> None:
    arrivals = Arrivals()
    assert [arrivals.look({A: (1, 1)}) for _ in range(3)][-1] == [A]
    arrivals.settle(A)
    arrivals.look({})
    assert [arrivals.look({A: (1, 1)}) for _ in range(3)] == [[], [], [A]]


def test_what_is_there_and_what_comes_is_transcribed_once(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    nothing = [lambda: None] * 4
    assert seen(tmp_path, *nothing, lambda: (tmp_path / "b.mp3").write_bytes(b"1")) == ["a.wav", "b.mp3"]
    assert (tmp_path / "b.txt").read_text() == "Hello.\n"
    assert seen(tmp_path) == [], "all of them have their texts"


def test_a_failure_is_said_once_and_tried_again_when_the_file_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    broken = (UndecodableAudio("No sound."),)
    assert seen(tmp_path, errors=broken) == ["a.wav"]
    assert capsys.readouterr().err.count("No sound.") == 1
    nothing = [lambda: None] * 4
    assert seen(tmp_path, *nothing, lambda: (tmp_path / "a.wav").write_bytes(b"12"), errors=broken) == ["a.wav"] * 2


def test_a_server_that_is_away_or_busy_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    passing = (BackendUnavailable("It went away."), BackendUnavailable("It went away."), QueueFull("It is full."))
    assert seen(tmp_path, *[lambda: None] * 4, errors=passing) == ["a.wav"] * 4
    assert (tmp_path / "a.txt").exists()
    assert capsys.readouterr().err.count("tried again until it works") == 1


def test_two_recordings_for_one_file_are_a_failure_of_the_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp3").write_bytes(b"1")
    (tmp_path / "a.wav").write_bytes(b"1")
    os.utime(tmp_path / "a.wav", (1, 1))
    assert seen(tmp_path) == ["a.mp3"]
    assert capsys.readouterr().err.count("would both be written to") == 1


def test_a_folder_that_goes_for_a_while_is_no_end(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()

    def back() -> None:
        (tmp_path / "away").rename(folder)
        (folder / "a.wav").write_bytes(b"1")

    assert seen(folder, lambda: folder.rename(tmp_path / "away"), lambda: None, back) == ["a.wav"]
