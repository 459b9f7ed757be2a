"""The one worker, and which backend has it: where one cannot go on, the next in line takes over."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from app.backends.base import Memory, StepResult
from app.engine.succession import Candidate, Line, Succession
from app.engine.worker import Worker
from app.errors import BackendUnavailable, DeadlineExceeded, WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import Options, Window
from app.worker.messages import Loaded


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backend stands: ``ready``, ``starting``, ``unloaded`` or ``standby``; ``failed``, ``broken`` or ``missing``
    for the ``reason``.
    """

    backend: str
    state: str
    reason: str


class Relay:
    """Calls come one at a time, from the device's loop alone; what goes wrong in them the succession learns."""

    def __init__(self, worker: Worker, metrics: Metrics, succession: Succession | None = None) -> None:
        self.worker = worker
        self._metrics = metrics
        self._succession = succession or Succession()
        #: The default model's line, and that of the model that is loaded, or was last.
        self.default: Line = ()
        self._line: Line = ()
        #: A model's folder for the first backend -> who had it warm last.
        self._served: dict[str, Candidate] = {}

    # --- how it stands ---

    @property
    def ready(self) -> bool:
        """Whether a model is warm."""
        return self.worker.ready

    @property
    def state(self) -> str:
        """``ready``, ``unloaded`` or ``starting``; ``failed`` or ``broken`` where no backend is left."""
        if self.worker.state in ("failed", "dead"):
            states = [self._succession.state(each, time.monotonic()) for each in self.default if not each.missing]
            return states[0] if all(states) else "starting"
        return self.worker.state if self.ready or self.worker.state == "unloaded" else "starting"

    @property
    def backend(self) -> str:
        """The name of the backend in use for the default model."""
        return (self.turn(self.default) or self.default[0]).backend

    def standings(self) -> list[Standing]:
        """The backends in the operator's order, as they stand with the default model."""
        return [self._standing(each) for each in self.default]

    def _standing(self, candidate: Candidate) -> Standing:
        state = self._succession.state(candidate, time.monotonic())
        if not state:
            return Standing(candidate.backend, self.state if candidate.backend == self.backend else "standby", "")
        return Standing(candidate.backend, state, self._succession.reason(candidate))

    # --- whose turn it is ---

    def turn(self, line: Line) -> Candidate | None:
        """Who takes the next step of a job that these may do; None where nobody can now."""
        warm = self.worker.candidate if self.ready else None
        return self._succession.turn(line, time.monotonic(), warm)

    def refusal(self, line: Line) -> BackendUnavailable:
        """What to say where nobody can."""
        return self._succession.refusal(line)

    def unasked(self) -> tuple[Candidate | None, Line]:
        """Whom an idle device should load, and of which line: who does the default model where nothing is warm, else
        who should have its place again.
        """
        now = time.monotonic()
        if self.ready:
            return self._succession.better(self._line, now, self.worker.candidate), self._line
        return self._succession.unasked(self.default, now), self.default

    # --- the calls ---

    def look(self) -> None:
        """Notice a death while nobody asked anything of the worker."""
        if self.worker.found_dead():
            self._died()

    async def load(self, candidate: Candidate, line: Line) -> Loaded | None:
        """Have the candidate's model warm; None where it was. Raises what the load failed of."""
        self._line = line
        try:
            loaded = await self.worker.ensure(candidate)
        except WorkerDied:
            self._died(loading=True)
            raise
        except WhisperdError as error:
            self._succession.failed(candidate, error.message, time.monotonic())
            raise
        if loaded is not None:
            self._succession.loaded(candidate, time.monotonic())
            self._note(candidate, line)
        return loaded

    async def step(
        self,
        recording: str,
        pcm: Path,
        windows: tuple[Window, ...],
        options: Options,
        timeout: float,  # noqa: ASYNC109 - the child is killed then
    ) -> tuple[StepResult, float]:
        """A step of the worker, in which it may die of ``recording``, a mark that others of the same bytes share."""
        try:
            return await self.worker.step(pcm, windows, options, timeout)
        except (WorkerDied, DeadlineExceeded):
            self._died(recording=recording)
            raise

    async def rest(self) -> Memory:
        """The library gives back what it kept for speed alone. Raises as ``step`` does."""
        try:
            return await self.worker.rest()
        except (WorkerDied, DeadlineExceeded):
            self._died()
            raise

    async def warm_up(self) -> Memory:
        """The warm model is used once. Raises as ``step`` does."""
        try:
            return await self.worker.warm_up()
        except (WorkerDied, DeadlineExceeded):
            self._died()
            raise

    def _died(self, *, loading: bool = False, recording: str = "") -> None:
        self._succession.died(self.worker.candidate, time.monotonic(), loading=loading, recording=recording)

    def _note(self, candidate: Candidate, line: Line) -> None:
        """Say so where another backend than before does the model of this line."""
        before = self._served.get(line[0].model_path, line[0])
        self._served[line[0].model_path] = candidate
        if before.backend == candidate.backend:
            return
        names = [each.backend for each in line]
        back = names.index(candidate.backend) < names.index(before.backend)
        reason = "rested" if back else self._succession.state(before, time.monotonic()) or "died"
        self._metrics.backend_switches.labels(before.backend, candidate.backend).inc()
        fields = {"from": before.backend, "to": candidate.backend, "reason": reason}
        event("backend switched", logging.INFO if back else logging.WARNING, **fields)
