"""The decoder processes: one file at a time each, kept warm, replaced when anything happens to them.

A short file never waits for a long one. Every file starts in one of a few short turns; one that proves long moves on to
the one long turn, or makes room and waits for that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio

from app.errors import DeadlineExceeded, UndecodableAudio, WorkerDied
from app.metrics import Metrics
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Vad
from app.worker.messages import Decode, Decoded, DecodeMore, Limits
from app.worker.process import ChildProcess

#: Short turns: decoding is many times faster than transcribing, and the machine is small. With the long turn there is
#: at most one child more than these.
MAX_DECODERS = 2
#: Seconds of sound that a file may have in a short turn, about a second of decoding.
LONG_S = 300
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


class _Turn:
    """The turn that one file has, if any; leaving the context gives it back."""

    def __init__(self) -> None:
        self.kind: anyio.Semaphore | None = None

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        if self.kind is not None:
            self.kind.release()
            self.kind = None

    async def wait_for(self, kind: anyio.Semaphore) -> None:
        """Take a turn of this kind as soon as there is one."""
        assert self.kind is None, "who waits for a turn holds none"
        await kind.acquire()
        self.kind = kind

    def exchange(self, kind: anyio.Semaphore) -> bool:
        """Take a turn of this kind for the one that is held, if one is free now."""
        try:
            kind.acquire_nowait()
        except anyio.WouldBlock:
            return False
        self.give_back()
        self.kind = kind
        return True


class Decoders:
    """A small pool. ``decode`` may be called at any time; calls wait for their turn.

    Who has a turn has at most one child, and a child is started only where none is idle: so there are never more
    children than turns.
    """

    def __init__(self, cwd: Path, limits: Limits, metrics: Metrics) -> None:
        self._cwd = cwd
        self._limits = limits
        self._metrics = metrics
        self._short = anyio.Semaphore(MAX_DECODERS)
        self._long = anyio.Semaphore(1)
        self._idle: list[_Child] = []
        self._busy: set[ChildProcess] = set()

    async def warm_up(self) -> None:
        """Start one child, so that the first file need not wait for it."""
        async with self._short:
            self._idle.append(await self._take())

    async def decode(
        self, source: Path, pcm: Path, vad: Vad | None = None, longest: int = MAX_WINDOW
    ) -> AsyncGenerator[Decoded, None]:
        """Decode ``source`` into ``pcm`` piece by piece, with windows of at most ``longest`` samples; the last piece
        has ``done``.

        The file may be started over: once where it is long and the long turn is taken, and once where its child dies.
        The PCM is then written over with the same bytes, and the pieces count from zero and give the same windows
        again. Raises the decoder's errors; ``UndecodableAudio`` after the second death. Close the iterator
        (``aclosing``) to give the file up.
        """
        request = Decode(str(source), str(pcm), self._limits, vad, longest)
        last_try = False
        with _Turn() as turn:
            await turn.wait_for(self._short)
            while True:
                try:
                    async with aclosing(self._attempt(request)) as parts:
                        async for part in parts:
                            if not self._may_go_on(turn, part):
                                break
                            yield part
                            if part.done:
                                return
                except (WorkerDied, DeadlineExceeded):
                    if last_try:
                        raise UndecodableAudio(
                            "The file could not be decoded: it makes the decoder fail or take too much memory."
                        ) from None
                    last_try = True
                else:
                    turn.give_back()
                    yield part  # its windows can be transcribed meanwhile
                    await turn.wait_for(self._long)

    def _may_go_on(self, turn: _Turn, part: Decoded) -> bool:
        """Whether the file may keep its child after ``part``; a long one takes the long turn here if that is free."""
        return turn.kind is self._long or not _proves_long(part) or turn.exchange(self._long)

    async def _attempt(self, request: Decode) -> AsyncGenerator[Decoded, None]:
        child = await self._take()
        self._busy.add(child.process)
        try:
            part = await child.process.call(request, PIECE_TIMEOUT_S)
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


def _proves_long(part: Decoded) -> bool:
    """Whether the file is long by its container's word or by what is decoded of it, and not done."""
    return not part.done and max(part.samples / SAMPLE_RATE, part.declared_s or 0.0) > LONG_S
