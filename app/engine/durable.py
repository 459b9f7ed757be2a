"""Jobs that outlive their request: kept on disk from their upload on, taken up by the engine as it has room, and again
after a restart, behind the last step that was finished.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from app.engine.admission import Upload
from app.engine.device import known
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.engine.job_rows import JobRecord
from app.engine.job_store import JobStore
from app.errors import (
    BackendUnavailable,
    JobCancelled,
    QueueFull,
    ShuttingDown,
    StorageFull,
    WhisperdError,
)
from app.log import event, request_id
from app.metrics import Metrics
from app.transcript import Transcript

#: Most jobs that the engine holds at once; their decoded audio is what takes room.
_MOST_LIVE = 32
#: How often the engine is asked for room, and how often results are looked at that may be too old.
_LOOK_S = 0.5
_EXPIRE_S = 60.0
#: A job that cannot be done now is tried again, later each time, at the latest after so long.
_MOST_WAIT_S = 600.0


@dataclass(eq=False, slots=True)
class _Run:
    """A job that is being seen through: how to stop that, when it has stopped, and whether it is put off."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    put_off: bool = False


class DurableJobs:
    """``ttl_s`` is how long a finished job is kept, ``max_bytes`` what all results may take on the disk,
    ``waiting_bytes`` what the uploads of unfinished jobs may.
    """

    def __init__(
        self,
        store: JobStore,
        engine: Engine,
        metrics: Metrics,
        *,
        ttl_s: float,
        max_bytes: int,
        waiting_bytes: int,
    ) -> None:
        self.ttl_s = ttl_s
        self._store = store
        self._engine = engine
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._waiting_bytes = waiting_bytes
        self._waiting: deque[JobRecord] = deque()
        self._bytes = 0
        self._live: dict[str, Job] = {}
        self._runs: dict[str, _Run] = {}
        self._wake = anyio.Event()
        self._accepting = anyio.Lock()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[DurableJobs]:
        """Take up what an earlier server left, then what is accepted."""
        try:
            self._waiting.extend(await to_thread.run_sync(self._store.waiting))
            self._bytes = await to_thread.run_sync(self._store.waiting_bytes)
            if self._waiting:
                event("jobs on disk taken up again", jobs=len(self._waiting))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._take_up, tasks)
                tasks.start_soon(self._expire)
                try:
                    yield self
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._store.close)

    async def accept(
        self, upload: Upload, work: Work, *, response_format: str, granularities: tuple[str, ...], background: bool
    ) -> JobRecord:
        """Keep the upload as a job, durably; the owner's job for the same work in the same shape where there is one.

        Raises ``QueueFull``, ``StorageFull``.
        """
        async with self._accepting:  # so that the same upload twice at once is one job
            same = await to_thread.run_sync(
                lambda: self._store.find(
                    owner=work.owner, digest=work.digest, options=work.options, model_path=work.model_path
                )
            )
            shape = (response_format, granularities)
            if same is not None and (same.response_format, same.granularities) == shape:
                return same if background else self._promoted(same)
            size = upload.source.stat().st_size
            if self._bytes and self._bytes + size > self._waiting_bytes:
                limit = self._waiting_bytes // 2**20
                raise QueueFull(f"The jobs that wait take all of the {limit} MiB for them; try again later.")
            record = JobRecord(
                id=secrets.token_hex(8),
                owner=work.owner,
                request_id=request_id.get(),
                created=time.time(),
                model=work.model,
                model_path=work.model_path,
                options=work.options,
                response_format=response_format,
                granularities=granularities,
                background=background,
                digest=work.digest,
                size=size,
            )
            self._bytes += size
            try:
                # Once it lies on the disk it is accepted, whether or not its client is still there to hear it.
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(self._store.add, record, upload.source)
            except BaseException:
                self._bytes -= size
                raise
            self._waiting.append(record)
            self._wake.set()
            event("job accepted", job=record.id, bytes=size)
            return record

    def _promoted(self, record: JobRecord) -> JobRecord:
        """The job, no longer in the background."""
        asked = replace(record, background=False)
        self._waiting = deque(asked if each.id == record.id else each for each in self._waiting)
        if (job := self._live.get(record.id)) is not None and not job.over:
            self._engine.device.promote(job)
        return asked

    async def get(self, job_id: str, owner: str) -> JobRecord | None:
        return await to_thread.run_sync(self._store.get, job_id, owner)

    async def listed(self, owner: str, limit: int) -> list[JobRecord]:
        """The owner's jobs, newest first."""
        return await to_thread.run_sync(self._store.listed, owner, limit)

    async def transcript(self, job_id: str, owner: str) -> Transcript | None:
        """A completed job's transcript."""
        return await to_thread.run_sync(self._store.transcript, job_id, owner)

    async def delete(self, job_id: str, owner: str) -> bool:
        """End the owner's job if it is not over, and remove all of it; False where there is none."""
        if await self.get(job_id, owner) is None:
            return False
        for record in [record for record in self._waiting if record.id == job_id]:
            self._waiting.remove(record)
            self._bytes -= record.size
        if (job := self._live.get(job_id)) is not None and job.id == job_id:
            job.fail(JobCancelled("The job was deleted."))
        if (run := self._runs.get(job_id)) is not None:
            run.scope.cancel()
            await run.done.wait()
        return await to_thread.run_sync(self._store.delete, job_id, owner)

    def live(self, job_id: str) -> Job | None:
        """The job as the engine works on it; None where it waits on the disk, or is over."""
        return self._live.get(job_id)

    def ahead(self, job_id: str) -> int | None:
        """How many jobs on disk go before one that waits there; None where it does not."""
        return next((place for place, record in enumerate(self._waiting) if record.id == job_id), None)

    # --- between disk and engine ---

    async def _take_up(self, tasks: TaskGroup) -> None:
        while True:
            self._metrics.jobs_waiting.set(len(self._waiting) + len(self._runs))
            if self._waiting and self._has_room():
                record = self._waiting.popleft()
                run = self._runs[record.id] = _Run()
                tasks.start_soon(self._see_through, record, run)
                continue
            self._wake = anyio.Event()
            with anyio.move_on_after(_LOOK_S):
                await self._wake.wait()

    def unfinished(self, owner: str) -> int:
        """How many of the owner's jobs wait or run."""
        waiting = sum(record.owner == owner for record in self._waiting)
        return waiting + sum(job.work.owner == owner and not job.over for job in self._live.values())

    def _has_room(self) -> bool:
        """Whether one more may be decoded now: half of the queue's audio is for requests that somebody waits for.

        One after the other, since what a recording holds shows only once it is opened.
        """
        if self._engine.closing or len(self._runs) >= _MOST_LIVE:
            return False
        for job_id, run in self._runs.items():
            job = self._live.get(job_id)
            if not run.put_off and (job is None or not job.progress.samples):
                return False
        audio_s = self._engine.audio_s
        return not audio_s or audio_s < self._engine.admission.limits.audio_s / 2

    async def _see_through(self, record: JobRecord, run: _Run) -> None:
        """Have a job done, and keep how it ended."""
        request_id.set(record.request_id)
        try:
            with run.scope:
                patience = 1.0
                while (error := await self._attempt(record)) is not None:
                    wait = min(patience * (error.retry_after or 10), _MOST_WAIT_S)
                    event("job put off", job=record.id, reason=error.code, seconds=wait)
                    run.put_off, patience = True, 2 * patience
                    self._wake.set()
                    await anyio.sleep(wait)
                    run.put_off = False
        finally:
            del self._runs[record.id]
            run.done.set()
            self._bytes -= record.size
            self._wake.set()

    async def _attempt(self, record: JobRecord) -> WhisperdError | None:
        """Why the job must be tried again later; None where it is over, or left to the next server."""
        try:
            await self._do(record)
        except ShuttingDown:
            return None
        except Exception as error:  # noqa: BLE001 - a bug must not cost the other jobs
            return known(error)
        return None

    async def _do(self, record: JobRecord) -> None:
        """Have the engine do it, and keep its end. Raises what will pass: going down, no model, no room."""
        steps = await to_thread.run_sync(self._store.steps, record.id)
        work = Work(record.options, record.model_path, record.model, record.digest, record.owner)
        folder = self._store.folder_of(record.id)
        own = Job(work, folder / "upload", folder / "pcm", request_id=record.request_id, steps=steps)
        own.id, own.background = record.id, record.background
        try:
            with self._engine.take_up(own) as job:
                self._live[record.id] = job
                if job is own:
                    await self._keep_steps(record.id, job, len(steps))
                transcript = await job.result()
        except (ShuttingDown, BackendUnavailable, StorageFull):
            raise
        except JobCancelled:
            await to_thread.run_sync(lambda: self._store.finish(record.id, cancelled=True))
        except WhisperdError as error:
            failed = error
            await to_thread.run_sync(lambda: self._store.finish(record.id, error=failed))
        else:
            await to_thread.run_sync(lambda: self._store.finish(record.id, transcript=transcript))
        finally:
            self._live.pop(record.id, None)

    async def _keep_steps(self, job_id: str, job: Job, kept: int) -> None:
        """Write each step down as it is finished, until the job is over."""
        while not job.over:
            change = job.change
            while kept < len(job.steps):
                step = job.steps[kept]
                await to_thread.run_sync(self._store.append, job_id, step)
                kept += 1
            await change.wait()

    async def _expire(self) -> None:
        while True:
            try:
                gone = await to_thread.run_sync(self._store.expire, time.time(), self.ttl_s, self._max_bytes)
                if gone:
                    event("old jobs removed", jobs=gone)
            except Exception as error:  # noqa: BLE001 - a full disk, and whatever else, passes
                known(error)
            await anyio.sleep(_EXPIRE_S)
