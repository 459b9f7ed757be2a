"""A server that can never start, under a supervisor that restarts whatever fails, as launchd does for ever."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import script_of, wait_for

#: A supervisor without mercy; it must be stopped long before.
FOR_EVER = 12


def serve(state: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "app", "serve", "--supervised", "--state-dir", str(state), *words]


def launchd(command: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Start it again as long as it fails."""
    environment = {**os.environ, "WHISPERD_CONFIG": os.devnull}
    starts: list[subprocess.CompletedProcess[str]] = []
    while len(starts) < FOR_EVER and (not starts or starts[-1].returncode):
        starts.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment))
    return starts


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("wrong", ["setting", "port", "model"])
def test_what_can_never_start_is_parked_with_the_reason(tmp_path: Path, taken_port: int, wrong: str) -> None:
    fake = ["--backend", "fake", "--model", str(script_of(tmp_path))]
    words = {
        "setting": ["--queue-jobs", "none"],
        "port": [*fake, "--port", str(taken_port)],
        "model": ["--backend", "faster-whisper", "--model", "large-v3", "--hub-dir", str(tmp_path)],
    }[wrong]
    starts = launchd(serve(tmp_path / "state", *words))
    assert [start.returncode for start in starts] == [1, 1, 1, 1, 0]
    assert all(len(start.stderr.splitlines()) <= 20 and "Traceback" not in start.stderr for start in starts)
    status = json.loads((tmp_path / "state" / "status.json").read_text())
    assert status["status"] == "parked"
    named = {"setting": "'queue_jobs'", "port": f":{taken_port}", "model": "large-v3"}[wrong]
    assert named in status["reason"]
    assert named in starts[-1].stderr
    again = launchd(serve(tmp_path / "state", *words))
    assert [start.returncode for start in again] == [1, 1, 1, 1, 0], "who starts it again gets the same patience"


def test_a_server_that_dies_without_a_word_before_it_answers_is_parked_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-c", _DIES, str(state)]
    starts = launchd(command)
    assert [start.returncode for start in starts] == [-signal.SIGKILL] * 5 + [0]
    assert json.loads((state / "status.json").read_text())["status"] == "parked"


_DIES = """
import os, pathlib, sys
from app.service.parking import supervised
sys.exit(supervised(pathlib.Path(sys.argv[1]), lambda started: os.kill(os.getpid(), 9)))
"""


def test_a_start_that_succeeds_clears_the_count_and_the_reason(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "status.json").write_text(json.dumps({"status": "parked", "reason": "The port was taken."}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--backend", "fake", "--model", str(script_of(tmp_path)), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(serve(state, *words), stderr=stderr) as process:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/health").is_success, 30, log)
        assert not (state / "status.json").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
