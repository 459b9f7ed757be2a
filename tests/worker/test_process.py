"""The handle of a child, on real children with the fake backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import numpy as np
import psutil
import pytest

from app.errors import BackendUnavailable, DeadlineExceeded, InferenceFailed, WorkerDied
from app.transcript import SAMPLE_RATE, Options, Window
from app.worker.messages import Load, Loaded, Step, StepDone
from app.worker.process import ChildProcess

pytestmark = pytest.mark.anyio
WINDOW = Window(0, SAMPLE_RATE, ((0, SAMPLE_RATE),))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    path = tmp_path / "pcm"
    np.zeros(2 * SAMPLE_RATE, np.int16).tofile(path)
    return path


async def child(tmp_path: Path, **script: object) -> ChildProcess:
    process = ChildProcess("app.worker.child", cwd=tmp_path)
    await process.start()
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script))
    assert isinstance(await process.call(Load("fake", str(path), str(tmp_path))), Loaded)
    return process


@pytest.mark.parametrize(
    ("given", "lower"),
    [
        ({}, None),
        ({"HIGH": "1.0"}, "1.0"),
        ({"HIGH": "1.7"}, None),
        ({"HIGH": "0.0"}, None),
        ({"HIGH": "x"}, None),
        ({"HIGH": "1.0", "LOW": "0.5"}, "0.5"),
    ],
)
async def test_torch_starts_with_an_upper_mark_under_its_own_lower_one(
    given: dict[str, str], lower: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"PYTORCH_MPS_{name}_WATERMARK_RATIO", value)
    process = ChildProcess("app.worker.child", cwd=tmp_path)
    await process.start()
    assert process.pid
    environment = psutil.Process(process.pid).environ()
    assert environment.get("PYTORCH_MPS_LOW_WATERMARK_RATIO") == lower
    assert environment["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    await process.aclose()


async def test_a_step_is_answered_in_plain_types(tmp_path: Path, pcm: Path) -> None:
    process = await child(tmp_path)
    done = await process.call(Step(str(pcm), (WINDOW,), Options(language="en")))
    assert isinstance(done, StepDone)
    assert done.result.windows[0].segments[0].text == " w0"
    await process.aclose()
    assert not process.alive


async def test_an_error_in_the_child_keeps_it_alive(tmp_path: Path, pcm: Path) -> None:
    process = await child(tmp_path, on_step={"1": "raise"})
    with pytest.raises(InferenceFailed):
        await process.call(Step(str(pcm), (WINDOW,), Options()))
    assert isinstance(await process.call(Step(str(pcm), (WINDOW,), Options())), StepDone)
    await process.aclose()


async def test_a_window_beyond_the_recording_is_refused_before_the_backend_sees_it(tmp_path: Path, pcm: Path) -> None:
    process = await child(tmp_path)
    with pytest.raises(InferenceFailed, match=r"ends at 2\.00 s"):
        await process.call(Step(str(pcm), (Window(0, 3 * SAMPLE_RATE, ()),), Options()))
    await process.aclose()


async def test_a_failed_load_says_why(tmp_path: Path) -> None:
    process = ChildProcess("app.worker.child", cwd=tmp_path)
    await process.start()
    script = tmp_path / "script.json"
    script.write_text('{"load": "unavailable"}')
    with pytest.raises(BackendUnavailable):
        await process.call(Load("fake", str(script), str(tmp_path)))
    await process.aclose()


@pytest.mark.parametrize("fault", ["kill", "exit", "abort"])
async def test_a_child_that_dies_is_seen_at_once(tmp_path: Path, pcm: Path, fault: str) -> None:
    process = await child(tmp_path, on_step={"1": fault})
    with pytest.raises(WorkerDied), anyio.fail_after(10):
        await process.call(Step(str(pcm), (WINDOW,), Options()), timeout=60)
    assert not process.alive
    await process.aclose()


@pytest.mark.parametrize("fault", ["hang", "spin", "stop"])
async def test_a_call_past_its_deadline_kills_the_child(tmp_path: Path, pcm: Path, fault: str) -> None:
    process = await child(tmp_path, on_step={"1": fault})
    pid = process.pid
    with pytest.raises(DeadlineExceeded):
        await process.call(Step(str(pcm), (WINDOW,), Options()), timeout=0.3)
    await process.aclose()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_cancelled_call_kills_the_child_so_that_no_reply_is_mistaken_for_the_next(
    tmp_path: Path, pcm: Path
) -> None:
    process = await child(tmp_path, on_step={"1": "hang"})
    with anyio.move_on_after(0.2):
        await process.call(Step(str(pcm), (WINDOW,), Options()))
    await process.aclose()
    assert not process.alive


async def test_a_child_over_its_memory_is_killed(tmp_path: Path) -> None:
    process = ChildProcess("app.worker.child", cwd=tmp_path, memory_limit=1024 * 1024)
    with pytest.raises(WorkerDied):
        await process.start()
    await process.aclose()


async def test_the_event_loop_runs_on_while_a_child_works(tmp_path: Path, pcm: Path) -> None:
    process = await child(tmp_path, seconds_per_step=0.5)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            started = time.monotonic()
            await anyio.sleep(0.01)
            longest = max(longest, time.monotonic() - started)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await process.call(Step(str(pcm), (WINDOW,), Options()))
        tasks.cancel_scope.cancel()
    await process.aclose()
    assert longest < 0.4, "a blocking read would hold the loop for the whole step"


def test_a_child_whose_parent_was_killed_leaves(tmp_path: Path) -> None:
    program = (
        "import anyio, pathlib, sys, time\n"
        "from app.worker.process import ChildProcess\n"
        "async def main():\n"
        "    child = ChildProcess('app.worker.child', cwd=pathlib.Path(sys.argv[1]))\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "anyio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the orphan stays"
        time.sleep(0.02)
