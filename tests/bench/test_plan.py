"""Which rows a table gets: installed backends, models that are here, and a sentence for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.backends import BACKENDS, installed
from app.bench import plan
from app.bench.plan import backends_of, micro_rows, models_of, quoted_rows, rows_of
from app.bench.row import Row, Status
from app.catalog import MICRO_FOLDER
from app.errors import BackendUnavailable, InvalidRequest
from app.settings import Settings, load_settings

pytestmark = pytest.mark.skipif(not installed("faster-whisper"), reason="faster-whisper is not installed")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(hub_dir=tmp_path / "hub", cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")


def downloaded(settings: Settings, repo: str) -> Path:
    """What a download of the repository leaves, with micro's weights."""
    folder = settings.hub_dir / f"models--{repo.replace('/', '--')}" / "snapshots" / "main"
    folder.mkdir(parents=True)
    for file in MICRO_FOLDER.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def named(settings: Settings, *words: str, backend: str = "faster-whisper") -> list[Row]:
    names, folders = models_of(words)
    return rows_of(settings, [backend], names, folders)


def test_all_installed_backends_are_taken_and_fake_only_where_it_is_named() -> None:
    assert backends_of([]) == [name for name in BACKENDS if name != "fake" and installed(name)]
    assert backends_of(["fake", "faster-whisper", "fake"]) == ["fake", "faster-whisper"]
    with pytest.raises(InvalidRequest, match="There is no backend 'kaldi'; choose of faster-whisper, "):
        backends_of(["kaldi"])


def test_without_names_every_model_that_is_here_has_a_row(settings: Settings) -> None:
    assert rows_of(settings, ["faster-whisper"], [], {}) == []
    tiny, mine = downloaded(settings, "openai/whisper-tiny"), downloaded(settings, "somebody/whisper-dialect")
    rows = rows_of(settings, ["faster-whisper"], [], {})
    assert [(row.model, row.path, row.status) for row in rows] == [
        ("tiny", tiny, Status.NOT_RUN),
        ("somebody/whisper-dialect", mine, Status.NOT_RUN),
    ]
    assert set(rows[0].libraries) == {"faster-whisper", "ctranslate2"}


def test_where_nothing_is_here_there_is_micro(settings: Settings) -> None:
    assert [(row.model, row.path) for row in micro_rows(settings, ["faster-whisper"])] == [("micro", MICRO_FOLDER)]


def test_a_model_that_is_not_here_is_a_row_with_the_command_that_brings_it(settings: Settings) -> None:
    small, turbo, mine = named(settings, "small", "turbo", "somebody/whisper-x")
    assert small.status is Status.NOT_DOWNLOADED
    assert small.path is None
    assert small.note == "`whisperd models pull small --backend faster-whisper` downloads it."
    assert turbo.model == "large-v3-turbo"
    assert "pull somebody/whisper-x --backend" in mine.note


def test_what_a_backend_cannot_have_is_a_row_with_a_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    quantised, typo, empty = named(settings, "base-q5_1", "bsae", str(tmp_path / "empty"))
    assert quantised.status is typo.status is empty.status is Status.NOT_USABLE
    assert "faster-whisper has no model 'base-q5_1'" in quantised.note
    assert "faster-whisper has no model 'bsae'" in typo.note
    assert "holds no whole Whisper model that faster-whisper can use" in empty.note


def test_a_backend_that_is_not_installed_is_a_row_with_the_command_that_installs_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "installed", lambda name: False)
    (row,) = named(settings, "tiny", backend="openai-whisper")
    assert (row.status, row.path) == (Status.NOT_INSTALLED, None)
    assert row.note == "`pip install 'whisperd[openai]'` installs openai-whisper."


def test_folders_may_have_a_name_and_each_backend_takes_the_one_in_its_format(
    settings: Settings, tmp_path: Path
) -> None:
    ggml = tmp_path / "ggml-tiny.bin"
    ggml.write_bytes(b"lmgg")
    words = (f"tiny={ggml}", f"tiny={MICRO_FOLDER}", str(MICRO_FOLDER))
    assert [(row.model, row.path) for row in named(settings, *words)] == [
        ("tiny", MICRO_FOLDER),
        ("micro", MICRO_FOLDER),
    ]
    (row, _) = named(settings, *words, backend="whisper.cpp")
    assert row.path == ggml or row.status is Status.NOT_INSTALLED
    with pytest.raises(InvalidRequest, match="no folder '/nowhere'"):
        models_of(["tiny=/nowhere"])


def test_pull_downloads_what_is_not_here_or_says_why_it_could_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pull(self: Any, name: str) -> Path:
        asked.append((self.backend, name))
        if name == "base":
            raise BackendUnavailable("The hub cannot be reached.")
        return downloaded(settings, "openai/whisper-tiny")

    monkeypatch.setattr(plan.Catalog, "pull", pull)
    tiny, base = named(settings.model_copy(update={"pull": True}), "tiny", "base")
    assert asked == [("faster-whisper", "tiny"), ("faster-whisper", "base")]
    assert tiny.path is not None
    assert (base.status, base.path, base.note) == (Status.NOT_DOWNLOADED, None, "The hub cannot be reached.")


def test_quoted_rows_that_are_not_there_are_shown_as_not_run() -> None:
    there = [Row("mlx-whisper", "tiny", Status.MEASURED), Row("whisper.cpp", "base", Status.NOT_DOWNLOADED)]
    rows = quoted_rows(there)
    assert len(rows) == 6
    assert {row.status for row in rows} == {Status.NOT_RUN}
    assert not {(row.backend, row.model) for row in rows} & {(row.backend, row.model) for row in there}
