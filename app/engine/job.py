"""A job: work on one recording, from its upload to its transcript, and what its callers wait on."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from app.backends.base import StepResult
from app.engine.admission import Upload
from app.engine.progress import Progress
from app.engine.succession import Candidate, Line
from app.errors import WhisperdError, WorkerDied
from app.transcript import Options, Segment, Transcript, Window
from app.worker.awake import CLOCK
from app.worker.messages import Decoded

#: Containers round; what is shorter than this is not missed.
_WORTH_SAYING_S = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked for. Equal work is done once: whoever asks again meets the job that does it.

    ``model_path`` is a folder that the catalog named, ``model`` its public name; ``digest`` that of the upload's bytes,
    "" where it was not taken: such work is equal to no other. ``owner`` says whose key asked.
    """

    options: Options
    model_path: str
    model: str = field(default="", compare=False)
    digest: str = ""
    owner: str = ""


class Job:
    """Held by its callers, fed and stepped by the engine. ``source`` is the upload, ``pcm`` where its samples go;
    ``steps`` are what the device did for it in an earlier life.
    """

    def __init__(
        self,
        work: Work,
        source: Path,
        pcm: Path,
        *,
        request_id: str = "",
        steps: Iterable[StepResult] = (),
    ) -> None:
        self.id = secrets.token_hex(8)
        self.request_id = request_id
        self.work = work
        self.source = source
        self.pcm = pcm
        #: What it holds of the server's room, given back when it is over; None for jobs on disk.
        self.upload: Upload | None = None
        #: Whether it lets others go first.
        self.background = False
        #: Who may do it, in the operator's order, and for whom its windows were fitted; the device fills both in.
        self.line: Line = ()
        self.candidate: Candidate | None = None
        #: How many wait for the result, whether requests or the jobs on disk.
        self.callers = 0
        #: Nobody waits now, but somebody may come back: nothing is done for the job until then.
        self.parked = False
        self.created = time.time()
        self.began = CLOCK.now()
        self.scope = anyio.CancelScope()
        self.progress = Progress(work.options)
        #: What the device did, in order: enough to begin again behind it.
        self.steps = list(steps)
        self.progress.restore(self.steps)
        self.decode_seconds = 0.0
        self.inference_seconds = 0.0
        self.bad_packets = 0
        self.missing_s = 0.0
        self.transcript: Transcript | None = None
        self.error: WhisperdError | None = None
        #: Set, and replaced, at every change: take it, look at the job, then wait on it.
        self.change = anyio.Event()
        #: Called once it is over.
        self.on_end: Callable[[Job], None] = lambda _: None
        self._windows_at: float | None = None
        self._stepped_at: float | None = None
        self._parked_at = 0.0
        #: Under whom a step was lost, in order.
        self._lost_to: list[Candidate] = []

    @property
    def over(self) -> bool:
        return self.transcript is not None or self.error is not None

    @property
    def outcome(self) -> str:
        """``ok`` or the error's code; "" while it runs."""
        return "ok" if self.transcript is not None else self.error.code if self.error is not None else ""

    @property
    def running(self) -> bool:
        """Whether the device has begun with it."""
        return self._stepped_at is not None

    @property
    def wants_step(self) -> bool:
        return self.progress.waiting and not self.over and not self.parked

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

    def add(self, part: Decoded) -> None:
        """Take in a decoded piece."""
        if self.over:
            return
        if part.windows and self._windows_at is None:
            self._windows_at = time.monotonic()
        self.bad_packets, self.missing_s = part.bad_packets, part.missing_s
        self.progress.add(part.windows, part.samples, part.declared_s, decoded=part.done)
        self._changed()

    def take(self, limit: int) -> tuple[Window, ...]:
        """Windows for a step that begins now."""
        self._stepped_at = self._stepped_at or time.monotonic()
        return self.progress.take(limit)

    def complete(self, result: StepResult, seconds: float) -> None:
        """Take in a step that held the device for ``seconds``."""
        if self.over:
            return
        self.inference_seconds += seconds
        self.steps.append(result)
        self.progress.complete(result)
        self._changed()

    @property
    def candidates(self) -> Line:
        """Who of its line may still do it: whoever has lost two of its steps may not."""
        return tuple(each for each in self.line if self._lost_to.count(each) < 2)

    @property
    def deadly(self) -> WorkerDied | None:
        """Why nobody else should do it either: two of its steps were lost."""
        died = len(self._lost_to) > 1
        return WorkerDied("The process that runs the model died repeatedly on this recording.") if died else None

    def lost_step(self, candidate: Candidate) -> None:
        """The candidate's worker died under this job: its windows wait again, once; after a second death another must
        do it. The job fails where there is none, and where another's worker died of it too.
        """
        self._lost_to.append(candidate)
        self.progress.put_back()
        if self.deadly and (len(set(self._lost_to)) > 1 or all(each.missing for each in self.candidates)):
            self.fail(self.deadly)

    def fail(self, error: WhisperdError) -> None:
        """End the job with ``error``; harmless once it is over."""
        if not self.over:
            self.error = error
            self._end()

    def park(self) -> None:
        """Stop working on it, and keep what there is."""
        self.parked = True
        self._parked_at = CLOCK.now()
        self.scope.cancel()
        if self.upload is not None:
            self.upload.give_slot()

    def unpark(self) -> None:
        self.parked = False
        self.began += CLOCK.now() - self._parked_at
        self.scope = anyio.CancelScope()
        if self.upload is not None:
            self.upload.take_slot()

    def _changed(self) -> None:
        if self.progress.finished:
            self.transcript = replace(self.progress.transcript(), warning=self._warning)
            self._end()
        else:
            self._notify()

    @property
    def _warning(self) -> str:
        if self.missing_s >= _WORTH_SAYING_S:
            return f"About {self.missing_s:.1f} s of the recording are missing: the file is damaged or cut off."
        if self.bad_packets:
            return f"Parts of the file are damaged: {self.bad_packets} of its packets could not be decoded."
        return ""

    def _end(self) -> None:
        self.parked = False
        self.scope.cancel()
        self._notify()
        self.on_end(self)

    def _notify(self) -> None:
        self.change.set()
        self.change = anyio.Event()
