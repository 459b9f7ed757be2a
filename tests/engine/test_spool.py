from __future__ import annotations

from pathlib import Path

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
