"""Jobs that outlive their request, on disk: a process killed at any moment loses nothing that ``add`` has taken.

Each unfinished job has a folder with its upload; rows hold the rest. A row is written once its upload is safe, and says
that the job is over before the folder goes: so a folder without a waiting row is what a killed server left, and the
next start removes it. Everything here blocks; call it in threads, several at once if need be.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from pathlib import Path

from app.backends.base import StepResult
from app.engine.job_database import Database, StoreUnusable
from app.engine.job_rows import (
    DELETE_BEYOND,
    INSERT,
    RECORDS,
    STEP,
    TRANSCRIPT,
    JobRecord,
    error_body,
    record_of,
    row_of,
)
from app.errors import StorageFull, WhisperdError
from app.transcript import Options, Transcript

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class JobStore:
    """The jobs in ``folder``, which is this server's alone until ``close``; its files are for its user only.

    Raises ``StoreBusy`` where another server holds it, ``StoreUnusable`` where it cannot be read or written. Every
    method that writes raises ``StorageFull`` where the disk takes no more, and has then changed nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = Database(folder)
        try:
            self._tidy()
        except BaseException as error:
            self._database.close()
            if isinstance(error, StorageFull):
                message = f"The jobs in {folder} cannot be opened: {error.message} Make room, or choose another folder."
                raise StoreUnusable(message) from error
            raise

    def _tidy(self) -> None:
        """End what a killed server left half done."""
        for job in self.waiting():
            if not (self.folder_of(job.id) / "upload").is_file():
                self.finish(job.id, error=WhisperdError("The job's recording was lost on the server: send it again."))
        waiting = {self.folder_of(job.id) for job in self.waiting()}
        for folder in set(self._folder.glob("job-*")) - waiting:
            shutil.rmtree(folder, ignore_errors=True)
        self._database.shred()

    def folder_of(self, job_id: str) -> Path:
        """Where a waiting job keeps its ``upload``, and may keep more. Raises ``ValueError`` for what is no id."""
        if not _ID.fullmatch(job_id):
            raise ValueError("A job's id is letters, digits, '-' and '_'.")
        return self._folder / f"job-{job_id}"

    def add(self, record: JobRecord, upload: Path) -> None:
        """Take the file ``upload`` over, and the job with it; both are on the disk once this returns.

        Raises ``StorageFull`` where they cannot be; ``ValueError`` for an id that is taken. Then nothing of them is
        kept, and ``upload`` may be gone.
        """
        folder = self.folder_of(record.id)
        row = row_of(record)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise ValueError("The job's id is taken.") from None
        except OSError as error:
            raise StorageFull.of(error) from error
        try:
            _move(upload, folder / "upload")
            _sync(folder)
            _sync(self._folder)
            with self._database.transaction() as connection:
                if connection.execute("SELECT 1 FROM jobs WHERE id = ?", (record.id,)).fetchone():
                    raise ValueError("The job's id is taken.")
                connection.execute(INSERT, row)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise StorageFull.of(error) from error
            raise

    def append(self, job_id: str, result: StepResult) -> None:
        """Keep one finished step; nothing happens where the job is over or gone."""
        body = STEP.dump_json(result)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO steps (job, body) SELECT number, ? FROM jobs WHERE id = ? AND status = 'waiting'",
                (body, job_id),
            )

    def steps(self, job_id: str) -> list[StepResult]:
        """A waiting job's finished steps, in the order they came; none of any other."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT body FROM steps JOIN jobs ON jobs.number = steps.job WHERE id = ? ORDER BY steps.number",
                (job_id,),
            ).fetchall()
        return [STEP.validate_json(row["body"]) for row in rows]

    def finish(
        self,
        job_id: str,
        *,
        transcript: Transcript | None = None,
        error: WhisperdError | None = None,
        cancelled: bool = False,
    ) -> None:
        """End a waiting job in one of three ways; its audio and its steps go.

        Nothing happens where it is over or gone: the first end stays.
        """
        if [transcript is not None, error is not None, cancelled].count(True) != 1:
            raise ValueError("A job ends in a transcript, in an error, or cancelled.")
        status = "cancelled" if cancelled else "failed" if transcript is None else "completed"
        body = None if transcript is None else TRANSCRIPT.dump_json(transcript)
        duration = None if transcript is None else transcript.duration
        with self._database.transaction() as connection:
            ended = connection.execute(
                "UPDATE jobs SET status = ?, finished = ?, duration = ?, error = ? WHERE id = ? AND status = 'waiting'",
                (status, time.time(), duration, error_body(error), job_id),
            ).rowcount
            if ended:
                (number,) = connection.execute("SELECT number FROM jobs WHERE id = ?", (job_id,)).fetchone()
                connection.execute("DELETE FROM steps WHERE job = ?", (number,))
                if body is not None:
                    connection.execute("INSERT INTO transcripts (job, body) VALUES (?, ?)", (number, body))
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)
        if ended:
            self._database.shred()

    def get(self, job_id: str, owner: str) -> JobRecord | None:
        found = self._records("WHERE id = ? AND owner = ?", job_id, owner)
        return found[0] if found else None

    def transcript(self, job_id: str, owner: str) -> Transcript | None:
        """A completed job's transcript."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT body FROM transcripts JOIN jobs ON jobs.number = transcripts.job WHERE id = ? AND owner = ?",
                (job_id, owner),
            ).fetchone()
        return None if row is None else TRANSCRIPT.validate_json(row["body"])

    def listed(self, owner: str, limit: int = 100) -> list[JobRecord]:
        """The owner's jobs, newest first."""
        return self._records("WHERE owner = ? ORDER BY created DESC, number DESC LIMIT ?", owner, limit)

    def find(self, *, owner: str, digest: str, options: Options, model_path: str) -> JobRecord | None:
        """The owner's newest waiting or completed job for the same work."""
        same = self._records(
            "WHERE owner = ? AND digest = ? AND model_path = ? AND status IN ('waiting', 'completed') "
            "ORDER BY created DESC, number DESC",
            owner,
            digest,
            model_path,
        )
        return next((job for job in same if job.options == options), None)

    def waiting(self) -> list[JobRecord]:
        """All owners' unfinished jobs, oldest first."""
        return self._records("WHERE status = 'waiting' ORDER BY created, number")

    def waiting_bytes(self) -> int:
        """Bytes of the unfinished jobs' uploads."""
        with self._database.transaction() as connection:
            total: int
            (total,) = connection.execute("SELECT coalesce(sum(size), 0) FROM jobs WHERE status = 'waiting'").fetchone()
        return total

    def delete(self, job_id: str, owner: str) -> bool:
        """Remove the owner's job with all that belongs to it; False where there is none."""
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE id = ? AND owner = ?", (job_id, owner)).rowcount
        if gone:
            shutil.rmtree(self.folder_of(job_id), ignore_errors=True)
            self._database.shred()
        return bool(gone)

    def expire(self, now: float, ttl_s: float, max_bytes: int) -> int:
        """Remove jobs that finished more than ``ttl_s`` seconds before ``now`` (Unix seconds), then those with
        the oldest transcripts until all transcripts take at most ``max_bytes``. Returns how many jobs went."""
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE finished < ?", (now - ttl_s,)).rowcount
            gone += connection.execute(DELETE_BEYOND, (max_bytes,)).rowcount
        if gone:
            self._database.shred()
        return gone

    def close(self) -> None:
        """Let the folder go; nothing else may be called after it."""
        self._database.close()

    def _records(self, condition: str, *values: str | int) -> list[JobRecord]:
        with self._database.transaction() as connection:
            rows = connection.execute(RECORDS + condition, values).fetchall()
        return [record_of(row) for row in rows]


def _move(source: Path, target: Path) -> None:
    """Move a file, durably and for its user only; across file systems too."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)
        source.unlink()
    target.chmod(0o600)
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
