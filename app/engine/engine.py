"""The engine: jobs in, transcripts out. Decoding runs beside transcription; steps on the device run one at a time.

All of it lives in one event loop. A job is fed by a task of its own (decoder -> windows); one dispatcher gives the
device's next step to the job that the lane names. Callers hold a ``Job`` and wait on it; leaving its context cancels
it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from app.engine.decoders import Decoders
from app.engine.job import Job
from app.engine.lane import Lane
from app.engine.pace import Pace
from app.engine.store import Spool
from app.engine.worker import Worker
from app.errors import QueueFull, ShuttingDown, WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE, Options

#: How often an idle engine looks whether its worker still lives.
_IDLE_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """``position`` counts from 1; ``seconds`` until the job should be done, None while the device's pace is unknown."""

    position: int
    seconds: float | None


class Engine:
    """``async with`` it; then ``admit`` a job, write its upload to ``job.source``, ``start`` it and wait for
    ``job.result()``.
    """

    def __init__(
        self, spool: Spool, worker: Worker, decoders: Decoders, metrics: Metrics, *, max_jobs: int, max_batch: int
    ) -> None:
        self._spool = spool
        self._decoders = decoders
        self._max_jobs = max_jobs
        self._jobs: set[Job] = set()
        self._lane: Lane[Job] = Lane()
        self._wake = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._closing = False
        self.worker = worker
        self.metrics = metrics
        self.pace = Pace(max_batch)

    @contextlib.asynccontextmanager
    async def running(self, preload: str) -> AsyncIterator[Engine]:
        """Run the engine, loading the model in the folder ``preload`` at once in the background."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._dispatch, preload)
                self._tasks.start_soon(self._warm_up_decoder)
                try:
                    yield self
                finally:
                    self.refuse()
                    self.drop()
                    self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self.worker.aclose()
                await self._decoders.aclose()
                await anyio.to_thread.run_sync(self._spool.close)

    @contextlib.asynccontextmanager
    async def admit(self) -> AsyncIterator[Job]:
        """A slot in the queue and a private folder, from the upload's first byte until the answer is made.

        Raises ``QueueFull``, ``ShuttingDown``, ``StorageFull``. Leaving the context cancels the job if it still runs.
        """
        self._check_room()
        with self._spool.folder() as folder:
            job = Job(folder)
            self._jobs.add(job)
            self.metrics.queue_jobs.set(len(self._jobs))
            try:
                yield job
            except WhisperdError as error:
                self._fail(job, error)
                raise
            finally:
                self._release(job)

    def _check_room(self) -> None:
        error: WhisperdError
        if self._closing:
            error = ShuttingDown("The server is going down.")
        elif len(self._jobs) >= self._max_jobs:
            error = QueueFull(f"The queue is full ({self._max_jobs} requests); try again later.")
            error.retry_after = self.pace.retry_after(sum(job.progress.remaining_s for job in self._jobs))
        else:
            return
        self.metrics.jobs.labels(error.code).inc()
        raise error

    def start(self, job: Job, options: Options, model_path: str) -> None:
        """Begin with a job whose upload is whole. ``model_path`` is a folder that the catalog named."""
        assert self._tasks is not None, "the engine is not running"
        job.begin(options, model_path)
        self._tasks.start_soon(self._feed, job)

    def place(self, job: Job) -> Place:
        """Where the job stands among those that wait for the device now."""
        ahead = [other for other in self._lane.ahead(job) if other is not job]
        audio = sum(other.progress.remaining_s for other in [job, *ahead])
        return Place(len(ahead) + 1, self.pace.seconds_for(audio))

    def refuse(self) -> None:
        """Take no new jobs."""
        self._closing = True

    def drop(self) -> int:
        """End all jobs that are still here with ``ShuttingDown``; returns how many."""
        dropped = [job for job in self._jobs if not job.over]
        for job in dropped:
            self._fail(job, ShuttingDown("The server is going down; send the request again."))
        return len(dropped)

    def measure(self) -> None:
        """Bring the gauges up to date that nobody reports: memory, readiness."""
        self.metrics.worker_memory.labels("worker").set(self.worker.memory)
        self.metrics.worker_memory.labels("decoder").set(self._decoders.memory)
        self.metrics.ready.set(self.worker.ready)

    async def _warm_up_decoder(self) -> None:
        with contextlib.suppress(WhisperdError):  # the first file tries again and reports
            await self._decoders.warm_up()

    async def _feed(self, job: Job) -> None:
        """Decode the job's upload, handing its windows to the lane as they come."""
        started = time.monotonic()
        try:
            with job.scope:
                async with aclosing(self._decoders.decode(job.source, job.pcm, job.progress.options.vad)) as parts:
                    async for part in parts:
                        job.add(part)
                        self._settle(job)
        except Exception as error:  # noqa: BLE001 - a bug must cost its job alone, not the server
            self._fail(job, _known(error))
        job.decode_seconds = time.monotonic() - started

    async def _dispatch(self, preload: str) -> None:
        """Give the device's steps, one at a time, to whom the lane names; the only caller of the worker."""
        while True:
            job = self._lane.next()
            if job is None:
                if self.worker.wants_start:
                    with contextlib.suppress(WhisperdError):  # the worker's state says so; a request will try again
                        await self.worker.ensure(self.worker.model_path or preload)
                self._wake = anyio.Event()
                with anyio.move_on_after(_IDLE_CHECK_S):
                    await self._wake.wait()
                continue
            try:
                await self._step(job)
            except Exception as error:  # noqa: BLE001 - a bug must cost its job alone, not the server
                self._fail(job, _known(error))
            self._settle(job)

    async def _step(self, job: Job) -> None:
        try:
            await self.worker.ensure(job.model_path)
            if job.over:  # cancelled while the model was loading
                return
            windows = job.take(self.pace.batch(alone=len(self._lane) == 1))
            result, seconds = await self.worker.step(job.pcm, windows, job.progress.options)
        except WorkerDied:
            job.lost_step()
            return
        audio = sum(window.end - window.start for window in windows) / SAMPLE_RATE
        self.pace.measured(len(windows), audio, seconds)
        self._lane.granted(job, audio)
        self.metrics.step_windows.inc(len(windows))
        self.metrics.step_seconds.observe(seconds)
        if not job.over:
            job.complete(result, seconds)

    def _settle(self, job: Job) -> None:
        """Put the job where it belongs after something happened to it."""
        if not job.over and job.progress.finished:
            job.succeed()
        if job.over or not job.progress.waiting:
            self._lane.discard(job)
        else:
            self._lane.put(job, job.progress.remaining_s)
            self._wake.set()

    def _fail(self, job: Job, error: WhisperdError) -> None:
        job.fail(error)
        self._lane.discard(job)

    def _release(self, job: Job) -> None:
        job.cancel()
        self._lane.discard(job)
        self._jobs.discard(job)
        self.metrics.queue_jobs.set(len(self._jobs))
        self._record(job)

    def _record(self, job: Job) -> None:
        """Count the job and log it, once, when its answer is made."""
        metrics, audio = self.metrics, job.progress.duration
        metrics.jobs.labels(job.outcome).inc()
        if job.outcome == "ok":
            metrics.audio_seconds.inc(audio)
            metrics.decode_seconds.observe(job.decode_seconds)
            metrics.inference_seconds.observe(job.inference_seconds)
            metrics.queue_wait.observe(job.waited_seconds)
            if audio > 0:
                metrics.real_time_factor.observe(job.inference_seconds / audio)
        event(
            "job ended",
            job=job.id,
            outcome=job.outcome,
            audio_s=audio,
            queue_s=job.waited_seconds,
            decode_s=job.decode_seconds,
            inference_s=job.inference_seconds,
            bad_packets=job.bad_packets,
            total_s=time.monotonic() - job.admitted,
        )

    async def drain(self, seconds: float) -> None:
        """Take no new jobs, give those that run ``seconds`` to end, then end the rest with ``ShuttingDown``."""
        self.refuse()
        with anyio.move_on_after(seconds):
            while any(not job.over for job in self._jobs):  # noqa: ASYNC110 - once, at shutdown
                await anyio.sleep(0.02)
        if dropped := self.drop():
            event("jobs dropped at shutdown", jobs=dropped)


def _known(error: Exception) -> WhisperdError:
    """``error`` itself if it is one of ours; else it is logged by its type, since its text may hold the user's
    words.
    """
    if isinstance(error, WhisperdError):
        return error
    event("unexpected error in the engine", logging.ERROR, type=type(error).__name__)
    return WhisperdError("The server failed unexpectedly.")
