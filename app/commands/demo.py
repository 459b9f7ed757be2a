"""``whisperd demo``: a real server on the bundled toy model, asked once over HTTP, left running to play with."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import httpx

from app.commands.flags import add_settings, settings_of
from app.errors import BackendUnavailable
from app.settings import DEFAULT_PORT

#: The first start converts the model and imports the library from a cold disk.
_READY_TIMEOUT_S = 180


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="stop after the first transcript")
    parser.epilog = (
        "The demo's model, micro, understands synthetic speech only. For people, pull a real one: see the README."
    )
    add_settings(parser, {"port", "backend"})


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    port = _free_port(settings.port)
    url = f"http://127.0.0.1:{port}"
    with resources.as_file(resources.files("app") / "data" / "sample.flac") as sample:
        _say(f"Starting the server at {url} with the toy model 'micro' on {settings.backend} ...")
        flags = ["--model", "micro", "--backend", settings.backend, "--host", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-m", "app", "serve", *flags, "--log-level", "warning"]
        server = subprocess.Popen(command)  # noqa: S603 - ourselves
        try:
            _wait_until_ready(url, server)
            _transcribe(url, sample)
            _say_what_next(url, sample)
            if not options.once:
                _say("Serving until Ctrl-C ...")
                server.wait()
        except KeyboardInterrupt:
            _say("\nStopping.")
        finally:
            server.terminate()
            server.wait()
    return 0


def _transcribe(url: str, sample: Path) -> None:
    started = time.monotonic()
    with sample.open("rb") as file:
        response = httpx.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": file},
            data={"model": "whisper-1", "response_format": "verbose_json"},
            timeout=300,
            trust_env=False,
        )
    seconds = time.monotonic() - started
    body = response.json()
    if response.is_error:
        raise BackendUnavailable(body["error"]["message"])
    _say(f"\n    {body['text']}\n")
    rate = body["duration"] / seconds
    _say(f"{body['duration']:.1f} s of {body['language']} speech in {seconds:.2f} s: {rate:.0f} times real time.")


def _say_what_next(url: str, sample: Path) -> None:
    _say("\nTry it yourself from another terminal:\n")
    _say(f"    curl {url}/v1/audio/transcriptions -F file=@{sample} -F model=whisper-1 -F response_format=srt\n")


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise BackendUnavailable("The server stopped before it was ready; its own words are above.")
        try:
            if httpx.get(f"{url}/ready", timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise BackendUnavailable(f"The model was not ready within {_READY_TIMEOUT_S} s; the server's own words are above.")


def _free_port(wanted: int) -> int:
    """``wanted`` where it is free, else any other."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As asyncio's own listener does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return DEFAULT_PORT


def _say(text: str) -> None:
    print(text, flush=True)
