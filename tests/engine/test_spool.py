from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.engine.spool import Spool


def test_a_job_folder_is_private_and_goes_with_the_job(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    folder = spool.folder()
    (folder / "upload").write_bytes(b"secret")
    assert folder.stat().st_mode & 0o777 == 0o700
    spool.remove(folder)
    assert not folder.exists()
    spool.remove(folder)
    spool.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_start_sweeps_what_a_killed_server_left_and_nothing_of_one_that_runs(tmp_path: Path) -> None:
    running = Spool(tmp_path)
    dead = tmp_path / "server-dead"
    (dead / "job-1").mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "job-1" / "upload").write_bytes(b"left behind")
    unrelated = tmp_path / "notes.txt"
    unrelated.touch()
    other = Spool(tmp_path)
    assert not dead.exists()
    assert running.path.exists()
    assert unrelated.exists()
    other.close()
    running.close()


def test_the_childrens_working_directory_is_empty(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert list(spool.empty.iterdir()) == []
    spool.close()


@pytest.mark.parametrize("deleted", ["spool", "server", "lock", "empty"])
def test_a_spool_that_somebody_deleted_is_made_anew_under_its_lock(tmp_path: Path, deleted: str) -> None:
    spool = Spool(tmp_path / "spool")
    gone = {"spool": spool.path.parent, "server": spool.path}.get(deleted, spool.path / deleted)
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    folder = spool.folder()
    for each in (spool.path.parent, spool.path, folder):
        assert each.stat().st_mode & 0o777 == 0o700, each
    assert list(spool.empty.iterdir()) == []
    other = Spool(tmp_path / "spool")
    assert folder.exists(), "another start sees that this one lives"
    other.close()
    spool.close()
    Spool(tmp_path / "spool").close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_could_not_be_removed_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    folder = spool.folder()
    (folder / "upload").write_bytes(b"secret")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where there are no descriptors left
        spool.remove(folder)
    assert folder.exists()
    spool.keep()
    assert not folder.exists()
    spool.close()
