"""The handle of a child process, worker or decoder: start, call, kill. The one place where a child is killed.

A child is started with ``subprocess`` (exec, never a bare fork: a fork after Metal is unsafe) and talks over one
pipe. The parent closes its copy of the child's end, so a dead child is seen at once, not at the deadline.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import anyio
import psutil

from app.errors import BackendUnavailable, DeadlineExceeded, WorkerDied, error_from_code
from app.worker.awake import CLOCK
from app.worker.messages import Failed, Ready

#: Torch reads it when it is imported: what MPS lacks is then computed on the CPU, and does not fail.
_FOR_TORCH = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
#: Torch's own lower mark of the memory that MPS takes, as a share of what the Mac recommends.
_LOW_WATERMARK = 1.4
#: A child never asks the hub, tells nobody that it runs (onnxruntime would, from its import on), and what it says is
#: read at once.
_FOR_ALL = {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
#: How often a child's memory is looked at while it works.
_MEMORY_POLL_S = 0.05
#: How often a deadline's clock is looked at, so that it notices a sleep.
_CLOCK_POLL_S = 1.0
#: A child that has not said Ready by then (imports of a cold disk included) will not.
_START_TIMEOUT_S = 120


class ChildProcess:
    """One child. Calls are strictly one at a time; a call that is cancelled, late or greedy kills the child.

    ``module`` is run as ``python -m module FD`` in the folder ``cwd`` (private and empty: libraries resolve relative
    paths against it); ``memory_limit`` in bytes of resident memory, None for no limit; ``preload`` a shared library.
    """

    def __init__(self, module: str, *, cwd: Path, memory_limit: int | None = None, preload: str | None = None) -> None:
        self._module = module
        self._cwd = cwd
        self._memory_limit = memory_limit
        self._preload = preload
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        self._busy = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether a call may be made: the child runs, and no call before has failed."""
        return self._process is not None and not self._connection.closed and self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident bytes; 0 where there is no child."""
        if self._process is None:
            return 0
        with contextlib.suppress(psutil.Error, OSError):  # few descriptors are an OSError
            return int(psutil.Process(self._process.pid).memory_info().rss)
        return 0

    async def start(self) -> None:
        """Start the child and wait until its main loop runs.

        Raises ``BackendUnavailable`` where the system starts no process, ``WorkerDied``, ``DeadlineExceeded``.
        """
        assert self._process is None, "a child is started once"
        try:
            ours, theirs = Pipe()
        except OSError as error:
            raise _no_process() from error
        environment = {**_FOR_TORCH, **_watermarks(os.environ), **os.environ, **_FOR_ALL}
        if self._preload:
            environment["LD_PRELOAD"] = self._preload
        try:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module, no shell; exec takes a few ms
                [sys.executable, "-m", self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=self._cwd,
                env=environment,
            )
        except OSError as error:
            ours.close()
            raise _no_process() from error
        finally:
            theirs.close()
        self._connection = ours
        reply = await self._exchange(None, _START_TIMEOUT_S)
        assert isinstance(reply, Ready)

    async def call(self, request: Any, timeout: float = math.inf) -> Any:  # noqa: ASYNC109 - the kill belongs here
        """Send ``request`` and return its reply.

        Raises the error that a ``Failed`` names; ``WorkerDied`` where the child ended; ``DeadlineExceeded`` after
        ``timeout`` seconds (the child is killed), those aside in which the machine slept. The child is killed too
        where the caller is cancelled: nothing must answer the next call with this one's reply.
        """
        reply = await self._exchange(request, timeout)
        if isinstance(reply, Failed):
            raise error_from_code(reply.code, reply.message, reply.param)
        return reply

    async def _exchange(self, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        assert not self._busy, "one call at a time"
        self._busy = True
        finished = False
        try:
            with anyio.CancelScope() as scope:
                if request is not None:
                    self._connection.send(request)
                reply = await self._receive(scope, timeout)
                finished = True
                return reply
            raise DeadlineExceeded(f"The work took longer than {timeout:.0f} s and was stopped.")
        except (EOFError, OSError) as error:
            raise WorkerDied("The process that did the work ended unexpectedly.") from error
        finally:
            self._busy = False
            if not finished:
                self.kill()

    async def _receive(self, scope: anyio.CancelScope, timeout: float) -> Any:  # noqa: ASYNC109
        async with anyio.create_task_group() as watch:
            watch.start_soon(_expire, scope, timeout)
            if self._memory_limit is not None:
                watch.start_soon(self._watch_memory, self._memory_limit)
            try:
                await anyio.wait_readable(self._connection)
            finally:
                watch.cancel_scope.cancel()
        return self._connection.recv()

    async def _watch_memory(self, limit: int) -> None:
        while True:
            if self.memory > limit and self._process is not None:
                self._process.kill()  # seen by the reader as the pipe's end
                return
            await anyio.sleep(_MEMORY_POLL_S)

    def kill(self) -> None:
        """End the child now; harmless where it has ended. The handle is spent; ``aclose`` still has to reap it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._connection is not None:
            self._connection.close()

    async def aclose(self) -> None:
        """End the child and wait until it is gone."""
        self.kill()
        if self._process is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._process.wait)


async def _expire(scope: anyio.CancelScope, seconds: float) -> None:
    """Cancel the scope after so many seconds awake."""
    deadline = CLOCK.now() + seconds
    while (left := deadline - CLOCK.now()) > 0:  # noqa: ASYNC110 - time itself is waited for
        await anyio.sleep(min(left, _CLOCK_POLL_S))
    scope.cancel()


def _no_process() -> BackendUnavailable:
    return BackendUnavailable("The server cannot start another process right now.")


def _watermarks(environ: Mapping[str, str]) -> dict[str, str]:
    """The lower mark of MPS's memory where the user has set an upper one beneath it: torch would not start."""
    upper = environ.get("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "")
    try:
        beneath = 0 < float(upper or 0) < _LOW_WATERMARK
    except ValueError:  # torch reads 0 then: no limit
        return {}
    return {"PYTORCH_MPS_LOW_WATERMARK_RATIO": upper} if beneath else {}
