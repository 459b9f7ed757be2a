"""``/v1/jobs``: work that outlives its request; ``Prefer: respond-async`` on the upload asks for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.auth import owner_of
from app.api.errors import error_body
from app.api.forms import TranscriptionForm, TranslationForm
from app.api.responses import ANSWER_HEADERS, BACKEND, WARNING
from app.api.schemas import ERROR_RESPONSES, DeletedBody, ErrorBody, ErrorDetail, JobBody, JobList, SegmentBody
from app.api.service import service_of
from app.engine.admission import Upload
from app.engine.durable import DurableJobs
from app.engine.engine import Engine
from app.engine.job import Work
from app.engine.job_rows import JobRecord
from app.errors import JobCancelled, JobsUnavailable, NotFinished, NotFound
from app.formats import FORMATS, segment_body
from app.languages import language_name
from app.transcript import Segment

router = APIRouter(tags=["jobs"], responses=ERROR_RESPONSES)

Responses = dict[int | str, dict[str, Any]]

_ASYNC = re.compile(r"(^|[,;\s])respond-async($|[,;\s])", re.IGNORECASE)
_NOT_FOUND: Responses = {404: {"model": ErrorBody, "description": "There is no such job, or it is too old."}}
_BAD: Responses = {400: {"model": ErrorBody, "description": "A parameter cannot be used."}}
_OFF: Responses = {503: {"model": ErrorBody, "description": "This server keeps no jobs."}}


def prefers_async(request: Request) -> bool:
    """Whether the client would rather have a job than wait (RFC 7240)."""
    return any(_ASYNC.search(value) for value in request.headers.getlist("prefer"))


async def accepted(
    request: Request, upload: Upload, work: Work, fields: TranscriptionForm | TranslationForm, *, background: bool
) -> Response:
    """Keep the upload as a job and answer 202 with where to ask for it."""
    record = await _jobs_of(request).accept(
        upload,
        work,
        response_format=fields.response_format,
        granularities=tuple(fields.timestamp_granularities) if work.options.words else ("segment",),
        background=background,
    )
    headers = {"Location": f"/v1/jobs/{record.id}", "Preference-Applied": "respond-async"}
    return JSONResponse((await _body(request, record)).model_dump(), status_code=202, headers=headers)


@router.get("/v1/jobs", operation_id="listJobs", summary="List the jobs of this key", responses=_BAD | _OFF)
async def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000, description="The most that are listed, the newest first.")] = 100,
) -> JobList:
    """Without their segments, which each job has at its own address."""
    records = await _jobs_of(request).listed(owner_of(request), limit)
    return JobList(data=[await _body(request, record, segments=False) for record in records])


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="retrieveJob",
    summary="See how far a job is",
    responses=_BAD | _NOT_FOUND | _OFF,
)
async def get_job(
    request: Request,
    job_id: str,
    after: Annotated[int, Query(ge=0, description="How many segments you have: those behind them are sent.")] = 0,
) -> JobBody:
    """Status, progress, and the segments that are final so far."""
    return await _body(request, await _found(request, job_id), after=after)


@router.get(
    "/v1/jobs/{job_id}/result",
    operation_id="retrieveJobResult",
    summary="Get a finished job's result",
    response_class=Response,
    responses={
        200: {
            "description": "The text in the format asked for.",
            "headers": ANSWER_HEADERS,
            "content": {format_.media_type.partition(";")[0]: {} for format_ in FORMATS.values()},
        },
        410: {"model": ErrorBody, "description": "The job was cancelled."},
        413: {"model": ErrorBody, "description": "The recording is longer than the server takes."},
        504: {"model": ErrorBody, "description": "The work took too long."},
        **_BAD,
        **_NOT_FOUND,
        **_OFF,
    },
)
async def get_result(
    request: Request,
    job_id: str,
    response_format: Annotated[
        Literal["json", "text", "srt", "verbose_json", "vtt"] | None,
        Query(description="Any format; the one that the job was sent with where it is left out."),
    ] = None,
) -> Response:
    """As the endpoint that took the recording would have answered; the job's error where it failed."""
    record = await _found(request, job_id)
    if record.status == "waiting":
        raise NotFinished("The job is not finished; its status says how far it is.")
    transcript = await _jobs_of(request).transcript(job_id, record.owner)
    if transcript is None:
        raise record.error.restored() if record.error else JobCancelled("The job was cancelled.")
    format_ = FORMATS[response_format or record.response_format]
    told = {BACKEND: transcript.backend, WARNING: transcript.warning}
    headers = {name: value for name, value in told.items() if value}
    body = format_.render(transcript, frozenset(record.granularities))
    return Response(body, media_type=format_.media_type, headers=headers)


@router.delete(
    "/v1/jobs/{job_id}",
    operation_id="deleteJob",
    summary="Cancel a job and remove all of it",
    responses=_NOT_FOUND | _OFF,
)
async def delete_job(request: Request, job_id: str) -> DeletedBody:
    """The device is free within one step; the recording and the text are gone from the disk."""
    if not await _jobs_of(request).delete(job_id, owner_of(request)):
        raise _no_such(job_id)
    return DeletedBody(id=job_id, object="job")


def _jobs_of(request: Request) -> DurableJobs:
    jobs = service_of(request).jobs
    if jobs is None:
        raise JobsUnavailable("This server keeps no jobs: its log says why. Send the request without 'Prefer'.")
    return jobs


async def _found(request: Request, job_id: str) -> JobRecord:
    record = await _jobs_of(request).get(job_id, owner_of(request))
    if record is None:
        raise _no_such(job_id)
    return record


def _no_such(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id[:100]!r}.")


async def _body(request: Request, record: JobRecord, *, segments: bool = True, after: int = 0) -> JobBody:
    """The job as it is shown; of a running one, what the engine knows."""
    service, jobs = service_of(request), _jobs_of(request)
    body = JobBody(
        id=record.id,
        request_id=record.request_id,
        status="queued" if record.status == "waiting" else record.status,
        created_at=int(record.created),
        model=record.model,
        task=record.options.task,
        response_format=record.response_format,
        priority="background" if record.background else "normal",
        duration=record.duration,
    )
    done: Sequence[Segment] = ()
    if record.status == "waiting":
        done = _show_progress(body, service.engine, jobs, record.id)
    else:
        body.finished_at = int(record.finished or 0)
        body.expires_at = int((record.finished or 0) + jobs.ttl_s)
        body.progress = 1.0 if record.status == "completed" else 0.0
        body.error = ErrorDetail(**error_body(record.error.restored())["error"]) if record.error else None
        if segments and (transcript := await jobs.transcript(record.id, record.owner)) is not None:
            done, body.language = transcript.segments, language_name(transcript.language)
            body.warning = transcript.warning or None
    if segments:
        body.segments = [SegmentBody(**segment_body(after + number, each)) for number, each in enumerate(done[after:])]
    return body


def _show_progress(body: JobBody, engine: Engine, jobs: DurableJobs, job_id: str) -> Sequence[Segment]:
    """Fill in how far an unfinished job is; returns its final segments."""
    job = jobs.live(job_id)
    if job is None:
        ahead = jobs.ahead(job_id)
        body.position = None if ahead is None else len(engine.jobs) + ahead + 1
        return ()
    place = engine.device.place(job)
    body.status = "running" if job.running else "queued"
    body.position, body.estimated_s = place.position, None if place.seconds is None else round(place.seconds, 1)
    body.duration, body.progress = round(job.progress.expected_s, 3), job.progress.share
    return job.progress.segments
