from __future__ import annotations

import hashlib
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from app.catalog import MICRO_FOLDER
from app.doctor.check import Check, Status
from app.doctor.models import check_folders, check_models
from app.hardware import Hardware
from app.settings import load_settings
from tests.doctor.test_machine import LINUX, MAC


def found(tmp_path: Path, hardware: Hardware = LINUX, **fields: object) -> dict[str, Check]:
    settings = load_settings(**{"backend": "faster-whisper", "model": "micro", "hub_dir": tmp_path, **fields})
    return {check.name: check for check in check_models(settings, hardware, quick=False)}


def downloaded(hub: Path) -> Path:
    """micro as a download of the hub's."""
    blobs, snapshot = hub / "models--openai--whisper-tiny" / "blobs", hub / "models--openai--whisper-tiny/snapshots/a1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in MICRO_FOLDER.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(blobs / file.name)
    return blobs


def test_a_model_that_is_there_and_fits_is_well(tmp_path: Path) -> None:
    downloaded(tmp_path)
    checks = found(tmp_path, model="tiny")
    assert {name: check.status for name, check in checks.items()} == {"model": "ok", "memory": "ok"}
    assert "tiny on faster-whisper needs about" in checks["memory"].found


def test_a_model_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    check = found(tmp_path, model="small")["model"]
    assert check.status is Status.FAILED
    assert check.remedy == "Download it with: whisperd models pull small --backend faster-whisper"


def test_a_model_that_is_too_large_says_which_one_fits(tmp_path: Path) -> None:
    eight = replace(MAC, memory=8 * 2**30)
    check = found(tmp_path, eight, backend="mlx-whisper", model="large-v3")["memory"]
    assert check.status is Status.FAILED
    assert "large-v3-turbo fits" in check.found


def test_a_broken_download_is_found(tmp_path: Path) -> None:
    blobs = downloaded(tmp_path)
    (blobs / "model.safetensors").unlink()
    checks = found(tmp_path, model="tiny")
    assert checks["model"].status is Status.FAILED
    assert checks["download"].status is Status.WARNING
    assert checks["download"].remedy.endswith(": whisperd models pull openai/whisper-tiny")


def test_a_file_that_is_cut_short_is_found(tmp_path: Path) -> None:
    blob = downloaded(tmp_path) / "model.safetensors"
    whole = blob.read_bytes()
    for size in (len(whole) // 2, 100, 0):
        blob.write_bytes(whole[:size])
        check = found(tmp_path, model="tiny")["model"]
        assert check.status is Status.FAILED
        assert "model.safetensors is" in check.found
        assert check.remedy == "Download it again with: whisperd models pull tiny --backend faster-whisper"


@pytest.mark.parametrize(("name", "content"), [("model.pt", b"PK\x03\x04 and no end"), ("weights.safetensors", b"{")])
def test_a_folder_of_ones_own_that_is_cut_short_asks_for_a_whole_copy(
    name: str, content: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"n_audio_state": 64}')
    backend = "openai-whisper" if name.endswith(".pt") else "mlx-whisper"
    check = found(tmp_path, backend=backend, model=str(folder))["model"]
    assert check.status is Status.FAILED
    assert check.remedy == f"Put a whole copy of that file into {folder}."


def test_a_damaged_download_is_found(tmp_path: Path) -> None:
    blobs = downloaded(tmp_path)
    digest = hashlib.sha256((blobs / "model.safetensors").read_bytes()).hexdigest()
    link = tmp_path / "models--openai--whisper-tiny/snapshots/a1/model.safetensors"
    link.unlink()
    link.symlink_to((blobs / "model.safetensors").rename(blobs / digest))
    assert found(tmp_path, model="tiny")["model"].status is Status.OK
    with (blobs / digest).open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"otherwise")
    check = found(tmp_path, model="tiny")["model"]
    assert check.status is Status.FAILED
    assert "model.safetensors of openai/whisper-tiny is damaged" in check.found


def test_a_stale_download_is_found_and_one_that_runs_is_not(tmp_path: Path) -> None:
    part = downloaded(tmp_path) / "abc.incomplete"
    part.write_bytes(b"half")
    assert "download" not in found(tmp_path)
    os.utime(part, (1, 1))
    assert found(tmp_path)["download"].status is Status.WARNING


def test_a_broken_file_of_a_repository_with_many_models_is_named_by_its_model(tmp_path: Path) -> None:
    blobs = tmp_path / "models--ggerganov--whisper.cpp" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{'a' * 64}.ggml-base-q5_1.bin.whisperd.incomplete"
    part.write_bytes(b"half")
    os.utime(part, (1, 1))
    assert found(tmp_path)["download"].remedy.endswith(": whisperd models pull base-q5_1")


def test_other_programs_downloads_are_left_to_them(tmp_path: Path) -> None:
    part = tmp_path / "models--meta-llama--Llama-3" / "blobs" / "abc.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    os.utime(part, (1, 1))
    assert "download" not in found(tmp_path)


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = load_settings(state_dir=tmp_path / "file", cache_dir=tmp_path / "new" / "cache", hub_dir=tmp_path)
    state, cache, hub = check_folders(settings)
    assert state.status is Status.FAILED
    assert "--state-dir" in state.remedy
    assert cache.status is hub.status is Status.OK
    assert not (tmp_path / "new").exists(), "it only looks"


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**9, 10**9))
    assert {check.status for check in check_folders(load_settings(state_dir=tmp_path))} == {Status.WARNING}
