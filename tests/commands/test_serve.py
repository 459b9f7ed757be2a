"""``whisperd serve`` where the system lets few files be open."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.commands.serve import room
from tests.conftest import clips, wait_for


@pytest.mark.parametrize(("soft", "hard", "connections"), [(64, 64, 16), (64, 4096, 1024), (64, 1000, 250)])
def test_a_quarter_of_the_files_may_be_connections(soft: int, hard: int, connections: int) -> None:
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    program += "; from app.commands.serve import room; print(room(1024))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == connections


def test_a_limit_that_is_enough_stays_as_it_is() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room(8) == 8
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_more_connections_than_files_are_no_trouble(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "--backend", "fake", "--model", "{}", "--port", str(port), "--state-dir", str(tmp_path)]
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    program = f"{few}; from app.cli import main; raise SystemExit(main())"
    environment = {**os.environ, "WHISPERD_CONFIG": str(tmp_path / "none.toml")}
    log, url = tmp_path / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as stderr, contextlib.ExitStack() as stack:
        process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=stderr, env=environment)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        wait_for(lambda: httpx.get(f"{url}/ready").is_success, 60, log)
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with clips("en000")[0].path.open("rb") as file:
            assert httpx.post(f"{url}/v1/audio/transcriptions", files={"file": file}, timeout=30).status_code == 200
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
    assert "connections=16" in log.read_text()
