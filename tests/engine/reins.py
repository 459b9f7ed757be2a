"""An engine of which the test holds the reins: a real worker with the fake backend, whose steps may be held, and a
decoder that gives a recording part by part.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from app.engine.admission import Admission, QueueLimits
from app.engine.device import Device
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.engine.relay import Relay
from app.engine.spool import Spool
from app.engine.succession import Candidate, Succession
from app.engine.upkeep import Upkeep
from app.engine.worker import Worker, WorkerSettings
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE, Options, Window
from app.worker.messages import Decoded
from tests.steps import Step, steps_of

ENGLISH = Options(language="en")
#: Longer than anything takes here, however busy the machine.
PATIENCE_S = 30


def part(first: int, last: int, *, done: bool, declared_s: float = 0) -> Decoded:
    """Windows of a second each, from second ``first`` to second ``last``."""
    windows = [Window(n * SAMPLE_RATE, (n + 1) * SAMPLE_RATE, ()) for n in range(first, last)]
    return Decoded(tuple(windows), last * SAMPLE_RATE, declared_s, done)


class HeldDecoders:
    """Gives the first part of a recording, then waits for ``go_on`` before it gives the others.

    What an upload holds is its name in ``recordings``; one without a name has two parts of a second each.
    """

    memory = 0

    def __init__(self, **recordings: list[Decoded]) -> None:
        self.recordings = {"": [part(0, 1, done=False), part(1, 2, done=True)], **recordings}
        self.go_on = anyio.Event()
        self.given_up = anyio.Event()
        self.calls = 0

    async def warm_up(self) -> None:
        pass

    async def decode(self, source: Path, pcm: Path, vad: object, longest: int) -> AsyncIterator[Decoded]:
        self.calls += 1
        first, *others = self.recordings[await anyio.Path(source).read_text()]
        await anyio.Path(pcm).write_bytes(bytes(2 * [first, *others][-1].samples))
        try:
            yield first
            if others:
                await self.go_on.wait()
            for other in others:
                yield other
        finally:
            self.given_up.set()

    async def aclose(self) -> None:
        pass


class HeldWorker(Worker):
    """A worker that gives no step's result while it is held."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        self._released = anyio.Event()
        self._released.set()
        #: Whether a result is held back now.
        self.holds = False

    def hold(self) -> None:
        self._released = anyio.Event()

    def release(self) -> None:
        self._released.set()

    async def step(self, *request: Any) -> Any:
        result = await super().step(*request)
        self.holds = True
        await self._released.wait()
        self.holds = False
        return result


@dataclass
class Bench:
    """The engine at work, and what it works with."""

    engine: Engine
    worker: HeldWorker
    decoders: HeldDecoders
    folder: Path
    logs: dict[str, Path] = field(default_factory=dict)

    def model(self, name: str, **script: Any) -> str:
        """The path of a model with this script, whose steps ``steps`` tells."""
        path, self.logs[name] = self.folder / name, self.folder / f"{name}-steps"
        path.write_text(json.dumps({"log": str(self.logs[name]), **script}))
        return str(path)

    def steps(self) -> list[Step]:
        return steps_of(*self.logs.values())

    @contextmanager
    def submitted(self, recording: str = "", *, size: int = 0, background: bool = False, **work: Any) -> Iterator[Job]:
        """A caller's hold on the job for this recording."""
        asked = {"options": ENGLISH, "model_path": str(self.folder / "model"), **work}
        with self.engine.admit(size) as upload:
            upload.source.write_text(recording)
            with self.engine.submit(upload, Work(**asked), background=background) as job:
                yield job

    @property
    def folders(self) -> list[Path]:
        """The uploads' folders in the spool."""
        return list(self.folder.glob("spool/server-*/job-*"))


@asynccontextmanager
async def running(
    folder: Path,
    decoders: HeldDecoders | None = None,
    *,
    script: dict[str, Any] | None = None,
    limits: QueueLimits | None = None,
    max_batch: int = 1,
    keep_alive: float = -1,
    keep_warm_s: float = 0,
    pressed: Callable[[], bool] = lambda: False,
    fallback: str = "",
    rest_s: float = 600,
    **settings: float,
) -> AsyncIterator[Bench]:
    """A bench whose preloaded model is ``model``; what is done there must end within ``PATIENCE_S``.

    What is called ``fallback`` takes over from any model.
    """
    spool, metrics, decoders = Spool(folder / "spool"), Metrics(), decoders or HeldDecoders()
    worker = HeldWorker(WorkerSettings(folder, spool.empty, PATIENCE_S), metrics)
    others = [Candidate("fake", str(folder / fallback))] if fallback else []
    device = Device(
        Relay(worker, metrics, Succession(rest_s)),
        metrics,
        lambda _, path: (Candidate("fake", path), *others),
        max_batch=max_batch,
        step_timeout_s=PATIENCE_S,
        upkeep=Upkeep(keep_alive, keep_warm_s, pressed),
    )
    limits = limits or QueueLimits(jobs=16, spool_bytes=2**20, audio_s=3600)
    engine = Engine(Admission(spool, limits), device, decoders, metrics, **settings)
    bench = Bench(engine, worker, decoders, folder)
    with anyio.fail_after(PATIENCE_S):
        async with engine.running(bench.model("model", **(script or {}))):
            yield bench


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the bench's patience bounds it."""
    while not condition():  # noqa: ASYNC110 - what is waited for is in other processes' files
        await anyio.sleep(0.01)


async def first_text(job: Job) -> None:
    """Wait until some of the job's text is final."""
    async with aclosing(job.segments()) as segments:
        async for fresh in segments:
            if fresh:
                return
