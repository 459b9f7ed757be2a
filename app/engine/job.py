"""A job: the work of one request, from its upload to its transcript, and what its caller waits on."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from app.backends.base import StepResult
from app.engine.progress import Progress
from app.errors import WhisperdError, WorkerDied
from app.transcript import Options, Segment, Transcript, Window
from app.worker.messages import Decoded


class Job:
    """Held by its caller, fed and stepped by the engine. ``source`` is where the upload is to be written."""

    def __init__(self, folder: Path) -> None:
        self.id = secrets.token_hex(8)
        self.source = folder / "upload"
        self.pcm = folder / "pcm"
        self.model_path = ""
        self.progress = Progress(Options())
        self.scope = anyio.CancelScope()
        self.admitted = time.monotonic()
        self.decode_seconds = 0.0
        self.inference_seconds = 0.0
        self.bad_packets = 0
        self.outcome = "cancelled"
        self._windows_at: float | None = None
        self._stepped_at: float | None = None
        self._lost_steps = 0
        self.transcript: Transcript | None = None
        self.error: WhisperdError | None = None
        #: Set, and replaced, at every change: take it, look at the job, then wait on it.
        self.change = anyio.Event()

    @property
    def over(self) -> bool:
        return self.transcript is not None or self.error is not None or self.scope.cancel_called

    @property
    def waited_seconds(self) -> float:
        """From the first window to the first step: waiting for the device and, at start, for the model."""
        if self._windows_at is None:
            return 0.0
        return (self._stepped_at or time.monotonic()) - self._windows_at

    async def result(self) -> Transcript:
        """The transcript, once it is there. Raises the error that ended the job."""
        while self.transcript is None:
            if self.error is not None:
                raise self.error
            await self.change.wait()
        return self.transcript

    async def opened(self) -> None:
        """Wait until some of the upload is decoded: what is wrong with it as a whole has shown by then.

        Raises the error that ended the job.
        """
        while not self.progress.samples and not self.progress.decoded:
            change = self.change
            if self.error is not None:
                raise self.error
            await change.wait()

    async def segments(self) -> AsyncIterator[tuple[Segment, ...]]:
        """Final segments in order of time as they come, perhaps none at a time; ends with the job. Raises its error."""
        given = 0
        while True:
            change, fresh = self.change, self.progress.segments[given:]
            given += len(fresh)
            yield tuple(fresh)
            if self.error is not None:
                raise self.error
            if self.transcript is not None and given == len(self.progress.segments):
                return
            await change.wait()

    # --- what the engine does with it ---

    def begin(self, options: Options, model_path: str) -> None:
        self.model_path = model_path
        self.progress = Progress(options)

    def add(self, part: Decoded) -> None:
        """Take in a decoded piece."""
        if part.windows and self._windows_at is None:
            self._windows_at = time.monotonic()
        self.bad_packets = part.bad_packets
        self.progress.add(part.windows, part.samples, part.declared_s, decoded=part.done)
        self._notify()

    def take(self, limit: int) -> tuple[Window, ...]:
        """Windows for a step that begins now."""
        self._stepped_at = self._stepped_at or time.monotonic()
        return self.progress.take(limit)

    def complete(self, result: StepResult, seconds: float) -> None:
        self.inference_seconds += seconds
        self.progress.complete(result)
        self._notify()

    def lost_step(self) -> None:
        """The worker died under this job: its windows wait again, once; a second time the job fails."""
        self._lost_steps += 1
        if self._lost_steps > 1:
            self.fail(WorkerDied("The process that runs the model died twice on this recording."))
        self.progress.put_back()

    def succeed(self) -> None:
        self.transcript, self.outcome = self.progress.transcript(), "ok"
        self._notify()

    def fail(self, error: WhisperdError) -> None:
        if not self.over:
            self.error, self.outcome = error, error.code
            self.scope.cancel()
            self._notify()

    def cancel(self) -> None:
        """Give the job up; harmless once it is over."""
        if not self.over:
            self.scope.cancel()
            self._notify()

    def _notify(self) -> None:
        self.change.set()
        self.change = anyio.Event()
