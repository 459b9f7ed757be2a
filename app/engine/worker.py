"""The worker of a device: one child process with one warm model, started when needed, replaced when it dies."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.backends.base import Memory, ModelInfo, StepResult, openblas_preload
from app.engine.succession import Candidate
from app.errors import DeadlineExceeded, WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import Options, Window
from app.worker.messages import Load, Loaded, Rest, Rested, Step, StepDone, WarmUp
from app.worker.process import ChildProcess

#: To give memory back takes milliseconds.
_REST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker's child is started; seconds throughout."""

    cache: Path
    cwd: Path
    load_timeout_s: float


class Worker:
    """Calls come one at a time, from the device's loop alone.

    ``state`` is ``starting``, ``ready``, ``unloaded`` (idle for long; the next request loads), ``failed`` (the load
    did) or ``dead``. ``candidate`` is what it has, or had, to load.
    """

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._child: ChildProcess | None = None
        self.candidate = Candidate("")
        self.state = "starting"
        #: What the child said of the candidate's model; None until it is loaded.
        self.loaded: Loaded | None = None
        #: The most bytes that a library held at once, by its own account when it rested; 0 where it keeps none.
        self.peak = 0

    @property
    def info(self) -> ModelInfo | None:
        """What came of the load; None where nothing did yet."""
        return self.loaded.info if self.loaded else None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def memory(self) -> int:
        return self._child.memory if self._child else 0

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self._child is not None and self._child.alive

    def found_dead(self) -> bool:
        """Whether it died while nobody asked anything of it; True once a death."""
        if self.state != "ready" or self.ready:
            return False
        self._died()
        return True

    async def ensure(self, candidate: Candidate) -> Loaded | None:
        """Have the candidate's model warm; None where it was. A worker is replaced to change its model.

        Raises ``WorkerDied``, or what the load failed of: ``BackendUnavailable``, ``DeadlineExceeded`` and others.
        """
        if self.ready and self.candidate == candidate:
            return None
        await self.aclose()
        self.state, self.candidate, self.loaded = "starting", candidate, None
        settings, preload = self._settings, openblas_preload() if candidate.backend == "mlx-whisper" else None
        self._child = ChildProcess("app.worker.child", cwd=settings.cwd, preload=preload)
        try:
            await self._child.start()
            request = Load(candidate.backend, candidate.model_path, str(settings.cache), candidate.load)
            loaded: Loaded = await self._child.call(request, settings.load_timeout_s)
        except WorkerDied:
            self._died()
            raise
        except WhisperdError as error:
            self.state = "failed"
            event("model not loaded", logging.WARNING, backend=candidate.backend, reason=error.message)
            await self.aclose()
            raise
        self.state, self.loaded = "ready", loaded
        seconds = loaded.load_seconds + loaded.warm_up_seconds
        self._metrics.model_load_seconds.set(seconds)
        event(
            "model ready",
            backend=candidate.backend,
            device=loaded.info.device,
            precision=loaded.info.precision,
            seconds=seconds,
        )
        return loaded

    async def step(
        self,
        pcm: Path,
        windows: tuple[Window, ...],
        options: Options,
        timeout: float,  # noqa: ASYNC109 - the child is killed then
    ) -> tuple[StepResult, float]:
        """One step of at most ``timeout`` seconds; returns its result and its device seconds.

        Raises ``WorkerDied``, ``DeadlineExceeded``, ``InferenceFailed``.
        """
        done: StepDone = await self._call(Step(str(pcm), windows, options), timeout)
        return replace(done.result, backend=self.candidate.backend), done.seconds

    async def rest(self) -> Memory:
        """Between jobs: the library gives back what it kept for speed alone. Raises as ``step`` does."""
        if not self.ready:
            return Memory()
        rested: Rested = await self._call(Rest(), _REST_TIMEOUT_S)
        self.peak = max(self.peak, rested.memory.peak)
        return rested.memory

    async def warm_up(self) -> Memory:
        """The model is used once, as after its load. Raises as ``step`` does."""
        warmed: Rested = await self._call(WarmUp(), self._settings.load_timeout_s)
        return warmed.memory

    async def unload(self) -> None:
        """End the child until somebody asks for a model."""
        await self.aclose()
        self.state = "unloaded"
        event("model unloaded")

    async def _call(self, request: Step | Rest | WarmUp, timeout: float) -> Any:  # noqa: ASYNC109
        assert self._child is not None
        try:
            return await self._child.call(request, timeout)
        except (WorkerDied, DeadlineExceeded):
            self._died()
            raise

    def _died(self) -> None:
        self._metrics.worker_restarts.labels("worker").inc()
        self.state = "dead"
        event("worker died", backend=self.candidate.backend)

    async def aclose(self) -> None:
        """End the child; its memory really comes back."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                await self._child.aclose()
            self._child = None
