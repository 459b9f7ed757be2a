"""A rest over the real pipe, with the fake backend and with MLX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.backends import installed
from app.backends.base import LoadOptions, Memory, openblas_preload
from app.transcript import SAMPLE_RATE, Options, Window
from app.worker.messages import Load, Loaded, Rest, Rested, Step, StepDone, WarmUp
from app.worker.process import ChildProcess

pytestmark = pytest.mark.anyio
MICRO = Path(__file__).parents[2] / "app" / "data" / "micro"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def step(tmp_path: Path, seconds: int) -> Step:
    """A window of noise over the whole recording."""
    samples = seconds * SAMPLE_RATE
    path = tmp_path / "pcm"
    np.random.default_rng(0).normal(0, 30, samples).astype(np.int16).tofile(path)
    return Step(str(path), (Window(0, samples, ((0, samples),), samples),), Options(language="en", temperature=0.2))


async def test_a_worker_without_a_model_holds_nothing(tmp_path: Path) -> None:
    process = ChildProcess("app.worker.child", cwd=tmp_path)
    await process.start()
    assert await process.call(Rest()) == Rested(Memory(active=0, cached=0, peak=0))
    await process.aclose()


async def test_a_rest_reaches_the_backend_and_its_memory_comes_back(tmp_path: Path) -> None:
    process = ChildProcess("app.worker.child", cwd=tmp_path)
    await process.start()
    log = tmp_path / "log"
    script = json.dumps({"log": str(log), "memory": {"active": 3, "cached": 1, "peak": 4}})
    assert isinstance(await process.call(Load("fake", script, str(tmp_path))), Loaded)
    assert isinstance(await process.call(step(tmp_path, 1)), StepDone)
    assert await process.call(Rest()) == Rested(Memory(active=3, cached=1, peak=4))
    assert isinstance(await process.call(step(tmp_path, 1)), StepDone)
    assert await process.call(WarmUp()) == Rested(Memory(active=3, cached=1, peak=4))
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["warm up", "begin", "end", "rest", "begin", "end", "warm up", "rest"]
    await process.aclose()


@pytest.mark.mlx
async def test_mlx_rests_on_the_workers_main_thread(tmp_path: Path) -> None:
    if not installed("mlx-whisper"):
        pytest.skip("mlx-whisper is not installed")
    process = ChildProcess("app.worker.child", cwd=tmp_path, preload=openblas_preload())
    await process.start()
    load = Load("mlx-whisper", str(MICRO), str(tmp_path / "cache"), LoadOptions(device="cpu"))
    assert isinstance(await process.call(load), Loaded)
    before = await process.call(step(tmp_path, 2))
    rested = await process.call(Rest())
    after = await process.call(step(tmp_path, 2))
    assert before.result == after.result
    assert isinstance(rested, Rested)
    assert rested.memory.cached < 100_000 < rested.memory.active < rested.memory.peak
    await process.aclose()
