"""The worker of a device: one child process with one warm model, started when needed, replaced when it dies."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.backends.base import LoadOptions, Memory, StepResult
from app.errors import BackendUnavailable, DeadlineExceeded, WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import Options, Window
from app.worker.messages import Load, Loaded, Rest, Rested, Step, StepDone
from app.worker.process import ChildProcess

#: This many deaths with a model within the window open its breaker: something is wrong that a restart does not mend.
_DEATHS = 3
_DEATHS_WINDOW_S = 60.0
_BROKEN = f"The worker died {_DEATHS} times within {_DEATHS_WINDOW_S:.0f} s."
#: After a failed load, requests are refused for so long before it is tried again.
_LOAD_RETRY_S = 10.0
#: To give memory back takes milliseconds.
_REST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker's child is started; seconds throughout."""

    backend: str
    cache: Path
    cwd: Path
    load: LoadOptions
    load_timeout_s: float
    preload: str | None = None


class Worker:
    """Calls come one at a time, from the device's loop alone.

    ``state`` is ``starting``, ``ready``, ``unloaded`` (idle for long; the next request loads), ``failed`` (the load
    failed; ``reason`` says why) or ``broken`` (the breaker is open).
    """

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._child: ChildProcess | None = None
        self._deaths: dict[str, deque[float]] = {}
        self._failed_at = float("-inf")
        self._failed_path = ""
        self.model_path = ""
        self.state = "starting"
        self.reason = ""
        #: What the child said of the model that it loaded last; None before the first.
        self.loaded: Loaded | None = None
        #: The most bytes that a library held at once, by its own account when it rested; 0 where it keeps none.
        self.peak = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def memory(self) -> int:
        return self._child.memory if self._child else 0

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self._child is not None and self._child.alive

    def wants_start(self, model_path: str) -> bool:
        """Whether an idle device should load this model: at first, and after a death. A failed load waits for a
        request.
        """
        if self.ready or self.state == "unloaded" or self._failed_path == model_path:
            return False
        return not self._breaker_open(model_path)

    async def ensure(self, model_path: str) -> Loaded | None:
        """Have the model in ``model_path`` warm; None where it was. A worker is replaced to change its model.

        Raises ``BackendUnavailable``, ``WorkerDied``, ``DeadlineExceeded``.
        """
        if self.ready and self.model_path == model_path:
            return None
        if self.state == "ready" and self._child is not None and not self._child.alive:
            self._died()  # while nobody asked anything of it
        self._check_breaker(model_path)
        await self.aclose()
        self.state, self.reason, self.model_path = "starting", "", model_path
        settings = self._settings
        self._child = ChildProcess("app.worker.child", cwd=settings.cwd, preload=settings.preload)
        try:
            await self._child.start()
            request = Load(settings.backend, model_path, str(settings.cache), settings.load)
            loaded: Loaded = await self._child.call(request, settings.load_timeout_s)
        except WorkerDied:
            self._died()
            raise
        except WhisperdError as error:
            self.state, self.reason, self._failed_path = "failed", error.message, model_path
            self._failed_at = time.monotonic()
            await self.aclose()
            raise BackendUnavailable(f"The model could not be loaded: {error.message}") from error
        self.state, self._failed_path, self.loaded = "ready", "", loaded
        seconds = loaded.load_seconds + loaded.warm_up_seconds
        self._metrics.model_load_seconds.set(seconds)
        event(
            "model ready",
            backend=settings.backend,
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
        return done.result, done.seconds

    async def rest(self) -> Memory:
        """Between jobs: the library gives back what it kept for speed alone. Raises as ``step`` does."""
        if not self.ready:
            return Memory()
        rested: Rested = await self._call(Rest(), _REST_TIMEOUT_S)
        self.peak = max(self.peak, rested.memory.peak)
        return rested.memory

    async def unload(self) -> None:
        """End the child until somebody asks for a model."""
        await self.aclose()
        self.state = "unloaded"
        event("model unloaded")

    async def _call(self, request: Step | Rest, timeout: float) -> Any:  # noqa: ASYNC109
        assert self._child is not None
        try:
            return await self._child.call(request, timeout)
        except (WorkerDied, DeadlineExceeded):
            self._died()
            raise

    def _died(self) -> None:
        deaths = self._deaths.setdefault(self.model_path, deque(maxlen=_DEATHS))
        deaths.append(time.monotonic())
        self._metrics.worker_restarts.labels("worker").inc()
        self.state = "starting"
        event("worker died", deaths=len(deaths))
        if self._breaker_open(self.model_path):
            self.state, self.reason = "broken", _BROKEN

    def _breaker_open(self, model_path: str) -> bool:
        deaths = self._deaths.get(model_path)
        return deaths is not None and len(deaths) == _DEATHS and time.monotonic() - deaths[0] < _DEATHS_WINDOW_S

    def _check_breaker(self, model_path: str) -> None:
        if self._breaker_open(model_path):
            raise BackendUnavailable(_BROKEN)
        if self._failed_path == model_path and time.monotonic() - self._failed_at < _LOAD_RETRY_S:
            raise BackendUnavailable(f"The model could not be loaded: {self.reason}")

    async def aclose(self) -> None:
        """End the child; its memory really comes back."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                await self._child.aclose()
            self._child = None
