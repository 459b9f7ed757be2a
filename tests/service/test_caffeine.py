"""The Mac stays awake while there is work: a stand-in ``caffeinate`` notes that it was begun, and that it was ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Server, StartServer, clips, script_of, wait_for

STAND_IN = """#!/bin/sh
echo "begun $*" >> {log}
trap 'echo ended >> {log}; exit 0' TERM
while kill -0 $3; do sleep 0.1; done
echo "alone" >> {log}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "caffeinate.log"


@pytest.fixture
def path(tmp_path: Path, log: Path) -> str:
    """A PATH on which the stand-in is found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "caffeinate").write_text(STAND_IN.format(log=log))
    (folder / "caffeinate").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def slow(start_server: StartServer, folder: Path, path: str) -> Server:
    return start_server(backend="fake", model=script_of(folder, seconds_per_step=3), env={"PATH": path})


def seen(log: Path, what: str) -> bool:
    return log.exists() and what in log.read_text()


def test_the_mac_stays_awake_for_a_job_and_no_longer(
    start_server: StartServer, tmp_path: Path, log: Path, path: str
) -> None:
    server = slow(start_server, tmp_path, path)
    time.sleep(1.5)
    assert not log.exists(), "without work it may sleep"
    assert server.transcribe(clips("en000")[0].path).status_code == 200
    assert log.read_text().startswith(f"begun -i -w {server.pid}\n")
    wait_for(lambda: seen(log, "ended"), 15)
    assert server.transcribe(clips("en001")[0].path).status_code == 200
    wait_for(lambda: log.read_text().count("ended") == 2, 15)


@pytest.mark.parametrize(("end", "last"), [(signal.SIGTERM, "ended"), (signal.SIGKILL, "alone")])
def test_none_is_left_behind_a_server_that_ends(
    start_server: StartServer, tmp_path: Path, log: Path, path: str, end: signal.Signals, last: str
) -> None:
    server = slow(start_server, tmp_path, path)
    sending = threading.Thread(target=lambda: send(server))
    sending.start()
    wait_for(lambda: seen(log, "begun"), 15)
    server.process.send_signal(end)
    server.process.wait(15)
    wait_for(lambda: seen(log, last), 15)
    sending.join()


def send(server: Server) -> None:
    try:
        server.transcribe(clips("en000")[0].path)
    except Exception as error:  # noqa: BLE001 - the server was killed
        print(type(error).__name__)
