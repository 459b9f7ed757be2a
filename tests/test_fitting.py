"""Which models' windows are fitted: what was measured before, what was found here, and what the operator says."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.catalog import MICRO_FOLDER, model_key
from app.fitting import Fitting, Verdict, Verdicts
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Window

BASE = "/cache/models--openai--whisper-base/snapshots/abc"
LARGE = "/cache/models--openai--whisper-large-v3/snapshots/abc"


def verdict(model: str, *, fit: bool, margin_s: float = 3) -> Verdict:
    return Verdict("faster-whisper", model, margin_s, fit, words=100, differing=1, windows=20, reruns=0, gain=2.5)


def margin(folder: Path, model: str, mode: str = "auto", margin_s: float = 3) -> int | None:
    return Fitting(mode, margin_s, "faster-whisper", Verdicts(folder)).margin(model)


@pytest.mark.parametrize("model", [BASE, "/c/models--Systran--faster-whisper-base/snapshots/x", str(MICRO_FOLDER)])
def test_models_that_were_measured_are_fitted(tmp_path: Path, model: str) -> None:
    assert margin(tmp_path, model) == 3 * SAMPLE_RATE
    assert margin(tmp_path, model, margin_s=4.5) == 4.5 * SAMPLE_RATE
    assert margin(tmp_path, model, margin_s=1) is None, "it was measured with more silence"


@pytest.mark.parametrize("model", [LARGE, "/my/base", "/c/models--me--whisper-base/snapshots/x", ""])
def test_models_that_were_not_measured_stay_whole(tmp_path: Path, model: str) -> None:
    assert margin(tmp_path, model) is None


def test_the_operators_word_counts_for_every_model(tmp_path: Path) -> None:
    assert margin(tmp_path, LARGE, "fit", 1.5) == 1.5 * SAMPLE_RATE
    assert margin(tmp_path, BASE, "full") is None


def test_what_was_found_on_this_machine_counts_more_than_what_was_shipped(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "state")
    verdicts.store(verdict("base", fit=False))
    verdicts.store(verdict("large-v3", fit=False))
    verdicts.store(verdict("large-v3", fit=True))
    assert [each.model for each in verdicts.all()] == ["base", "large-v3"]
    assert margin(tmp_path / "state", BASE) is None
    assert margin(tmp_path / "state", LARGE) == 3 * SAMPLE_RATE
    assert margin(tmp_path / "state", LARGE, margin_s=2) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 2, "verdicts": []}', '{"schema": 1, "verdicts": [{"x": 1}]}']
)
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "tune.json").write_text(text)
    assert margin(tmp_path, BASE) == 3 * SAMPLE_RATE
    Verdicts(tmp_path).store(verdict("base", fit=False))
    assert margin(tmp_path, BASE) is None


def test_models_are_told_apart_by_their_repository_or_their_folder(tmp_path: Path) -> None:
    assert model_key(Path(BASE)) == "base"
    assert model_key(MICRO_FOLDER) == "micro"
    assert model_key(Path("/c/models--me--mine/snapshots/x")) == "me/mine"
    assert model_key(tmp_path / "x" / ".." / "mine") == str(tmp_path / "mine")


@pytest.mark.parametrize(("seconds", "encoded"), [(0.1, 4), (2, 5), (2.01, 6), (26.5, 30), (30, 30)])
def test_a_fitted_window_has_whole_seconds_and_at_most_thirty(seconds: float, encoded: int) -> None:
    window = Window(7, 7 + round(seconds * SAMPLE_RATE), ())
    assert window.fitted(3 * SAMPLE_RATE).encoded == encoded * SAMPLE_RATE <= MAX_WINDOW
