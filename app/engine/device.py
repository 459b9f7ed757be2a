"""The device: one worker, one lane before it, and the one loop that gives out its steps, one at a time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio

from app.engine.job import Job
from app.engine.lane import Lane
from app.engine.pace import Pace, retry_after
from app.engine.relay import Relay
from app.engine.succession import Candidate, Line
from app.engine.upkeep import Upkeep
from app.errors import WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE

#: A model's public name ("" is the default) and its folder -> who may do it.
LineOf = Callable[[str, str], Line]
#: Who does it -> samples of silence with which its windows are fitted, None where they stay whole.
MarginOf = Callable[[Candidate], int | None]
#: How often an idle device looks whether its worker still lives, and whether its model is still wanted.
_IDLE_CHECK_S = 1.0
#: For so long after several jobs were here at once, steps stay at one window: who dictates dictates again.
_CALM_S = 30.0
#: However long a load took (a conversion may), to swap models is worth no more than so much audio.
_MOST_SWAP_COST_S = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """``position`` counts from 1; ``seconds`` until the job should be done, None while the device's pace is unknown."""

    position: int
    seconds: float | None


class Device:
    """Jobs ``enter``, tell by ``update`` whether they have windows for it, and ``leave``; ``run`` does the rest.

    ``line_of`` says who may do a model, ``margin_of`` how windows are fitted for whom.
    ``upkeep`` says what an idle device does with its model; without one it stays as it is.
    """

    def __init__(
        self,
        relay: Relay,
        metrics: Metrics,
        line_of: LineOf,
        *,
        max_batch: int,
        step_timeout_s: float,
        upkeep: Upkeep | None = None,
        margin_of: MarginOf = lambda _: None,
    ) -> None:
        self.relay = relay
        self._metrics = metrics
        self._line_of = line_of
        self._margin_of = margin_of
        self._max_batch = max_batch
        self._step_timeout_s = step_timeout_s
        self._upkeep = upkeep or Upkeep(-1, 0, lambda: False)
        self._lane: Lane[Job] = Lane()
        self._paces: dict[Candidate, Pace] = {}
        self._wake = anyio.Event()
        self._stepping: Job | None = None
        self._company_at = float("-inf")
        self._load_seconds = 0.0
        self._worked()

    def enter(self, job: Job) -> None:
        """A job begins, or goes on; it has nothing for the device yet."""
        if self._lane:
            self._company_at = time.monotonic()
        job.line = self._line_of(job.work.model, job.work.model_path)
        self._give(job, self._expected(job))
        # All of a model's jobs are done by the same candidate at a time, whoever that is.
        self._lane.enter(job, group=job.work.model_path, background=job.background)
        self.update(job)

    def leave(self, job: Job) -> None:
        self._lane.leave(job)

    def promote(self, job: Job) -> None:
        """Somebody waits for a job of the background."""
        job.background = False
        self._lane.promote(job)

    def update(self, job: Job) -> None:
        """Put the job where it belongs after something happened to it."""
        if job.over or job.parked:
            self.leave(job)
            return
        self._lane.update(job, job.progress.remaining_s, waiting=job.wants_step)
        if job.wants_step:
            self._wake.set()

    def place(self, job: Job) -> Place:
        """Where the job stands among those that wait for the device now."""
        ending = self._stepping if self._stepping and not self._stepping.wants_step else None
        ahead = [] if job is ending else self._lane.ahead(job)
        if ending is not None and ending is not job and ending not in ahead:
            ahead.append(ending)
        seconds = [self._seconds_for(each) for each in [job, *ahead]]
        known = [each for each in seconds if each is not None]
        return Place(len(ahead) + 1, sum(known) if len(known) == len(seconds) else None)

    def retry_after(self, jobs: Iterable[Job]) -> int:
        """When to come back while these jobs fill the queue: seconds from 1 to 120."""
        return retry_after(self._seconds_for(job) or 0.0 for job in jobs)

    def backend_of(self, job: Job) -> str:
        """The name of the backend that did the job, or does it now."""
        return (job.over and job.progress.backend) or self._expected(job).backend

    async def run(self, preload: str) -> None:
        """Give the steps, one at a time, to whom the lane names, for ever; the only caller of the worker.

        The default model, in the folder ``preload``, is loaded at once.
        """
        self.relay.default = self._line_of("", preload)
        while True:
            self.relay.look()
            job = self._lane.next()
            if job is None:
                await self._idle(preload)
                continue
            self._stepping = job
            try:
                await self._step(job)
            except Exception as error:  # noqa: BLE001 - a bug must cost its job alone, not the server
                job.fail(known(error))
            self._stepping = None
            self.update(job)
            self._worked()
            if self._lane.waiting == 0:
                await self._rest()

    async def _idle(self, preload: str) -> None:
        relay = self.relay
        if not relay.ready and relay.state != "unloaded":
            relay.default = self._line_of("", preload)  # what is on the disk may be more than before
            await self._warm_up()
        elif relay.ready and not self._lane and not await self._warm_up():
            await self._keep_up()
        self._wake = anyio.Event()
        if self._lane.waiting:  # came while the model was loading
            return
        with anyio.move_on_after(_IDLE_CHECK_S):
            await self._wake.wait()

    async def _keep_up(self) -> None:
        """What the idle model is due."""
        due = self._upkeep.due(time.monotonic(), time.time())
        if due == "unload":
            await self.relay.worker.unload()
        elif due == "warm up":
            with contextlib.suppress(WhisperdError):  # the relay knows
                self._metrics.observe_memory(await self.relay.warm_up())

    def _worked(self) -> None:
        self._upkeep.worked(time.monotonic(), time.time())

    async def _warm_up(self) -> bool:
        """Load what nobody asked for, by whoever can; whether there was anything to load."""
        candidate, line = self.relay.unasked()
        found = candidate is not None
        while candidate is not None and not await self._load(candidate, line):
            candidate, line = self.relay.unasked()
        if found:
            await self._rest()
            self._worked()
        return found

    async def _load(self, candidate: Candidate, line: Line) -> bool:
        """Have the candidate's model warm, and tell the lane what that took; whether that went well."""
        try:
            loaded = await self.relay.load(candidate, line)
        except WhisperdError:  # the relay knows, and names another, or says why nobody can
            return False
        if loaded is not None:
            self._pace(candidate).warmed_up(loaded.warm_up_seconds, loaded.info.at_once)
            self._load_seconds = loaded.load_seconds + loaded.warm_up_seconds
            self._lane.swapped(line[0].model_path, self._swap_cost(candidate))
        return True

    def _expected(self, job: Job) -> Candidate:
        """Who will do the job, as things stand."""
        return self.relay.turn(job.candidates) or job.line[0]

    def _give(self, job: Job, candidate: Candidate) -> None:
        """Fit the job's windows for who does it."""
        if job.candidate != candidate:
            job.candidate = candidate
            job.progress.fit(self._margin_of(candidate))

    def _swap_cost(self, candidate: Candidate) -> float:
        """What the last load took, as seconds of audio by the candidate's pace as far as it is known."""
        return min(self._pace(candidate).audio_in(self._load_seconds), _MOST_SWAP_COST_S)

    @property
    def _calm(self) -> bool:
        return time.monotonic() - self._company_at > _CALM_S

    async def _step(self, job: Job) -> None:
        candidate = self.relay.turn(job.candidates)
        if candidate is None:
            raise job.deadly or self.relay.refusal(job.candidates)
        if not await self._load(candidate, job.line):
            return  # the job has no part in that: the next attempt comes at once, perhaps by another
        if not job.wants_step:  # its callers left while the model was loading
            return
        self._give(job, candidate)
        pace = self._pace(candidate)
        alone = self._lane.waiting == 1 and self._calm
        windows = job.take(pace.batch(job.progress.encoded_s, alone=alone))
        audio = sum(window.sound for window in windows) / SAMPLE_RATE
        encoded = sum(window.encoded for window in windows) / SAMPLE_RATE
        self._lane.granted(job, audio)
        timeout = pace.deadline(len(windows), self._step_timeout_s)
        try:
            recording, options = job.work.digest or job.id, job.progress.options
            result, seconds = await self.relay.step(recording, job.pcm, windows, options, timeout)
        except WorkerDied:
            job.lost_step(candidate)
            return
        pace.measured(encoded, audio, seconds)
        self._lane.swap_cost = self._swap_cost(candidate)
        self._metrics.observe_step(result, seconds)
        job.complete(result, seconds)

    async def _rest(self) -> None:
        """While nobody waits: the library gives back what it kept for speed."""
        with contextlib.suppress(WhisperdError):  # the relay knows
            memory = await self.relay.rest()
            self._metrics.observe_memory(memory)

    def _seconds_for(self, job: Job) -> float | None:
        return self._pace(self._expected(job)).seconds_for(job.progress.remaining_s)

    def _pace(self, candidate: Candidate) -> Pace:
        return self._paces.setdefault(candidate, Pace(self._max_batch))


def known(error: Exception) -> WhisperdError:
    """``error`` itself if it is one of ours; else it is logged by its type, since its text may hold the user's
    words.
    """
    if isinstance(error, WhisperdError):
        return error
    event("unexpected error in the engine", logging.ERROR, type=type(error).__name__)
    return WhisperdError("The server failed unexpectedly.")
