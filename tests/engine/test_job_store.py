from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import StepResult, WindowResult
from app.engine import job_database, job_store
from app.engine.job_database import StoreBusy, StoreUnusable
from app.engine.job_rows import MIGRATIONS, OPTIONS, STEP, TRANSCRIPT, JobRecord, StoredError
from app.engine.job_store import JobStore
from app.errors import InferenceFailed, InvalidRequest, StorageFull
from app.transcript import Options, Segment, TokenLogprob, Transcript, Vad, Window, Word

ROOT = Path(__file__).parents[2]
OURS = {module.__file__ for module in (job_database, job_store)}


# --- what is stored ---


def sound(job_id: str) -> bytes:
    return f"the sound of {job_id}".encode() * 50


def record(job_id: str, **changes: Any) -> JobRecord:
    upload = sound(job_id)
    plain = JobRecord(
        id=job_id,
        owner="a",
        request_id=f"req-{job_id}",
        created=1_700_000_000.25,
        model="whisper-1",
        model_path="/models/micro",
        options=Options(
            prompt="Grüße, 世界\n", temperature=0.1 + 0.2, languages=("en", "de"), vad=Vad(0.1, 1 / 3, 2e-9)
        ),
        response_format="verbose_json",
        granularities=("word", "segment"),
        background=True,
        digest=hashlib.sha256(upload).hexdigest(),
        size=len(upload),
    )
    return replace(plain, **changes)


def segment(text: str, start: float = 0.0) -> Segment:
    return Segment(
        start=start,
        end=start + 1 / 3,
        text=text,
        seek=7,
        tokens=(1, 50_257),
        temperature=0.2,
        avg_logprob=-0.1,
        compression_ratio=math.pi,
        no_speech_prob=5e-324,
        words=(Word("wörd", start, start + 0.1, 0.7),),
        logprobs=(TokenLogprob("\ufffd", -1e-17, (226, 130)),),
    )


def step(text: str) -> StepResult:
    window, rest = Window(0, 480_000, ((5, 9), (12, 400_000))), Window(9, 12, ((9, 12),), retry=True)
    return StepResult((WindowResult(window, (segment(text),), (rest,)), WindowResult(rest)), "en", 3, 4)


def transcript(text: str) -> Transcript:
    return Transcript("en", 12.345, (segment(text), segment(" more", 3.3)), prompt_tokens=4, decoded_tokens=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(folder: Path) -> Iterator[JobStore]:
    opened = JobStore(folder)
    yield opened
    opened.close()


def add(store: JobStore, spool: Path, job_id: str, **changes: Any) -> JobRecord:
    added = record(job_id, **changes)
    upload = spool / f"upload-{job_id}"
    upload.write_bytes(sound(job_id))
    store.add(added, upload)
    return added


def completed(store: JobStore, spool: Path, job_id: str, text: str = " hi", **changes: Any) -> None:
    add(store, spool, job_id, **changes)
    store.finish(job_id, transcript=transcript(text))


def folders(folder: Path) -> set[str]:
    return {path.name.removeprefix("job-") for path in folder.iterdir() if path.is_dir()}


def ids(records: list[JobRecord]) -> list[str]:
    return [each.id for each in records]


# --- the life of a job ---


def test_a_job_comes_back_as_it_was_after_a_restart(store: JobStore, folder: Path, tmp_path: Path) -> None:
    added = add(store, tmp_path, "j1")
    store.append("j1", step(" one"))
    store.append("j1", step(" two"))
    store.close()
    again = JobStore(folder)
    assert again.get("j1", "a") == added
    assert again.waiting() == [added]
    assert again.steps("j1") == [step(" one"), step(" two")]
    assert (again.folder_of("j1") / "upload").read_bytes() == sound("j1")
    assert not (tmp_path / "upload-j1").exists()
    assert again.transcript("j1", "a") is None
    again.close()


def test_a_completed_job_keeps_its_transcript_and_nothing_else(store: JobStore, folder: Path, tmp_path: Path) -> None:
    added = add(store, tmp_path, "j1")
    store.append("j1", step(" one"))
    before = time.time()
    store.finish("j1", transcript=transcript(" done"))
    found = store.get("j1", "a")
    assert found is not None
    assert found.finished is not None
    assert before <= found.finished <= time.time()
    assert found == replace(added, status="completed", finished=found.finished, duration=12.345)
    assert store.transcript("j1", "a") == transcript(" done")
    assert store.steps("j1") == []
    assert store.waiting() == []
    assert folders(folder) == set()


def test_a_failed_job_gives_its_error_again(store: JobStore, folder: Path, tmp_path: Path) -> None:
    add(store, tmp_path, "j1")
    store.finish("j1", error=InvalidRequest("Not a language.", param="language"))
    found = store.get("j1", "a")
    assert found is not None
    assert (found.status, found.duration) == ("failed", None)
    assert found.error == StoredError("invalid_request", "Not a language.", "language")
    error = found.error.restored()
    assert (type(error), error.message, error.param) == (InvalidRequest, "Not a language.", "language")
    assert folders(folder) == set()


def test_the_first_end_stays(store: JobStore, tmp_path: Path) -> None:
    add(store, tmp_path, "j1")
    store.finish("j1", cancelled=True)
    ended = store.get("j1", "a")
    assert ended is not None
    assert ended.status == "cancelled"
    store.finish("j1", transcript=transcript(" late"))
    store.append("j1", step(" late"))
    assert store.get("j1", "a") == ended
    assert store.transcript("j1", "a") is None
    assert store.steps("j1") == []


def test_a_job_that_is_gone_is_no_error(store: JobStore) -> None:
    store.append("gone", step(" one"))
    store.finish("gone", error=InferenceFailed("No."))
    assert store.get("gone", "a") is None
    assert store.steps("gone") == []
    assert not store.delete("gone", "a")


@pytest.mark.parametrize("ends", [{}, {"cancelled": True, "error": InferenceFailed("No.")}])
def test_a_job_ends_in_one_way(store: JobStore, tmp_path: Path, ends: dict[str, Any]) -> None:
    add(store, tmp_path, "j1")
    with pytest.raises(ValueError, match="ends in"):
        store.finish("j1", **ends)
    assert ids(store.waiting()) == ["j1"]


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a.b", "a" * 129, "ä", "a\n"])
def test_an_id_is_no_path(store: JobStore, tmp_path: Path, job_id: str) -> None:
    with pytest.raises(ValueError, match="id is"):
        store.folder_of(job_id)
    assert not store.delete(job_id, "a")
    with pytest.raises(ValueError, match="id is"):
        store.add(record(job_id), tmp_path)


@pytest.mark.parametrize("over", [False, True])
def test_an_id_is_taken_once(store: JobStore, folder: Path, tmp_path: Path, over: bool) -> None:
    add(store, tmp_path, "j1")
    if over:
        store.finish("j1", transcript=transcript(" done"))
    with pytest.raises(ValueError, match="taken"):
        add(store, tmp_path, "j1", owner="b")
    assert store.get("j1", "b") is None
    assert folders(folder) == (set() if over else {"j1"})
    assert store.get("j1", "a") is not None


def test_an_upload_on_another_file_system_is_copied(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(_self: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    add(store, tmp_path, "j1")
    upload = store.folder_of("j1") / "upload"
    assert upload.read_bytes() == sound("j1")
    assert upload.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "upload-j1").exists()


# --- finding ---


def test_jobs_are_their_owners_alone(store: JobStore, tmp_path: Path) -> None:
    for owner in ("", "a", "b"):
        completed(store, tmp_path, f"of-{owner}", owner=owner)
    for owner in ("", "a", "b"):
        assert ids(store.listed(owner)) == [f"of-{owner}"]
        assert store.transcript(f"of-{owner}", owner) == transcript(" hi")
        for other in {"", "a", "b"} - {owner}:
            assert store.get(f"of-{owner}", other) is None
            assert store.transcript(f"of-{owner}", other) is None
            assert not store.delete(f"of-{owner}", other)
    assert store.find(owner="b", digest=record("of-a").digest, options=record("x").options, model_path="") is None


def test_jobs_are_listed_newest_first_and_wait_oldest_first(store: JobStore, tmp_path: Path) -> None:
    for job_id, created in (("mid", 20.0), ("old", 10.0), ("new", 30.0), ("same", 30.0)):
        add(store, tmp_path, job_id, created=created, owner="b" if job_id == "mid" else "a")
    assert ids(store.listed("a")) == ["same", "new", "old"]
    assert ids(store.listed("a", limit=1)) == ["same"]
    assert ids(store.waiting()) == ["old", "mid", "new", "same"]
    store.finish("new", cancelled=True)
    assert ids(store.waiting()) == ["old", "mid", "same"]
    assert store.waiting_bytes() == len(sound("old") + sound("mid") + sound("same"))
    assert ids(store.listed("a")) == ["same", "new", "old"]


def test_the_same_work_is_found(store: JobStore, tmp_path: Path) -> None:
    work = {"digest": "d", "options": Options(language="en"), "model_path": "/m"}
    assert store.find(owner="a", **work) is None
    for created, job_id in enumerate(("first", "second", "third", "fourth")):
        add(store, tmp_path, job_id, created=float(created), **work)
    store.finish("second", transcript=transcript(" hi"))
    store.finish("third", error=InferenceFailed("No."))
    store.finish("fourth", cancelled=True)
    found = store.find(owner="a", **work)
    assert found is not None
    assert (found.id, found.status) == ("second", "completed")
    others = ({"owner": "b"}, {"digest": "e"}, {"options": Options(language="de")}, {"model_path": "/n"})
    for other in others:
        assert store.find(**{"owner": "a", **work, **other}) is None
    store.delete("second", "a")
    found = store.find(owner="a", **work)
    assert found is not None
    assert (found.id, found.status) == ("first", "waiting")


# --- going ---


def test_a_deleted_job_leaves_no_text_and_no_sound(store: JobStore, folder: Path, tmp_path: Path) -> None:
    secret = " Rosebud was the sledge." * 40
    for job_id in ("done", "expired", "dropped", "running"):
        add(store, tmp_path, job_id, created=1.0, options=Options(prompt=secret))
        store.append(job_id, step(secret))
    store.finish("done", transcript=transcript(secret))
    store.finish("expired", transcript=transcript(secret))
    assert b"Rosebud" in contents(folder)
    store.finish("dropped", cancelled=True)
    assert store.delete("done", "a")
    assert store.delete("dropped", "a")
    assert store.delete("running", "a")
    assert store.expire(time.time() + 10, 5, 10**9) == 1
    assert store.listed("a") == []
    assert folders(folder) == set()
    assert b"Rosebud" not in contents(folder)


def test_steps_are_gone_from_the_file_when_the_job_is_cancelled(store: JobStore, folder: Path, tmp_path: Path) -> None:
    add(store, tmp_path, "j1")
    store.append("j1", step(" Rosebud was the sledge."))
    assert b"Rosebud" in contents(folder)
    store.finish("j1", cancelled=True)
    assert b"Rosebud" not in contents(folder)


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_jobs_expire_by_time(store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, tmp_path, "waiting", created=0.0)
    for finished, job_id in ((100.0, "old"), (200.0, "young")):
        monkeypatch.setattr(time, "time", lambda finished=finished: finished)
        completed(store, tmp_path, job_id)
    add(store, tmp_path, "failed")
    monkeypatch.setattr(time, "time", lambda: 99.0)
    store.finish("failed", error=InferenceFailed("No."))
    assert store.expire(150.0, 51.0, 10**9) == 0
    assert store.expire(160.0, 59.0, 10**9) == 2
    assert {each.id for each in store.listed("a")} == {"waiting", "young"}


def test_the_oldest_transcripts_go_until_the_rest_fits(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(TRANSCRIPT.dump_json(transcript(" hi")))
    # Those that finish first are the newest to have come.
    for number in range(4):
        monkeypatch.setattr(time, "time", lambda number=number: 100.0 + number)
        completed(store, tmp_path, f"j{number}", created=50.0 - number)
    add(store, tmp_path, "failed")
    store.finish("failed", error=InferenceFailed("No."))
    add(store, tmp_path, "waiting")
    assert store.expire(110.0, 1000.0, 4 * size) == 0
    assert store.expire(110.0, 1000.0, 4 * size - 1) == 1
    assert store.get("j0", "a") is None
    assert store.expire(110.0, 1000.0, 2 * size) == 1
    assert {each.id for each in store.listed("a")} == {"j2", "j3", "failed", "waiting"}
    assert store.transcript("j3", "a") is not None
    assert store.expire(110.0, 1000.0, 0) == 2


def test_what_expires_gives_its_space_back(store: JobStore, folder: Path, tmp_path: Path) -> None:
    for number in range(4):
        completed(store, tmp_path, f"j{number}", text=" many words" * 50_000)
    full = sum(path.stat().st_size for path in folder.iterdir())
    assert full > 2_000_000
    assert store.expire(time.time(), 1000.0, 0) == 4
    assert sum(path.stat().st_size for path in folder.iterdir()) < full // 10


# --- the disk and the file ---


def test_everything_is_private(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o755)
    (folder / "jobs.sqlite3").touch(mode=0o644)
    before = os.umask(0)
    try:
        store = JobStore(folder)
        add(store, tmp_path, "j1")
        modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
        store.close()
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes.pop("job-j1") == 0o700
    assert {"jobs.sqlite3", "jobs.sqlite3-wal", "lock", "job-j1/upload"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_nothing_private_is_logged(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    folder.mkdir()
    (folder / "jobs.sqlite3").write_bytes(b"Rosebud" * 1000)
    store = JobStore(folder)
    completed(store, tmp_path, "j1", text=" Rosebud")
    store.delete("j1", "a")
    store.close()
    assert [each.getMessage() for each in caplog.records] == ["job store damaged, a new one begun"]
    assert caplog.records[0].__dict__["fields"] == {"kept": "jobs.sqlite3.damaged-1"}


def test_a_second_server_is_told_so(store: JobStore, folder: Path, tmp_path: Path) -> None:
    add(store, tmp_path, "j1")
    with pytest.raises(StoreBusy, match="stop it"):
        JobStore(folder)
    assert ids(store.waiting()) == ["j1"]
    assert folders(folder) == {"j1"}
    store.close()
    again = JobStore(folder)
    assert ids(again.waiting()) == ["j1"]
    again.close()


def test_another_programs_open_file_is_told(folder: Path) -> None:
    JobStore(folder).close()
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy, match="close it there"):
            JobStore(folder)
    JobStore(folder).close()


def test_close_may_come_twice(folder: Path) -> None:
    store = JobStore(folder)
    store.close()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.waiting()


def corrupt_header(file: Path) -> None:
    file.write_bytes(b"no database at all, but long enough to look like one" * 100)


def corrupt_inside(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, 5000)


@pytest.mark.parametrize("damage", [corrupt_header, corrupt_inside, cut])
def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    file = folder / "jobs.sqlite3"
    for number in (1, 2):
        store = JobStore(folder)
        completed(store, tmp_path, "j1", text=" words" * 1000)
        add(store, tmp_path, "j2")
        store.close()
        damage(file)
        damaged = file.read_bytes()
        store = JobStore(folder)
        assert store.listed("a") == []
        assert folders(folder) == set()
        aside = folder / f"jobs.sqlite3.damaged-{number}"
        assert aside.read_bytes() == damaged
        assert aside.stat().st_mode & 0o777 == 0o600
        store.close()
    assert sorted(path.name for path in folder.iterdir()) == [
        "jobs.sqlite3",
        "jobs.sqlite3.damaged-1",
        "jobs.sqlite3.damaged-2",
        "lock",
    ]


def test_a_newer_file_is_left_alone(folder: Path, tmp_path: Path) -> None:
    store = JobStore(folder)
    add(store, tmp_path, "j1")
    store.close()
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite3")) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = (folder / "jobs.sqlite3").read_bytes()
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="start the newer whisperd"):
            JobStore(folder)
    assert (folder / "jobs.sqlite3").read_bytes() == before
    assert folders(folder) == {"j1"}


def test_an_older_file_is_brought_up_to_date_at_once_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(folder)
    added = add(store, tmp_path, "j1")
    store.close()
    fine = "ALTER TABLE jobs ADD COLUMN colour TEXT"
    monkeypatch.setattr(job_database, "MIGRATIONS", (*MIGRATIONS, f"{fine}; DROP TABLE nowhere"))
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        JobStore(folder)
    monkeypatch.setattr(job_database, "MIGRATIONS", (*MIGRATIONS, fine))
    store = JobStore(folder)
    assert store.get("j1", "a") == added
    store.close()
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite3")) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert other.execute("SELECT colour FROM jobs").fetchall() == [(None,)]


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="choose another"):
        JobStore(tmp_path / "file" / "jobs")


def test_a_start_sweeps_what_no_job_waits_for(store: JobStore, folder: Path, tmp_path: Path) -> None:
    add(store, tmp_path, "kept")
    completed(store, tmp_path, "done")
    add(store, tmp_path, "lost")
    store.close()
    for orphan in ("unknown", "done"):
        (folder / f"job-{orphan}").mkdir()
        (folder / f"job-{orphan}" / "upload").write_bytes(b"left behind")
    (folder / "job-lost" / "upload").unlink()
    (folder / "notes").mkdir()
    again = JobStore(folder)
    assert folders(folder) == {"kept", "notes"}
    assert ids(again.waiting()) == ["kept"]
    lost = again.get("lost", "a")
    assert lost is not None
    assert lost.status == "failed"
    assert lost.error is not None
    assert "send it again" in lost.error.message
    assert again.transcript("done", "a") == transcript(" hi")
    again.close()


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_of_the_job_and_loses_none(store: JobStore, folder: Path, tmp_path: Path) -> None:
    """The rows do not fit: SQLite meets the limit, in its log."""
    kept = add(store, tmp_path, "kept")
    store.append("kept", step(" one"))
    long = " Rosebud" * 100_000
    with no_file_larger_than(200_000):
        with pytest.raises(StorageFull):
            add(store, tmp_path, "j1", options=Options(prompt=long))
        with pytest.raises(StorageFull):
            store.append("kept", step(long))
        with pytest.raises(StorageFull):
            store.finish("kept", transcript=transcript(long))
        assert store.get("j1", "a") is None
        assert store.waiting() == [kept]
        assert folders(folder) == {"kept"}
        add(store, tmp_path, "small")
    assert store.steps("kept") == [step(" one")]
    store.close()
    again = JobStore(folder)
    assert ids(again.waiting()) == ["kept", "small"]
    again.finish("kept", transcript=transcript(long))
    assert again.transcript("kept", "a") == transcript(long)
    again.close()


def test_a_database_at_its_limit_is_a_full_disk(store: JobStore, folder: Path, tmp_path: Path) -> None:
    with store._database.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StorageFull, match="disk is full"):
        add(store, tmp_path, "j1", options=Options(prompt=" Rosebud" * 100_000))
    assert folders(folder) == set()
    add(store, tmp_path, "j1")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_an_upload_that_does_not_fit_leaves_nothing(
    store: JobStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="disk is full"):
        add(store, tmp_path, "j1")
    assert folders(folder) == set()
    assert store.get("j1", "a") is None


def test_an_upload_is_on_the_disk_before_its_row(
    store: JobStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, JobRecord | None]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, store.get("j1", "a"))))
    add(store, tmp_path, "j1")
    upload = store.folder_of("j1") / "upload"
    assert synced == [(path.stat().st_ino, None) for path in (upload, upload.parent, folder)]
    with store._database.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_threads_share_a_store(store: JobStore, folder: Path, tmp_path: Path) -> None:
    def work(worker: int) -> None:
        for number in range(6):
            job_id = f"w{worker}-{number}"
            add(store, tmp_path, job_id, owner=f"o{worker}")
            store.append(job_id, step(f" {job_id} 1"))
            store.append(job_id, step(f" {job_id} 2"))
            assert store.steps(job_id) == [step(f" {job_id} 1"), step(f" {job_id} 2")]
            if number % 3 == 0:
                store.finish(job_id, transcript=transcript(job_id))
                assert store.transcript(job_id, f"o{worker}") == transcript(job_id)
            elif number % 3 == 1:
                assert store.delete(job_id, f"o{worker}")
            store.expire(time.time(), 1000.0, 10**9)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert set(ids(store.waiting())) == {f"w{worker}-{number}" for worker in range(6) for number in (2, 5)}
    assert folders(folder) == set(ids(store.waiting()))
    for worker in range(6):
        assert {each.id: each.status for each in store.listed(f"o{worker}")} == {
            f"w{worker}-{number}": "waiting" if number % 3 else "completed" for number in (0, 2, 3, 5)
        }


def test_threads_cannot_take_one_id_twice(store: JobStore, tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def take(worker: int) -> bool:
        upload = tmp_path / f"upload-{worker}"
        upload.write_bytes(b"%d" % worker)
        together.wait()
        try:
            store.add(record("one", owner=f"o{worker}"), upload)
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert taken.count(True) == 1
    (job,) = store.waiting()
    assert job.owner == f"o{taken.index(True)}"
    assert (store.folder_of("one") / "upload").read_bytes() == b"%d" % taken.index(True)


# --- values ---

texts = st.text(max_size=8)
figures = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
spans = st.lists(st.tuples(counts, counts), max_size=3).map(tuple)
windows = st.builds(Window, counts, counts, spans, counts, st.booleans())
words = st.builds(Word, texts, figures, figures, figures)
logprobs = st.builds(TokenLogprob, texts, figures, st.lists(st.integers(0, 255), max_size=3).map(tuple))


def tuples(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=2).map(tuple)


segments = st.builds(
    Segment, figures, figures, texts, counts, tuples(counts), *[figures] * 4, tuples(words), tuples(logprobs)
)
window_results = st.builds(WindowResult, windows, tuples(segments), tuples(windows))


@given(st.builds(Options, prompt=texts, temperature=figures, languages=tuples(texts), vad=st.none() | st.builds(Vad)))
def test_options_come_back_exactly(options: Options) -> None:
    assert repr(OPTIONS.validate_json(OPTIONS.dump_json(options))) == repr(options)


@given(st.builds(StepResult, tuples(window_results), texts, counts, counts))
def test_steps_come_back_exactly(result: StepResult) -> None:
    assert repr(STEP.validate_json(STEP.dump_json(result))) == repr(result)


@given(st.builds(Transcript, texts, figures, tuples(segments), texts, counts, counts, st.booleans()))
def test_transcripts_come_back_exactly(result: Transcript) -> None:
    assert repr(TRANSCRIPT.validate_json(TRANSCRIPT.dump_json(result))) == repr(result)


def test_what_version_1_wrote_can_be_read() -> None:
    """These bytes lie on people's disks: where they cannot be read any more, write a migration, then change them."""
    options = (
        b'{"prompt":"p","temperature":0.2,"languages":["en"],"vad":{"threshold":0.4,"padding_s":0.3,"silence_s":0.2}}'
    )
    assert OPTIONS.validate_json(options) == Options("transcribe", None, "p", 0.2, languages=("en",), vad=Vad(0.4))
    part = (
        b'{"start":0.5,"end":1.5,"text":" a","seek":2,"tokens":[3],"temperature":0.0,"avg_logprob":-1.0,'
        b'"compression_ratio":1.0,"no_speech_prob":0.1,"words":[{"word":"a","start":0.5,"end":1.0,"probability":0.9}],'
        b'"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}'
    )
    word, logprob = Word("a", 0.5, 1.0, 0.9), TokenLogprob("a", -0.5, (97,))
    whole = Segment(0.5, 1.5, " a", 2, (3,), 0.0, -1.0, 1.0, 0.1, (word,), (logprob,))
    window = b'{"start":0,"end":9,"speech":[[1,2]],"encoded":480000,"retry":false}'
    result = (
        b'{"windows":[{"window":%b,"segments":[%b],"again":[%b]}],"language":"en","prompt_tokens":1,"decoded_tokens":2}'
    )
    same = Window(0, 9, ((1, 2),))
    assert STEP.validate_json(result % (window, part, window)) == StepResult(
        (WindowResult(same, (whole,), (same,)),), "en", 1, 2
    )
    end = b'{"language":"en","duration":2.5,"segments":[%b],"task":"transcribe","prompt_tokens":1,"decoded_tokens":2}'
    assert TRANSCRIPT.validate_json(end % part) == Transcript("en", 2.5, (whole,), "transcribe", 1, 2)


# --- killed ---


def long_transcript(job_id: str) -> Transcript:
    """One of many pages, so that a kill may come between two of them."""
    return transcript(job_id * 20_000)


class Life:
    """What one job went through, step by step: each is said before it is done, and after."""

    def __init__(self, store: JobStore, spool: Path, job_id: str, say: Callable[[str], None]) -> None:
        self._store, self._spool, self._id, self._say = store, spool, job_id, say

    def live(self, end: str, steps: int = 3) -> None:
        self._do("add", lambda: add(self._store, self._spool, self._id))
        for number in range(steps):
            self._do(f"step{number}", lambda number=number: self._store.append(self._id, step(f" {number}")))
        ends: dict[str, Callable[[], object]] = {
            "finish": lambda: self._store.finish(self._id, transcript=long_transcript(self._id)),
            "cancel": lambda: self._store.finish(self._id, cancelled=True),
            "delete": lambda: self._store.delete(self._id, "a"),
        }
        if end in ends:
            self._do(end, ends[end])

    def _do(self, what: str, action: Callable[[], object]) -> None:
        self._say(f"begins {self._id} {what}")
        action()
        self._say(f"did {self._id} {what}")


def check_lives(folder: Path, said: list[str]) -> None:
    """Open the store of a killed process, of which ``said`` is known, and hold it against that."""
    begun: dict[str, list[str]] = {}
    done: dict[str, list[str]] = {}
    for line in said:
        kind, job_id, what = line.split()
        (begun if kind == "begins" else done).setdefault(job_id, []).append(what)
    store = JobStore(folder)
    try:
        for job_id, began in begun.items():
            check_life(store, job_id, began, done.get(job_id, []))
        waiting = ids(store.waiting())
        assert folders(folder) == set(waiting)
        assert set(waiting) <= set(begun)
    finally:
        store.close()
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite3")) as database:
        for query, answer in (
            ("SELECT count(*) FROM steps JOIN jobs ON jobs.number = job WHERE status <> 'waiting'", 0),
            ("SELECT count(*) FROM transcripts JOIN jobs ON jobs.number = job WHERE status <> 'completed'", 0),
            ("PRAGMA foreign_key_check", None),
            ("PRAGMA freelist_count", 0),
            ("PRAGMA auto_vacuum", 2),
        ):
            assert database.execute(query).fetchone() == (None if answer is None else (answer,)), query


def check_life(store: JobStore, job_id: str, began: list[str], did: list[str]) -> None:
    job = store.get(job_id, "a")
    ends = {"finish": "completed", "cancel": "cancelled", "delete": None}
    status = None if job is None else job.status
    possible = {ends.get(what, "waiting") for what in (did[-1:] or ["delete"]) + began[-1:]}
    assert status in possible, (job_id, began, did)
    if job is None:
        return
    same = replace(job, status="waiting", finished=None, duration=None)
    assert same == record(job_id)
    if status == "waiting":
        assert (store.folder_of(job_id) / "upload").read_bytes() == sound(job_id)
        kept = store.steps(job_id)
        assert kept == [step(f" {number}") for number in range(len(kept))]
        assert sum("step" in what for what in did) <= len(kept) <= sum("step" in what for what in began)
    else:
        assert store.transcript(job_id, "a") == (long_transcript(job_id) if status == "completed" else None)


def live_on(folder: Path, spool: Path, prefix: str) -> None:
    """The child that is killed from outside: three threads of jobs without end."""
    out = threading.Lock()

    def say(line: str) -> None:
        with out:
            print(line, flush=True)

    say("opens")
    store = JobStore(folder)

    def work(worker: int) -> None:
        for number in range(100_000):
            end = ("finish", "wait", "cancel", "delete")[(worker + number) % 4]
            Life(store, spool, f"{prefix}-{worker}-{number}", say).live(end)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


def child(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_kill_at_any_time_loses_nothing_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    moments = random.Random(7)
    said: list[str] = []
    for turn in range(10):
        process = child("live", str(folder), str(tmp_path), f"t{turn}")
        assert process.stdout is not None
        with process.stdout as lines:
            assert next(lines) == "opens\n"
            threading.Timer(moments.uniform(0, 0.25), process.kill).start()
            said += [line.strip() for line in lines if line.endswith("\n")]
        assert process.wait() == -signal.SIGKILL
        check_lives(folder, said)
    assert len(said) > 20


def die_line_by_line(work: Path) -> None:
    """For each line of the store that two lives run, a process that is killed before that line."""
    number = 0
    while True:
        number += 1
        place = work / str(number)
        place.mkdir()
        pid = os.fork()
        if not pid:
            try:
                sys.settrace(killer(number))
                lives(place)
            finally:
                os._exit(3)
        _, status = os.waitpid(pid, 0)
        check_lives(place / "jobs", (place / "said").read_text().splitlines())
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 3
            break
    print(number)


def lives(place: Path) -> None:
    with (place / "said").open("w") as file:

        def say(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        store = JobStore(place / "jobs")
        for end in ("finish", "delete"):
            Life(store, place, end, say).live(end, steps=1)
        store.close()


def killer(number: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills the process before the line of the store that comes ``number``th."""
    left = number

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def test_a_kill_before_any_line_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    process = child("lines", str(tmp_path))
    assert process.stdout is not None
    with process.stdout as lines:
        said = lines.read()
    assert process.wait() == 0
    assert int(said) > 100


if __name__ == "__main__":
    if sys.argv[1] == "live":
        live_on(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        die_line_by_line(Path(sys.argv[2]))
