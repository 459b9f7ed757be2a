"""Who may do a model: by what lies on this machine, and with which options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.backends.base import LoadOptions
from app.catalog import MICRO_FOLDER, Catalog
from app.engine import candidates
from app.engine.candidates import Candidates
from app.engine.succession import Line
from app.fitting import MEASURED, Fitting, Verdict, Verdicts
from app.transcript import SAMPLE_RATE


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "installed", lambda _: True)


def of(
    tmp_path: Path,
    *fallbacks: str,
    default: str = "micro",
    load: LoadOptions | None = None,
    registered: dict[str, Path] | None = None,
) -> Candidates:
    """Candidates after faster-whisper."""
    catalog = Catalog("faster-whisper", tmp_path / "hub", default, registered)
    return Candidates(
        catalog, load or LoadOptions(), fallbacks, Fitting("auto", 3, "faster-whisper", Verdicts(tmp_path))
    )


def seen(line: Line) -> list[tuple[str, str]]:
    return [(each.backend, each.missing or each.model_path) for each in line]


def ggml(hub: Path) -> Path:
    """A downloaded `tiny` for whisper.cpp, as far as its looks go."""
    folder = hub / "models--ggerganov--whisper.cpp" / "snapshots" / "1"
    folder.mkdir(parents=True)
    (folder / "ggml-tiny.bin").write_bytes(b"lmgg")
    return folder / "ggml-tiny.bin"


def test_each_backend_has_its_own_folder_for_the_same_public_name(tmp_path: Path) -> None:
    file = ggml(tmp_path / "hub")
    line = of(tmp_path, "whisper.cpp").line("tiny", "/the/first/ones")
    assert seen(line) == [("faster-whisper", "/the/first/ones"), ("whisper.cpp", str(file))]


def test_a_checkpoint_serves_all_who_can_convert_it(tmp_path: Path) -> None:
    line = of(tmp_path, "mlx-whisper", "whisper.cpp").line("micro", str(MICRO_FOLDER))
    assert {path for _, path in seen(line)} == {str(MICRO_FOLDER)}


def test_no_name_is_the_firsts_default_for_all(tmp_path: Path) -> None:
    file = ggml(tmp_path / "hub")
    assert seen(of(tmp_path, "whisper.cpp", default="tiny").line("", "/m"))[1] == ("whisper.cpp", str(file))


def test_a_model_that_is_not_here_is_missing_with_the_command_that_brings_it(tmp_path: Path) -> None:
    (_, other) = of(tmp_path, "whisper.cpp").line("base", "/m")
    assert other.missing == (
        "The model 'base' is not here for whisper.cpp. `whisperd models pull base --backend whisper.cpp` downloads it."
    )


def test_an_own_folder_that_another_cannot_load_is_not_replaced_by_a_download_of_its_name(tmp_path: Path) -> None:
    ggml(tmp_path / "hub")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text(json.dumps({}))
    (_, other) = of(tmp_path, "whisper.cpp", registered={"tiny": mine}).line("tiny", str(mine))
    assert other.missing == "The model 'tiny' is not here for whisper.cpp."


def test_what_is_not_installed_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "installed", lambda _: False)
    first, other = of(tmp_path, "whisper.cpp").line("micro", "/m")
    assert not first.missing
    assert "not installed" in other.missing
    assert "pip install" in other.missing


@pytest.mark.parametrize(("device", "others"), [("cpu", "cpu"), ("cuda", "auto"), ("auto", "auto")])
def test_the_firsts_own_words_are_not_for_the_others(tmp_path: Path, device: str, others: str) -> None:
    load = LoadOptions(device, "int8", 3)
    first, other = of(tmp_path, "mlx-whisper", load=load).line("micro", "/m")
    assert first.load == load
    assert other.load == LoadOptions(others, "default", 3)


def test_windows_are_fitted_as_was_measured_for_who_does_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = of(tmp_path, "whisper.cpp")
    first, other = made.line("micro", str(MICRO_FOLDER))
    monkeypatch.delitem(MEASURED, ("whisper.cpp", "micro"))
    assert (made.margin(first), made.margin(other)) == (3 * SAMPLE_RATE, None)
    Verdicts(tmp_path).store(Verdict("whisper.cpp", "micro", 2.0, True, 300, 0, 60, 0, 3.0))
    assert made.margin(other) == 3 * SAMPLE_RATE
