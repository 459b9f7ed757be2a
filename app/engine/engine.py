"""The engine: uploads in, transcripts out. Decoding runs beside transcription; steps on the device run one at a time.

All of it lives in one event loop. A job is fed by a task of its own (decoder -> windows); the device gives its next
step to the job that the lane names. Callers hold an ``Upload``, then the ``Job`` that it became or met; the job ends
with its transcript, with an error, or when the last caller has left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

import anyio
from anyio.abc import TaskGroup

from app.engine.admission import Admission, Upload
from app.engine.decoders import Decoders
from app.engine.device import Device, known
from app.engine.job import Job, Work
from app.engine.recent import Recent
from app.engine.record import record
from app.errors import DeadlineExceeded, JobCancelled, QueueFull, ShuttingDown, WhisperdError
from app.log import event, request_id
from app.metrics import Metrics
from app.transcript import MAX_FITTED, MAX_WINDOW
from app.worker.awake import CLOCK

#: How often jobs are looked at whose time may be over.
_SWEEP_S = 1.0


class Engine:
    """``async with engine.running(model)``; then ``admit`` an upload, write it to ``upload.source``, ``submit`` it and
    wait for ``job.result()``.

    ``job_timeout_s`` is how long a job may take in all, 0 for ever; ``keep_s`` for how long what ends, or is left by
    its callers, may be met by a retry.
    """

    def __init__(
        self,
        admission: Admission,
        device: Device,
        decoders: Decoders,
        metrics: Metrics,
        *,
        job_timeout_s: float = 0,
        keep_s: float = 0,
    ) -> None:
        self.admission = admission
        self.device = device
        self.metrics = metrics
        self._decoders = decoders
        self._job_timeout_s = job_timeout_s
        self._recent = Recent(keep_s)
        admission.make_room = self._make_room
        #: The name of an owner's key, for the metrics and the log; "" for none.
        self.name_owner: Callable[[str], str] = lambda _: ""
        #: The jobs that are not over, parked ones aside, in the order in which they came.
        self._jobs: dict[Job, None] = {}
        self._tasks: TaskGroup | None = None
        #: Nothing new is taken; and, later, nothing is worked on.
        self.closing = False
        self._down = False

    @contextlib.asynccontextmanager
    async def running(self, preload: str) -> AsyncIterator[Engine]:
        """Run the engine, loading the default model, in the folder ``preload``, at once in the background."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self.device.run, preload)
                self._tasks.start_soon(self._warm_up_decoder)
                self._tasks.start_soon(self._sweep)
                try:
                    yield self
                finally:
                    self.refuse()
                    self.drop()
                    self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self.device.relay.worker.aclose()
                await self._decoders.aclose()
                await anyio.to_thread.run_sync(self.admission.spool.close)

    # --- from the first byte to the job ---

    @contextlib.contextmanager
    def admit(self, size: int = 0, *, retry: bool = False) -> Iterator[Upload]:
        """A slot in the queue, a private folder and room for ``size`` bytes, until the context is left.

        Raises ``QueueFull``, ``ShuttingDown``, ``StorageFull``. What is submitted meanwhile outlives the context.
        """
        upload: Upload | None = None
        try:
            if self.closing:
                raise ShuttingDown("The server is going down.")
            upload = self.admission.enter(size, retry=retry)
            yield upload
        except WhisperdError as error:
            if upload is None or not upload.submitted:  # else the job counts it
                self.metrics.jobs.labels(error.code).inc()
                if isinstance(error, QueueFull):
                    error.retry_after = self.device.retry_after(self._jobs)
            raise
        except BaseException:
            if upload is not None and not upload.submitted:  # its client hung up, mostly
                self.metrics.jobs.labels("upload_left").inc()
            raise
        finally:
            if upload is not None and not upload.submitted:
                upload.close()

    @contextlib.contextmanager
    def submit(self, upload: Upload, work: Work, *, background: bool = False) -> Iterator[Job]:
        """The job that does ``work``, which the upload holds whole: one that runs, was left or has just ended, else a
        new one. Leaving the context leaves the job; the last caller's leaving ends it. Raises ``ShuttingDown``.
        """
        self._check_down()
        upload.submitted = True
        job = self._recent.find(work)
        if job is not None:
            upload.close()
            self._meet(job, background=background)
        else:
            job = Job(work, upload.source, upload.folder / "pcm", request_id=request_id.get())
            job.background, job.upload = background, upload
            self._begin(job)
        with self._held(job):
            yield job

    @contextlib.contextmanager
    def take_up(self, job: Job) -> Iterator[Job]:
        """As ``submit``, for a job on disk that was made elsewhere; yields the one that does its work, if there is
        one, in its place.
        """
        self._check_down()
        met = self._recent.find(job.work)
        if met is not None:
            self._meet(met, background=job.background)
        else:
            self._begin(job)
        with self._held(met or job):
            yield met or job

    @contextlib.contextmanager
    def _held(self, job: Job) -> Iterator[None]:
        job.callers += 1
        try:
            yield
        finally:
            job.callers -= 1
            if not job.callers and not job.over:
                self._left(job)

    def _check_down(self) -> None:
        if self._down:
            raise _going_down()

    def _begin(self, job: Job) -> None:
        """Run a job, for the first time or again."""
        assert self._tasks is not None, "the engine is not running"
        job.on_end = self._ended
        self._recent.add(job)
        self._jobs[job] = None
        self.device.enter(job)
        if not job.progress.decoded:
            self._tasks.start_soon(self._feed, job, job.scope)

    def _meet(self, job: Job, *, background: bool) -> None:
        """Somebody asks for what a job does or did."""
        self.metrics.joined.labels("left" if job.parked else "finished" if job.over else "running").inc()
        if job.parked:
            job.unpark()
            self._begin(job)
        if not background and not job.over:
            self.device.promote(job)

    # --- the job's life ---

    async def _feed(self, job: Job, scope: anyio.CancelScope) -> None:
        """Decode the job's upload, handing its windows to the device as they come."""
        started = time.monotonic()
        try:
            with scope:
                longest = MAX_WINDOW if job.progress.margin is None else MAX_FITTED
                decoded = self._decoders.decode(job.source, job.pcm, job.work.options.vad, longest)
                async with aclosing(decoded) as parts:
                    async for part in parts:
                        job.add(part)
                        self._check_audio(job)
                        self.device.update(job)
        except Exception as error:  # noqa: BLE001 - a bug must cost its job alone, not the server
            job.fail(known(error))
        job.decode_seconds += time.monotonic() - started

    def _check_audio(self, job: Job) -> None:
        """End a job that has not begun where all there is to transcribe is more than the queue holds.

        Jobs on disk are not asked: whoever takes them up looks at ``audio_s`` before.
        """
        alone = len(self._jobs) == 1
        if job.over or job.running or alone or job.upload is None:
            return
        if self.audio_s > self.admission.limits.audio_s:
            hours = self.admission.limits.audio_s / 3600
            error = QueueFull(f"The queue holds all the {hours:g} hours of audio that it takes; try again later.")
            error.retry_after = self.device.retry_after(other for other in self._jobs if other is not job)
            job.fail(error)

    def _left(self, job: Job) -> None:
        """Nobody waits for the job any more: what the device did for it, or is doing, is kept for a while."""
        if job.upload is None or not job.running or not self._recent.keep(job):
            job.fail(_given_up())
            return
        del self._jobs[job]
        job.park()
        self.device.leave(job)
        event("job left", job=job.id, request=job.request_id, done_s=job.progress.done_s)

    def _ended(self, job: Job) -> None:
        """What follows, once, when a job is over, however it ended."""
        self.device.leave(job)
        self._jobs.pop(job, None)
        if job.transcript is None or not self._recent.keep(job):
            self._recent.forget(job)
        if job.upload is not None:
            job.upload.close()
        record(self.metrics, job, self.name_owner(job.work.owner))

    def _make_room(self) -> bool:
        """Give up what is only kept for a retry, the oldest first; whether there was any."""
        parked = self._recent.oldest_parked()
        if parked is not None:
            parked.fail(_given_up())
        return parked is not None

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(_SWEEP_S)
            for job in self._recent.outlived():
                job.fail(_given_up())
                self._recent.forget(job)
            with contextlib.suppress(OSError):  # uploads are refused meanwhile; the next look tries again
                self.admission.spool.keep()
            now = CLOCK.now()  # looked at in any case: that is how it notices a sleep
            for job in [job for job in self._jobs if 0 < self._job_timeout_s < now - job.began]:
                job.fail(DeadlineExceeded(f"The job took longer than {self._job_timeout_s:g} s and was stopped."))

    # --- what can be seen and done from outside ---

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are not over, in the order in which they came."""
        return list(self._jobs)

    @property
    def audio_s(self) -> float:
        """Seconds of audio that are still to be transcribed, as far as known."""
        return sum(job.progress.remaining_s for job in self._jobs)

    def cancel(self, job_id: str, owner: str) -> Job | None:
        """End the owner's job of that id for all its callers; None where there is none."""
        job = next((job for job in self._jobs if job.id == job_id and job.work.owner == owner), None)
        if job is not None:
            job.fail(JobCancelled("The job was cancelled."))
        return job

    def measure(self) -> None:
        """Bring the gauges up to date that nobody reports: memory, readiness."""
        self.metrics.worker_memory.labels("worker").set(self.device.relay.worker.memory)
        self.metrics.worker_memory.labels("decoder").set(self._decoders.memory)
        self.metrics.ready.set(self.device.relay.ready)
        worker = self.device.relay.worker
        self.metrics.set_backend(worker.candidate.backend, worker.info if worker.ready else None)
        self.metrics.queue_jobs.set(self.admission.slots)

    def refuse(self) -> None:
        """Take no new jobs."""
        self.closing = True

    def drop(self) -> int:
        """End all jobs that are still here with ``ShuttingDown``; returns how many. Those on disk wait there."""
        self._down = True
        dropped = self.jobs
        for job in dropped:
            job.fail(_going_down())
        while self._make_room():
            pass
        return len(dropped)

    async def drain(self, seconds: float) -> None:
        """Take no new jobs, give the requests that run ``seconds`` to end, then end the rest with ``ShuttingDown``."""
        self.refuse()
        with anyio.move_on_after(seconds):
            while self.admission.slots or any(job.upload is None and job.callers > 1 for job in self._jobs):  # noqa: ASYNC110 - once, at shutdown
                await anyio.sleep(0.02)
        if dropped := self.drop():
            event("jobs dropped at shutdown", jobs=dropped)

    async def _warm_up_decoder(self) -> None:
        with contextlib.suppress(WhisperdError):  # the first file tries again and reports
            await self._decoders.warm_up()


def _given_up() -> JobCancelled:
    return JobCancelled("The request was given up.")


def _going_down() -> ShuttingDown:
    return ShuttingDown("The server is going down; send the request again.")
