"""Clients that hang up: how soon their job is gone, what the device still does for it, and what the next one hears.

    python -m benchmarks.hangups                       rows 10 and 11 of docs/reliability.md
    python -m benchmarks.hangups --rows 11 --backends fake,whisper.cpp --running 20

Row 10: while it waits behind a step that takes for ever. Row 11: while its windows are transcribed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.recordings import as_wav, joined, numbered, samples
from benchmarks.server import Server, figures, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
#: Seconds within which a job is gone, with nothing else on the processor; steps that may begin for it after that.
_GONE_S, _STEPS = 0.05, 0
_BACKENDS = ("fake", "faster-whisper", "mlx-whisper", "whisper.cpp")
#: Longer than the script runs.
_FOR_EVER_S = "36000"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10,11", help="numbers with commas between them (default 10,11)")
    parser.add_argument("--queued", type=int, default=300, help="row 10's trials (default 300)")
    parser.add_argument("--running", type=int, default=100, help="row 11's trials of each backend (default 100)")
    parser.add_argument("--backends", default=",".join(_BACKENDS), help=f"row 11's (default {','.join(_BACKENDS)})")
    add_json(parser)
    options = parser.parse_args()
    rows, found = {int(row) for row in options.rows.split(",")}, Verdicts()
    print(machine())
    if 10 in rows:
        while_queued(found, options.queued)
    for backend in options.backends.split(",") if 11 in rows else ():
        while_running(found, backend, options.running)
    return found.end(options.json)


@contextlib.contextmanager
def _serving(*flags: str) -> Iterator[tuple[Server, httpx.Client]]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), *flags)
        try:
            server.start()
            with httpx.Client(base_url=server.url, timeout=120) as http:
                yield server, http
        finally:
            server.stop()


def while_queued(found: Verdicts, trials: int) -> None:
    wav = as_wav(samples(clips("en")[0].path))
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "steps"
        script = json.dumps({"log": str(log), "on_step": {"1": "hang"}})
        flags = ("--backend", "fake", "--model", script, "--step-timeout-s", _FOR_EVER_S, "--drain-s", "0")
        with _serving(*flags) as (server, http), _posted(server, numbered(wav, 0)):
            _wait(lambda: log.exists() and log.read_text().count("begin") == 1)
            gone = []
            for number in tqdm(range(1, trials + 1)):
                with _posted(server, numbered(wav, number)):
                    _wait(lambda: len(_queue(http)) == 2)
                left = time.monotonic()
                _wait(lambda: len(_queue(http)) == 1)
                gone.append(time.monotonic() - left)
            _wait(lambda: figures(server.url)["whisperd_queue_jobs"] == 1)
        steps = log.read_text().count("begin") - 1
    late = sum(seconds > _GONE_S for seconds in gone)
    figure = f"{trials - late} of {trials} gone within 50 ms ({_spread(gone)}), {steps} steps for them"
    found.say(10, "hung up while queued", figure, holds=not late and not steps)


def while_running(found: Verdicts, backend: str, trials: int) -> None:
    """A minute of speech, hung up on at a moment of chance in the midst of it; then a clip of another, to its end."""
    model = json.dumps({"seconds_per_step": 0.05}) if backend == "fake" else "micro"
    dice = random.Random(0)  # noqa: S311
    clip = as_wav(samples(clips("en")[1].path))
    with tempfile.TemporaryDirectory() as name:
        joined([each.path for each in clips("en")], Path(name) / "minute.wav", 60, gap_s=2.5)
        minute = (Path(name) / "minute.wav").read_bytes()
        flags = ("--backend", backend, "--model", model, "--max-batch", "1")
        with _serving(*flags) as (server, http):
            post = lambda wav: http.post(_URL, files={"file": wav}).raise_for_status().json()["text"]  # noqa: E731
            wanted = [post(clip) for _ in range(3)][-1]
            began = time.monotonic()
            post(minute)
            whole, gone, steps, right = time.monotonic() - began, list[float](), list[float](), 0
            for number in tqdm(range(1, trials + 1), desc=backend):
                with _posted(server, numbered(minute, number)):
                    _wait(lambda: any(each["status"] == "running" for each in _queue(http)))
                    time.sleep(dice.uniform(0, 0.7) * whole)
                left = time.monotonic()
                _wait(lambda: not _queue(http))
                gone.append(time.monotonic() - left)
                running = _steps(server)
                right += post(clip) == wanted
                # The clip's own step, and the one that ran when the client left: it is counted when it ends.
                steps.append(_steps(server) - running - 2)
    late, most = sum(seconds > _GONE_S for seconds in gone), max(0, *steps)
    figure = f"{trials} gone after {_spread(gone)}; {most:.0f} more steps begun; next text right {right} of {trials}"
    free = most <= _STEPS and right == trials
    found.say(11, f"hung up while running, {backend}", figure, holds=free and not (late and backend == "fake"))


@contextlib.contextmanager
def _posted(server: Server, wav: bytes) -> Iterator[None]:
    """A request on a connection of its own, which ends with the context."""
    url = httpx.URL(server.url)
    head = f"POST {_URL} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: audio/wav\r\nContent-Length: {len(wav)}\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(head.encode() + wav)
        yield


def _queue(http: httpx.Client) -> list[dict[str, object]]:
    found: list[dict[str, object]] = http.get("/v1/queue").json()["data"]
    return found


def _steps(server: Server) -> float:
    return figures(server.url)["whisperd_step_seconds_count"]


def _wait(what: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            raise SystemExit("what should have happened did not")
        time.sleep(0.002)


def _spread(times: list[float]) -> str:
    middle, most = 1000 * np.percentile(times, [50, 100])
    return f"{middle:.0f} ms p50, {most:.0f} max"


if __name__ == "__main__":
    sys.exit(main())
