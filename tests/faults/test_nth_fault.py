"""Each call that may fail does so once: the first, the second, … until none is left. Its request alone may suffer.

A ``sitecustomize`` wraps the calls in the HTTP process of a real server; which one fails, and when, a file says.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Recording, Server, StartServer, clips, join_windows, script_of, wait_for

CLIP = clips("en000")[0]
#: Call -> what it raises. The calls are looked up in the HTTP process alone.
SEAMS = {
    "tempfile:mkdtemp": "OSError(28, 'No space left on device')",
    "app.api.uploads:_private": "OSError(24, 'Too many open files')",
    "app.api.uploads:_store": "OSError(28, 'No space left on device')",
    "subprocess:Popen": "OSError(11, 'Resource temporarily unavailable')",
    "multiprocessing.connection:Connection.send": "BrokenPipeError(32, 'Broken pipe')",
    "multiprocessing.connection:Connection.recv": "EOFError()",
    "os:unlink": "OSError(5, 'Input/output error')",
    "os:fsync": "OSError(5, 'Input/output error')",
    "app.engine.job_store:JobStore.add": "sqlite3.OperationalError('disk I/O error')",
    "app.engine.job_store:JobStore.append": "sqlite3.OperationalError('database or disk is full')",
    "app.engine.job_store:JobStore.finish": "sqlite3.OperationalError('disk I/O error')",
    "app.metrics:Metrics.observe_step": "RuntimeError('a bug whose words may be private')",
    "app.engine.progress:Progress.transcript": "RuntimeError('a bug whose words may be private')",
}
#: Those that only jobs on disk need.
DURABLE = {"os:fsync", *(seam for seam in SEAMS if "job_store" in seam)}
#: No request makes more calls than that of any kind.
MOST = 60

CUSTOMIZE = """
import builtins, functools, importlib, json, os, sqlite3, sys

SEAMS, PLAN = {seams!r}, {plan!r}
plain, seen, stat, read = builtins.__import__, {{"plan": None, "calls": 0}}, os.stat, open

def due(name):
    try:
        with read(PLAN) as file:
            plan = json.load(file)
    except (OSError, ValueError):
        return False
    if plan != seen["plan"]:
        seen.update(plan=plan, calls=0)
    if plan["seam"] != name:
        return False
    seen["calls"] += 1
    if seen["calls"] != plan["call"]:
        return False
    with read(PLAN + ".fired", "w") as file:
        json.dump(plan, file)
    return True

def install():
    for name, error in SEAMS.items():
        module, _, path = name.partition(":")
        owner = importlib.import_module(module)
        *parents, last = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, last, faulty(name, getattr(owner, last), error))

def faulty(name, original, error):
    @functools.wraps(original, updated=())
    def call(*args, **words):
        if due(name):
            raise eval(error)
        return original(*args, **words)
    return call

def importing(name, *args, **words):
    module = plain(name, *args, **words)
    if name == "uvicorn" and "serve" in sys.argv and builtins.__import__ is importing:
        builtins.__import__ = plain
        install()
    return module

if "serve" in sys.argv:
    builtins.__import__ = importing
"""


class Faults:
    """A server one of whose calls fails when it is told to."""

    def __init__(self, server: Server, plan: Path) -> None:
        self.server, self.plan = server, plan
        self.fired = plan.with_name(plan.name + ".fired")

    def arm(self, seam: str, call: int) -> None:
        self.fired.unlink(missing_ok=True)
        draft = self.plan.with_suffix(".draft")
        draft.write_text(json.dumps({"seam": seam, "call": call, "at": time.monotonic()}))
        draft.replace(self.plan)

    def disarm(self) -> bool:
        """Whether it failed since it was armed."""
        self.plan.unlink()
        return self.fired.exists()


@pytest.fixture
def faults(start_server: StartServer, tmp_path: Path) -> Iterator[Faults]:
    """A fresh one for each test: a worker that dies three times in a minute is given a rest."""
    plan = tmp_path / "plan"
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE.format(seams=SEAMS, plan=str(plan)))
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    server = start_server(backend="fake", model=script_of(tmp_path), max_batch=1, env={"PYTHONPATH": paths})
    yield Faults(server, plan)
    server.stop()


@pytest.fixture(scope="module")
def two_windows(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return join_windows(clips("en")[:2], tmp_path_factory.mktemp("long") / "long.wav")


def at_once(server: Server, recording: Path) -> httpx.Response:
    return server.transcribe(recording, timeout=30)


def later(server: Server, recording: Path) -> httpx.Response:
    """As a job on disk: what became of it."""
    with recording.open("rb") as file:
        url = f"{server.url}/v1/audio/transcriptions"
        accepted = httpx.post(url, files={"file": file}, headers={"Prefer": "respond-async"}, timeout=30)
    if accepted.status_code != 202:
        return accepted
    job = f"{server.url}/v1/jobs/{accepted.json()['id']}"
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = httpx.get(job)
        if found.status_code != 200 or found.json()["status"] in ("completed", "failed"):
            result = httpx.get(f"{job}/result")
            httpx.delete(job)
            return result
        time.sleep(0.05)
    pytest.fail("the job does not end")


@pytest.mark.parametrize("ask", [at_once, later])
@pytest.mark.parametrize("seam", SEAMS)
def test_a_call_that_fails_costs_its_request_at_most(
    faults: Faults,
    seam: str,
    ask: Callable[[Server, Path], httpx.Response],
    two_windows: Recording,
    figure: Callable[[int, str], None],
) -> None:
    server, answers = faults.server, list[int]()
    # What is done in one step is not written down before its end.
    recording = two_windows.path if seam.endswith("append") else CLIP.path
    for call in itertools.count(1):
        assert call < MOST
        if seam == "subprocess:Popen":
            for decoder in server.children("app.worker.decoder"):
                decoder.kill()
        faults.arm(seam, call)
        answer = ask(server, recording)
        hit = faults.disarm()
        answers.append(answer.status_code)
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}, answer.text
            assert "private" not in answer.text
        assert hit or answer.status_code == 200
        following = server.transcribe(CLIP.path, timeout=60)
        assert (following.status_code, following.json().get("text")) == (200, "w0"), following.text
        wait_for(lambda: "whisperd_queue_jobs 0.0" in httpx.get(f"{server.url}/metrics").text, 10, server.log)
        if not hit:
            break
    assert httpx.get(f"{server.url}/v1/queue").json()["data"] == []
    spool = server.log.parent / "state" / "spool"
    wait_for(lambda: not list(spool.glob("server-*/job-*")), 10, server.log)
    assert len(answers) > 1 or (seam in DURABLE and ask is at_once), "nothing calls it"
    if len(answers) > 1:
        figure(30, f"{seam.partition(':')[2]}, {ask.__name__.replace('_', ' ')}: {len(answers) - 1} faults")
