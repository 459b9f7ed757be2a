"""A whisperd of one's own for a benchmark: started on a free port, asked over HTTP, ended with the context."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx


class Client:
    """One keep-alive connection, as a dictation app holds it."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid
        self._http = httpx.Client(base_url=url, timeout=3600)

    def transcribe(self, path: Path, **fields: str) -> httpx.Response:
        with path.open("rb") as file:
            response = self._http.post("/v1/audio/transcriptions", files={"file": file}, data=fields)
        response.raise_for_status()
        return response


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[Client]:
    """A ready server with ``flags`` of ``whisperd serve``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--port", str(port), "--state-dir", folder, "--log-level", "warning", *flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
        process = subprocess.Popen([sys.executable, "-m", "app", "serve", *words], env=environment)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process)
            yield Client(url, process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready").is_success:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def machine() -> str:
    """A line on what the figures were measured on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
