"""The figures on disk: found again, and never mixed with those of other conditions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.bench.results import Results, conditions_of
from app.bench.row import Row, Status
from app.errors import StorageFull
from app.hardware import detect
from app.recordings import bundled
from app.settings import load_settings
from tests.bench.rows import CONDITIONS, measured

ROW = measured("mlx-whisper", "base")
WANTED = replace(ROW, status=Status.NOT_RUN, figures=None)


def stored(folder: Path, *rows: Row) -> Results:
    results = Results(folder / "out" / "bench.json", CONDITIONS)
    for row in rows:
        results.put(row)
    return results


def found(folder: Path, conditions: object = CONDITIONS) -> Results:
    results = Results(folder / "out" / "bench.json", conditions)
    results.load()
    return results


def test_rows_are_found_again_as_they_were_put(tmp_path: Path) -> None:
    rows = [replace(ROW, path=tmp_path), measured("whisper.cpp", "tiny"), measured("fake", "x", short_s=None)]
    stored(tmp_path, *rows)
    results = found(tmp_path)
    assert results.rows == [rows[1], rows[0], rows[2]], "tiny, base, then what the catalog does not know"
    assert not results.differing
    assert results.done(replace(WANTED, path=tmp_path))


def test_a_row_is_done_only_with_the_same_files_and_libraries_and_if_it_did_not_fail(tmp_path: Path) -> None:
    results = stored(tmp_path, ROW)
    assert results.done(WANTED)
    assert not results.done(replace(WANTED, libraries={"mlx": "2.0"}))
    assert not results.done(replace(WANTED, path=Path("/other")))
    assert not results.done(replace(WANTED, precision="int8"))
    results.put(replace(ROW, status=Status.FAILED, figures=None))
    assert not results.done(WANTED)
    assert len(results.rows) == 1, "it takes the other's place"
    results.put(measured("mlx-whisper", "base", load_s=9.0))
    results.put(replace(ROW, precision="int8"))
    assert len(results.rows) == 2, "other precisions stand beside it"


@pytest.mark.parametrize("name", ["machine", "versions", "recordings", "options"])
def test_figures_of_other_conditions_are_set_aside_and_kept(tmp_path: Path, name: str) -> None:
    first = stored(tmp_path, ROW)
    other = found(tmp_path, replace(CONDITIONS, **{name: {"changed": True}}))
    assert other.differing == [name]
    assert other.rows == []
    text = first.file.read_text()
    other.set_aside()
    assert other.kept == first.file.with_name("bench-1.json")
    assert other.kept.read_text() == text
    first.put(ROW)
    other.set_aside()
    assert other.kept == first.file.with_name("bench-2.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "conditions": {}, "rows": []}', '{"rows": 3}'])
def test_a_file_that_is_not_ours_is_no_figure_and_is_not_lost(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bench.json").write_text(text)
    results = found(tmp_path)
    assert results.rows == []
    assert results.differing
    assert found(tmp_path / "nothing").differing == []


def test_another_schema_is_not_read(tmp_path: Path) -> None:
    file = stored(tmp_path, ROW).file
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 2}))
    assert found(tmp_path).rows == []
    assert found(tmp_path).differing == ["format"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageFull, match="could not be written to"):
        stored(tmp_path, ROW)


def test_sound_texts_and_settings_make_the_conditions() -> None:
    settings = load_settings(backend="faster-whisper")
    recordings = bundled()[:2]

    def made(**changed: object) -> object:
        given = {"settings": settings, "recordings": recordings, "rounds": 3, **changed}
        return conditions_of(detect(), title="", **given)

    assert made() == made()
    assert made() == made(settings=settings.model_copy(update={"host": "::1", "device": "cpu", "model": "tiny"}))
    for changed in (
        {"rounds": 2},
        {"recordings": recordings[:1]},
        {"recordings": [recordings[0], replace(recordings[1], reference="Other.")]},
        {"recordings": [recordings[0], replace(recordings[1], path=recordings[0].path)]},
        {"settings": settings.model_copy(update={"beam_size": 5})},
    ):
        assert made() != made(**changed)
