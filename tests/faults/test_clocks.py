"""Machines that sleep, processes that are stopped, and clocks that jump."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Server, StartServer, clips, script_of, wait_for
from tests.engine.reins import part, running
from tests.engine.test_engine import decoders
from tests.faults.test_workers import in_background
from tests.steps import steps_of

CLIP = clips("en000")[0]
#: Longer than a stall that counts as work; 120 is what a release is tried with.
SLEEP_S = float(os.environ.get("WHISPERD_TEST_SLEEP_S", "8"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sleep(server: Server, seconds: float) -> None:
    """Stop the server and its children, as a machine's sleep does; the children are the last to wake."""
    process = psutil.Process(server.pid)
    children = process.children(recursive=True)
    for each in [process, *children]:
        each.suspend()
    time.sleep(seconds)
    process.resume()
    time.sleep(0.5)  # what the server thinks is over it gives up now
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):  # the server gave it up: the answer will say so
            child.resume()


@pytest.mark.parametrize("limit", ["step_timeout_s", "job_timeout_s"])
def test_a_job_with_time_left_outlives_a_sleep(start_server: StartServer, tmp_path: Path, limit: str) -> None:
    log = tmp_path / "steps"
    script = script_of(tmp_path, seconds_per_step=1, log=str(log))
    server = start_server(backend="fake", model=script, **{limit: 5})
    thread, answers = in_background(lambda: server.transcribe(CLIP.path))
    wait_for(lambda: bool(steps_of(log)), 20, server.log)
    sleep(server, SLEEP_S)
    assert httpx.get(f"{server.url}/health").status_code == 200
    thread.join(30)
    assert answers[0].status_code == 200, answers[0].text
    assert len(steps_of(log)) == 1, "no step was done twice"
    assert server.transcribe(CLIP.path).status_code == 200
    assert server.stop() == 0


def test_a_step_that_hangs_is_given_up_after_a_sleep_too(start_server: StartServer, tmp_path: Path) -> None:
    log = tmp_path / "steps"
    script = script_of(tmp_path, on_step={"1": "hang"}, once=str(tmp_path / "hung"), log=str(log))
    server = start_server(backend="fake", model=script, step_timeout_s=3)
    thread, answers = in_background(lambda: server.transcribe(CLIP.path))
    wait_for(lambda: bool(steps_of(log)), 20, server.log)
    sleep(server, SLEEP_S)
    thread.join(30)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (504, "deadline_exceeded")
    assert server.transcribe(CLIP.path).status_code == 200
    assert server.stop() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("jump_s", [3600, -3600])
async def test_a_clock_that_jumps_ends_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    whole = decoders(two=[part(0, 1, done=False), part(1, 2, done=True)])
    async with running(tmp_path, whole, job_timeout_s=20, keep_s=60) as bench:
        bench.worker.hold()
        real = time.time
        with bench.submitted("two") as job:
            monkeypatch.setattr(time, "time", lambda: real() + jump_s)
            bench.worker.release()
            assert (await job.result()).text == "w0 w1000"
            assert min(job.waited_seconds, job.decode_seconds, job.inference_seconds) >= 0
        with bench.submitted("two") as job:
            assert (await job.result()).text == "w0 w1000"
