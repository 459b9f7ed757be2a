"""The worker of a device: one child process with one warm model, started when needed, replaced when it dies."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from app.backends.base import LoadOptions, StepResult
from app.errors import BackendUnavailable, DeadlineExceeded, WhisperdError, WorkerDied
from app.log import event
from app.metrics import Metrics
from app.transcript import Options, Window
from app.worker.messages import Load, Loaded, Step, StepDone
from app.worker.process import ChildProcess

#: This many deaths within the window open the breaker: something is wrong that a restart does not mend.
_DEATHS = 3
_DEATHS_WINDOW_S = 60.0
#: After a failed load, requests are refused for so long before it is tried again.
_LOAD_RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the worker's child is started; seconds throughout."""

    backend: str
    cache: Path
    cwd: Path
    load: LoadOptions
    load_timeout_s: float
    step_timeout_s: float
    preload: str | None = None


class Worker:
    """Calls come one at a time, from the engine's dispatcher alone.

    ``state`` is ``starting``, ``ready``, ``failed`` (the load failed; ``reason`` says why) or ``broken`` (the breaker
    is open).
    """

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._child: ChildProcess | None = None
        self._deaths: deque[float] = deque(maxlen=_DEATHS)
        self._failed_at = float("-inf")
        self._failed_path = ""
        self.model_path = ""
        self.state = "starting"
        self.reason = ""

    @property
    def memory(self) -> int:
        return self._child.memory if self._child else 0

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self._child is not None and self._child.alive

    @property
    def wants_start(self) -> bool:
        """Whether an idle engine should start the child: at first, and after it died. A failed load waits for a
        request.
        """
        return not self.ready and self.state != "failed" and not self._breaker_open()

    async def ensure(self, model_path: str) -> None:
        """Have the model in ``model_path`` warm. Raises ``BackendUnavailable``, ``WorkerDied``,
        ``DeadlineExceeded``.
        """
        if self.ready and self.model_path == model_path:
            return
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
        self.state = "ready"
        seconds = loaded.load_seconds + loaded.warm_up_seconds
        self._metrics.model_load_seconds.set(seconds)
        event(
            "model ready",
            backend=settings.backend,
            device=loaded.info.device,
            precision=loaded.info.precision,
            seconds=seconds,
        )

    async def step(self, pcm: Path, windows: tuple[Window, ...], options: Options) -> tuple[StepResult, float]:
        """One step; returns its result and its device seconds. Raises ``WorkerDied``, ``DeadlineExceeded``,
        ``InferenceFailed``.
        """
        assert self._child is not None
        try:
            done: StepDone = await self._child.call(Step(str(pcm), windows, options), self._settings.step_timeout_s)
        except (WorkerDied, DeadlineExceeded):
            self._died()
            raise
        return done.result, done.seconds

    def _died(self) -> None:
        self._deaths.append(time.monotonic())
        self._metrics.worker_restarts.labels("worker").inc()
        self.state = "starting"
        event("worker died", deaths=len(self._deaths))
        if self._breaker_open():
            self.state, self.reason = "broken", f"The worker died {_DEATHS} times within {_DEATHS_WINDOW_S:.0f} s."

    def _breaker_open(self) -> bool:
        return len(self._deaths) == _DEATHS and time.monotonic() - self._deaths[0] < _DEATHS_WINDOW_S

    def _check_breaker(self, model_path: str) -> None:
        if self._breaker_open():
            raise BackendUnavailable(self.reason)
        if self._failed_path == model_path and time.monotonic() - self._failed_at < _LOAD_RETRY_S:
            raise BackendUnavailable(f"The model could not be loaded: {self.reason}")

    async def aclose(self) -> None:
        """End the child; its memory really comes back."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                await self._child.aclose()
            self._child = None
