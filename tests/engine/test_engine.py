"""The engine with a real worker (the fake backend) and, where timing matters, a decoder that the test holds the reins
of.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from app.backends.base import LoadOptions
from app.engine.engine import Engine
from app.engine.job import Job
from app.engine.store import Spool
from app.engine.worker import Worker, WorkerSettings
from app.errors import QueueFull, ShuttingDown, WhisperdError
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE, Options, Window
from app.worker.messages import Decoded

pytestmark = pytest.mark.anyio
ENGLISH = Options(language="en")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HeldDecoders:
    """Gives a window of a second, then waits for ``go_on`` before it gives the next and ends."""

    memory = 0

    def __init__(self) -> None:
        self.go_on = anyio.Event()
        self.given_up = anyio.Event()

    async def warm_up(self) -> None:
        pass

    async def decode(self, source: Path, pcm: Path, vad: object) -> AsyncIterator[Decoded]:
        await anyio.Path(pcm).write_bytes(bytes(4 * SAMPLE_RATE))
        try:
            yield part(0, done=False)
            await self.go_on.wait()
            yield part(1, done=True)
        finally:
            self.given_up.set()

    async def aclose(self) -> None:
        pass


def part(second: int, *, done: bool) -> Decoded:
    start, end = second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE
    return Decoded((Window(start, end, ((start, end),)),), end, 2.0, done)


@asynccontextmanager
async def running(folder: Path, decoders: HeldDecoders, **script: object) -> AsyncIterator[Engine]:
    path = folder / "script.json"
    path.write_text(json.dumps(script))
    spool, metrics = Spool(folder / "spool"), Metrics()
    worker = Worker(WorkerSettings("fake", folder, spool.empty, LoadOptions(), 60, 60), metrics)
    engine = Engine(spool, worker, decoders, metrics, max_jobs=2, max_batch=4)
    async with engine.running(str(path)):
        yield engine


async def first_text(job: Job) -> None:
    async with aclosing(job.segments()) as segments:
        async for fresh in segments:
            if fresh:
                return


async def test_transcription_begins_while_the_file_is_still_being_decoded(tmp_path: Path) -> None:
    decoders = HeldDecoders()
    async with running(tmp_path, decoders) as engine, engine.admit() as job:
        engine.start(job, ENGLISH, engine.worker.model_path or str(tmp_path / "script.json"))
        with anyio.fail_after(30):
            await first_text(job)
        assert [s.text for s in job.progress.segments] == [" w0"]
        assert not job.progress.decoded, "the first window's text is there before the second is decoded"
        decoders.go_on.set()
        assert (await job.result()).text == "w0 w1000"


async def test_segments_come_once_each_and_end_with_the_job(tmp_path: Path) -> None:
    decoders = HeldDecoders()
    decoders.go_on.set()
    async with running(tmp_path, decoders) as engine, engine.admit() as job:
        engine.start(job, ENGLISH, str(tmp_path / "script.json"))
        with anyio.fail_after(30):
            texts = [segment.text async for fresh in job.segments() for segment in fresh]
    assert texts == [" w0", " w1000"]


async def test_leaving_a_job_gives_its_decoder_back(tmp_path: Path) -> None:
    decoders = HeldDecoders()
    async with running(tmp_path, decoders) as engine:
        async with engine.admit() as job:
            engine.start(job, ENGLISH, str(tmp_path / "script.json"))
            with anyio.fail_after(30):
                await first_text(job)
        with anyio.fail_after(5):
            await decoders.given_up.wait()
        assert job.outcome == "cancelled"


async def test_a_bug_costs_its_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = HeldDecoders()
    decoders.go_on.set()
    async with running(tmp_path, decoders) as engine:

        async def bug(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(engine.worker, "step", bug)
            async with engine.admit() as job:
                engine.start(job, ENGLISH, str(tmp_path / "script.json"))
                with pytest.raises(WhisperdError, match="unexpectedly"), anyio.fail_after(30):
                    await job.result()
        async with engine.admit() as job:
            engine.start(job, ENGLISH, str(tmp_path / "script.json"))
            with anyio.fail_after(30):
                assert (await job.result()).text == "w0 w1000"


async def test_the_queue_has_an_end_and_a_slot_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path, HeldDecoders()) as engine:
        async with engine.admit(), engine.admit():
            with pytest.raises(QueueFull) as caught:
                async with engine.admit():
                    pass
            assert caught.value.retry_after is not None
        async with engine.admit():
            pass


async def test_draining_ends_what_does_not_end_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path, HeldDecoders()) as engine, engine.admit() as job:
        engine.start(job, ENGLISH, str(tmp_path / "script.json"))
        await engine.drain(0.1)
        with pytest.raises(ShuttingDown):
            await job.result()
        with pytest.raises(ShuttingDown):
            async with engine.admit():
                pass
