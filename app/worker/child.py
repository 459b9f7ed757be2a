"""A model's main loop: ``python -m app.worker.child FD``. One backend, one model, all on this process's main thread.

Imports neither HTTP nor asyncio; the library comes in with ``Load``. The model's own threads are the library's affair.
"""

from __future__ import annotations

import time
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import numpy as np

from app import backends, convert
from app.backends.base import Backend, Memory
from app.errors import BackendUnavailable, InferenceFailed, StorageFull
from app.transcript import SAMPLE_RATE
from app.worker import loop
from app.worker.messages import Load, Loaded, Rest, Rested, Step, StepDone, WarmUp


class Model:
    """The one warm model; a request is answered by ``handle``."""

    def __init__(self) -> None:
        self._backend: Backend | None = None

    @singledispatchmethod
    def handle(self, request: Any) -> Any:
        raise TypeError(f"no such request: {type(request).__name__}")

    @handle.register
    def _load(self, request: Load) -> Loaded:
        started = time.monotonic()
        format_ = backends.BACKENDS[request.backend].format
        path = Path(request.model_path)
        if format_ is not None:
            path = convert.ensure(path, format_, Path(request.cache))
        backend = backends.create(request.backend)
        info = backend.load(str(path), request.options)
        loaded = time.monotonic()
        backend.warm_up()
        self._backend = backend
        return Loaded(info, load_seconds=loaded - started, warm_up_seconds=time.monotonic() - loaded)

    @handle.register
    def _step(self, request: Step) -> StepDone:
        if self._backend is None:
            raise BackendUnavailable("No model is loaded.")
        started = time.monotonic()
        # Mapped anew for each step: the file may have grown since, and only the windows' pages are touched.
        try:
            pcm = np.memmap(request.pcm, dtype=np.int16, mode="r")
        except OSError as error:  # somebody deleted it, or there are no descriptors
            raise StorageFull.of(error) from None
        if request.windows[-1].end > len(pcm):
            raise InferenceFailed(f"The decoded audio ends at {len(pcm) / SAMPLE_RATE:.2f} s, before the window does.")
        result = self._backend.transcribe(pcm, request.windows, request.options)
        return StepDone(result, time.monotonic() - started)

    @handle.register
    def _warm_up(self, _request: WarmUp) -> Rested:
        if self._backend:
            self._backend.warm_up()
        return self._rested()

    @handle.register
    def _rest(self, _request: Rest) -> Rested:
        return self._rested()

    def _rested(self) -> Rested:
        return Rested(self._backend.rest() if self._backend else Memory())


if __name__ == "__main__":
    loop.run(Model().handle)
