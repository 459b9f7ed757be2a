"""``/v1/queue``: who waits for the device, how far each is, and a way out."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from app.api.auth import owner_of
from app.api.schemas import ERROR_RESPONSES, DeletedBody, ErrorBody, QueueEntry, QueueList
from app.api.service import service_of
from app.engine.device import Device
from app.engine.job import Job
from app.errors import NotFound

router = APIRouter(tags=["queue"], responses=ERROR_RESPONSES)


@router.get("/v1/queue", operation_id="listQueue", summary="See what runs and what waits")
async def list_queue(request: Request) -> QueueList:
    """The jobs of this key that are not over, the next to end first."""
    engine, owner = service_of(request).engine, owner_of(request)
    entries = [_entry(engine.device, job) for job in engine.jobs if job.work.owner == owner]
    return QueueList(data=sorted(entries, key=lambda entry: entry.position))


@router.delete(
    "/v1/queue/{job_id}",
    operation_id="cancelQueueEntry",
    summary="Cancel a job that runs or waits",
    responses={404: {"model": ErrorBody, "description": "There is no such job in the queue."}},
)
async def cancel(request: Request, job_id: str) -> DeletedBody:
    """The device is free within one step; whoever waits for the job is answered 410."""
    if service_of(request).engine.cancel(job_id, owner_of(request)) is None:
        raise NotFound(f"There is no job {job_id[:100]!r} in the queue.")
    return DeletedBody(id=job_id, object="queue.entry")


def _entry(device: Device, job: Job) -> QueueEntry:
    place = device.place(job)
    return QueueEntry(
        id=job.id,
        request_id=job.request_id,
        status="running" if job.running else "queued",
        position=place.position,
        estimated_s=None if place.seconds is None else round(place.seconds, 1),
        audio_s=round(job.progress.expected_s, 1),
        done_s=round(job.progress.done_s, 1),
        progress=job.progress.share,
        model=job.work.model,
        priority="background" if job.background else "normal",
        created_at=int(job.created),
        callers=job.callers,
    )
