"""Stored jobs as rows: the record of a job, the tables that hold it, and its values as JSON and back.

What is stored is read again by later versions. A field that ``Options``, ``StepResult`` or ``Transcript`` gains with a
default needs nothing; one renamed, removed or added without a default needs an entry in ``MIGRATIONS`` that rewrites
what is there.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from app.backends.base import StepResult
from app.errors import WhisperdError, error_from_code
from app.transcript import Options, Transcript


@dataclass(frozen=True, slots=True)
class StoredError:
    """An error as it travels: ``param`` names the request's field at fault, where there is one."""

    code: str
    message: str
    param: str | None = None

    def restored(self) -> WhisperdError:
        """The error itself; an unknown code becomes the base class."""
        return error_from_code(self.code, self.message, self.param)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is stored, without its steps and its transcript.

    ``id`` is its maker's; ``owner`` says whose key made it, "" without keys; ``created`` and ``finished`` are Unix
    seconds; ``model`` is the public name; ``response_format`` and ``granularities`` are what the request asked for;
    ``digest`` is the upload's SHA-256 in hex, ``size`` its bytes. What follows is filled in by the store: ``status`` is
    ``waiting``, ``completed``, ``failed`` or ``cancelled``; ``duration`` is seconds of audio, of completed jobs.
    """

    id: str
    owner: str
    request_id: str
    created: float
    model: str
    model_path: str
    options: Options
    response_format: str
    granularities: tuple[str, ...]
    background: bool
    digest: str
    size: int
    status: str = "waiting"
    finished: float | None = None
    duration: float | None = None
    error: StoredError | None = None


#: Values as JSON and back, exactly: floats keep every bit. Figures must be finite, and texts valid Unicode.
OPTIONS = TypeAdapter(Options)
STEP = TypeAdapter(StepResult)
TRANSCRIPT = TypeAdapter(Transcript)
_NAMES = TypeAdapter(tuple[str, ...])
_ERROR = TypeAdapter(StoredError)

#: What brings the tables from one version to the next, an entry each; the first begins from an empty file.
#: What has been released stays as it is: a change is a new entry.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        request_id TEXT NOT NULL,
        created REAL NOT NULL,
        model TEXT NOT NULL,
        model_path TEXT NOT NULL,
        options BLOB NOT NULL,
        response_format TEXT NOT NULL,
        granularities BLOB NOT NULL,
        background INTEGER NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        status TEXT NOT NULL,
        finished REAL,
        duration REAL,
        error BLOB
    );
    CREATE INDEX jobs_by_owner ON jobs (owner, created);
    CREATE INDEX jobs_by_digest ON jobs (digest);
    CREATE INDEX jobs_by_status ON jobs (status);
    CREATE TABLE steps (
        number INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        body BLOB NOT NULL
    );
    CREATE INDEX steps_by_job ON steps (job);
    CREATE TABLE transcripts (
        job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
        body BLOB NOT NULL
    );
    """,
)

#: Begins a query whose rows ``record_of`` reads.
RECORDS = """
    SELECT id, owner, request_id, created, model, model_path, options, response_format, granularities, background,
           digest, size, status, finished, duration, error
    FROM jobs
"""
INSERT = """
    INSERT INTO jobs (id, owner, request_id, created, model, model_path, options, response_format, granularities,
                      background, digest, size, status)
    VALUES (:id, :owner, :request_id, :created, :model, :model_path, :options, :response_format, :granularities,
            :background, :digest, :size, 'waiting')
"""
#: Deletes the jobs whose transcript no longer fits once those that finished later are counted.
DELETE_BEYOND = """
    DELETE FROM jobs WHERE number IN (
        SELECT job FROM (
            SELECT job, sum(length(body)) OVER (ORDER BY finished DESC, job DESC) AS bytes
            FROM transcripts JOIN jobs ON jobs.number = transcripts.job
        ) WHERE bytes > ?
    )
"""


def row_of(record: JobRecord) -> dict[str, Any]:
    """The parameters of ``INSERT``."""
    return {
        "id": record.id,
        "owner": record.owner,
        "request_id": record.request_id,
        "created": record.created,
        "model": record.model,
        "model_path": record.model_path,
        "options": OPTIONS.dump_json(record.options),
        "response_format": record.response_format,
        "granularities": _NAMES.dump_json(record.granularities),
        "background": record.background,
        "digest": record.digest,
        "size": record.size,
    }


def record_of(row: sqlite3.Row) -> JobRecord:
    values = dict(row)
    error = values["error"]
    values |= {
        "options": OPTIONS.validate_json(values["options"]),
        "granularities": _NAMES.validate_json(values["granularities"]),
        "background": bool(values["background"]),
        "error": None if error is None else _ERROR.validate_json(error),
    }
    return JobRecord(**values)


def error_body(error: WhisperdError | None) -> bytes | None:
    """What the column ``error`` holds."""
    return None if error is None else _ERROR.dump_json(StoredError(error.code, error.message, error.param))
