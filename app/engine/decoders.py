"""The decoder processes: one file at a time each, kept warm, replaced when anything happens to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio

from app.errors import DeadlineExceeded, UndecodableAudio, WorkerDied
from app.metrics import Metrics
from app.transcript import Vad
from app.worker.messages import Decode, Decoded, DecodeMore, Limits
from app.worker.process import ChildProcess

#: Files decoded at once; decoding is many times faster than transcribing, and the machine is small.
MAX_DECODERS = 2
#: A normal file needs under 100 MB; one that wants four times that is a bomb.
MEMORY_LIMIT = 400 * 1024 * 1024
#: A piece takes half a second; a child that is this late hangs in a native library.
PIECE_TIMEOUT_S = 30
#: A child is replaced after so many files: native decoders and resamplers leak a little.
FILES_PER_CHILD = 200


@dataclass(slots=True)
class _Child:
    process: ChildProcess
    files: int = 0


class Decoders:
    """A small pool. ``decode`` may be called at any time; calls wait for their turn."""

    def __init__(self, cwd: Path, limits: Limits, metrics: Metrics) -> None:
        self._cwd = cwd
        self._limits = limits
        self._metrics = metrics
        self._turn = anyio.Semaphore(MAX_DECODERS)
        self._idle: list[_Child] = []
        self._busy: set[ChildProcess] = set()

    async def warm_up(self) -> None:
        """Start one child, so that the first file need not wait for it."""
        self._idle.append(await self._take())

    async def decode(self, source: Path, pcm: Path, vad: Vad | None = None) -> AsyncGenerator[Decoded, None]:
        """Decode ``source`` into ``pcm`` piece by piece; the last piece has ``done``.

        A child that dies on the file is replaced and the file tried once more: the PCM is written over with the same
        bytes, and windows that were already given are not given again. Raises the decoder's errors;
        ``UndecodableAudio`` after the second death. Close the iterator (``aclosing``) to give the file up.
        """
        async with self._turn:
            given = 0
            for last_try in (False, True):
                try:
                    async with aclosing(self._attempt(source, pcm, vad)) as parts:
                        async for part in parts:
                            windows = tuple(window for window in part.windows if window.start >= given)
                            given = windows[-1].end if windows else given
                            yield Decoded(windows, part.samples, part.declared_s, part.done, part.bad_packets)
                    return
                except (WorkerDied, DeadlineExceeded):
                    if last_try:
                        raise UndecodableAudio(
                            "The file could not be decoded: it makes the decoder fail or take too much memory."
                        ) from None

    async def _attempt(self, source: Path, pcm: Path, vad: Vad | None) -> AsyncGenerator[Decoded, None]:
        child = await self._take()
        self._busy.add(child.process)
        try:
            part = await child.process.call(Decode(str(source), str(pcm), self._limits, vad), PIECE_TIMEOUT_S)
            while not part.done:
                yield part
                part = await child.process.call(DecodeMore(), PIECE_TIMEOUT_S)
            yield part
        except (WorkerDied, DeadlineExceeded):
            self._metrics.worker_restarts.labels("decoder").inc()
            raise
        finally:
            self._busy.discard(child.process)
            child.files += 1
            # A child that refused its file is fine; a file given up half-way is simply dropped by the next Decode.
            if child.process.alive and child.files < FILES_PER_CHILD:
                self._idle.append(child)
            else:
                await child.process.aclose()

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.alive:
                return child
            await child.process.aclose()
        process = ChildProcess("app.worker.decoder", cwd=self._cwd, memory_limit=MEMORY_LIMIT)
        try:
            await process.start()
        except BaseException:
            await process.aclose()
            raise
        return _Child(process)

    @property
    def memory(self) -> int:
        """Resident bytes of all decoders."""
        return sum(process.memory for process in [*self._busy, *(child.process for child in self._idle)])

    async def aclose(self) -> None:
        for child in self._idle:
            await child.process.aclose()
        for process in list(self._busy):
            await process.aclose()
        self._idle = []
