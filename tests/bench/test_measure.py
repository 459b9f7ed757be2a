"""A row, measured: in a real worker, with the scripted backend where a fault or a certain text is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.backends import BACKENDS, installed
from app.bench.measure import measure
from app.bench.plan import micro_rows
from app.bench.row import Row, Status
from app.errors import InvalidRequest
from app.recordings import SAMPLE, Recording, bundled
from app.settings import Settings, load_settings
from tests.conftest import clips, script_of

SHORT, OTHER = clips("en000")[0], clips("en001")[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")


def run(settings: Settings, row: Row, recordings: list[Recording], rounds: int = 1) -> tuple[Row, int]:
    """The row measured, and how many recordings were reported."""
    seen: list[int] = []
    return measure(row, settings, recordings, rounds, lambda: seen.append(1)), len(seen)


def scripted(folder: Path, **script: object) -> Row:
    return Row("fake", "scripted", Status.NOT_RUN, path=script_of(folder, **script))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "fake"])
def test_every_backend_is_measured_with_micro(settings: Settings, backend: str) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    (wanted,) = micro_rows(settings, [backend])
    recordings = [Recording(clip.path, clip.text, clip.language) for clip in (SHORT, OTHER)]
    row, reported = run(settings, wanted, recordings)
    figures = row.figures
    assert row.status is Status.MEASURED, row.note
    assert row.libraries
    assert figures is not None
    assert figures.device in ("cpu", "gpu", "cuda", "mps", "metal")
    assert figures.load_s > 0
    assert figures.audio_s == pytest.approx(SHORT.duration + OTHER.duration, abs=0.01)
    assert figures.speed == pytest.approx(figures.audio_s / figures.rounds_s[0])
    assert figures.short_s is not None
    assert 0 < figures.short_s < figures.seconds
    assert figures.memory > 50_000_000
    assert figures.words == len(f"{SHORT.text} {OTHER.text}".split())
    assert figures.error_rate is not None
    assert figures.error_rate <= 0.1
    assert reported == 2


def test_the_median_of_the_rounds_counts_and_errors_are_counted_once(settings: Settings, tmp_path: Path) -> None:
    script = scripted(tmp_path, text="the cat sat", load_seconds=0.2, memory={"active": 1, "cached": 2, "peak": 7})
    recordings = [Recording(SHORT.path, "The cat sat down.", "en"), Recording(SAMPLE)]
    row, reported = run(settings, script, recordings, rounds=3)
    figures = row.figures
    assert figures is not None
    assert len(figures.rounds_s) == 3
    assert figures.seconds == sorted(figures.rounds_s)[1]
    assert figures.load_s >= 0.2
    assert (figures.words, figures.errors, figures.error_rate) == (4, 1, 0.25)
    assert figures.library_peak == 7
    assert not figures.fitted
    assert reported == 6


def test_without_references_and_without_short_recordings_there_are_no_such_figures(
    settings: Settings, tmp_path: Path
) -> None:
    figures = run(settings, scripted(tmp_path), [Recording(SAMPLE)])[0].figures
    assert figures is not None
    assert figures.short_s is None
    assert figures.error_rate is None
    assert figures.library_peak == 0


def test_a_backend_that_cannot_load_is_a_row_with_its_sentence(settings: Settings, tmp_path: Path) -> None:
    row, reported = run(settings, scripted(tmp_path, load="unavailable"), bundled()[:1])
    assert row.status is Status.FAILED
    assert row.figures is None
    assert "The script says that this model cannot be loaded." in row.note
    assert reported == 0


def test_a_broken_folder_is_a_row_with_its_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper", "d_model": 64}')
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    row = run(settings, Row("faster-whisper", "broken", Status.NOT_RUN, path=tmp_path), bundled()[:1])[0]
    assert row.status is Status.FAILED
    assert row.note.endswith(".")


def test_a_worker_that_keeps_dying_is_a_row_with_its_sentence(settings: Settings, tmp_path: Path) -> None:
    row = run(settings, scripted(tmp_path, load="exit"), bundled()[:1])[0]
    assert row.status is Status.FAILED
    assert "died" in row.note


def test_a_recording_that_nobody_can_transcribe_ends_it_all(settings: Settings, tmp_path: Path) -> None:
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Sir")
    with pytest.raises(InvalidRequest, match=r"letter\.wav cannot be transcribed: "):
        run(settings, scripted(tmp_path), [Recording(letter)])
