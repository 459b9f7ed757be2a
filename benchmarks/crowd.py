"""Everybody at once, while the queue is short, while the processor is full, and while the model is not yet loaded.

    python -m benchmarks.crowd                         rows 8, 9 and 15 of docs/reliability.md; 12 minutes
    python -m benchmarks.crowd --rows 15 --minutes 1

Row 8: posts at once against a short queue whose device stands still. Row 9: /health beside a long recording that is
decoded and transcribed. Row 15: posts while the model loads, then a model that is unloaded whenever nobody asks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.four_hours import write_speech
from benchmarks.recordings import as_wav, numbered, samples
from benchmarks.rush import watched
from benchmarks.server import Client, Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
#: Row 8's goals: seconds to a refusal and of /health, both p99; MiB of growth. Row 9's: seconds that the loop stands.
_REFUSED_S, _HEALTH_S, _GROWTH_MIB, _BLOCKED_S = 1.0, 0.1, 30, 0.25
_QUEUE, _FIRST_BYTES = 8, 16_384
_SEED = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="8,9,15", help="numbers with commas between them (default 8,9,15)")
    parser.add_argument("--posts", type=int, default=500, help="row 8's posts at once (default 500)")
    parser.add_argument("--first", type=int, default=200, help="row 15's posts while the model loads (default 200)")
    parser.add_argument("--minutes", type=float, default=10, help="row 15's minutes of loads and unloads (default 10)")
    add_json(parser)
    options = parser.parse_args()
    rows, found = {int(row) for row in options.rows.split(",")}, Verdicts()
    print(machine())
    if 8 in rows:
        short_queue(found, options.posts)
    if 9 in rows:
        full_processor(found)
    if 15 in rows:
        cold_start(found, options.first)
        come_and_go(found, options.minutes * 60)
    return found.end(options.json)


@contextlib.contextmanager
def _serving(*flags: str, ready: bool = True) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), *flags)
        try:
            server.start(ready=ready)
            yield server
        finally:
            server.stop()


# --- row 8 ---


def short_queue(found: Verdicts, count: int) -> None:
    """Who is taken in hears nothing while the device stands still: it was not the first step's length that refused."""
    script = json.dumps({"on_step": {"2": "hang"}})
    flags = ("--backend", "fake", "--model", script, "--queue-jobs", str(_QUEUE), "--drain-s", "0")
    with _serving(*flags) as server:
        client, process = Client(server.url, server.pid), psutil.Process(server.pid)
        client.transcribe(clips("en")[0].path)
        asyncio.run(_posts(server.url, 3 * _QUEUE))
        time.sleep(1)
        before, answers = process.memory_info().rss, list[tuple[float, bytes]]()
        health, peak = watched(client, lambda: answers.extend(asyncio.run(_posts(server.url, count))))
        client.close()
    heads = Counter(head[9:12].decode() or "waits" for _, head in answers)
    refused = [(seconds, head) for seconds, head in answers if head.startswith(b"HTTP/1.1 429")]
    late = float(np.percentile([seconds for seconds, _ in refused], 99))
    timed = sum(b"\r\nretry-after:" in head.lower() for _, head in refused)
    found.say(
        8, f"{count} posts at once, queue of {_QUEUE}", f"{dict(heads)}, {timed} x Retry-After",
        holds=dict(heads) == {"waits": _QUEUE, "429": count - _QUEUE} and timed == count - _QUEUE,
    )  # fmt: skip
    found.say(8, "refusals, before the body was sent, p99", f"{late:.2f} s", holds=late <= _REFUSED_S)
    found.say(8, "/health meanwhile", _spread(health), holds=np.percentile(health, 99) <= _HEALTH_S)
    grown = (peak - before) / 2**20
    found.say(8, "growth of the HTTP process", f"{grown:.1f} MiB", holds=grown <= _GROWTH_MIB)


async def _posts(url: str, count: int) -> list[tuple[float, bytes]]:
    """Post on ``count`` connections at once, the first bytes of each body alone; seconds to the answer, and its head,
    which is empty where none came within some seconds: those were taken in.
    """
    address = httpx.URL(url)
    wav = clips("en")[0].path.read_bytes()[:_FIRST_BYTES]
    head = f"POST {_URL} HTTP/1.1\r\nHost: {address.host}\r\nContent-Type: audio/wav\r\n"
    request = f"{head}Content-Length: {20 * _FIRST_BYTES}\r\n\r\n".encode() + wav

    async def one() -> tuple[float, bytes]:
        began, answer = time.perf_counter(), b""
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request)
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        took = time.perf_counter() - began
        if not answer:
            await asyncio.sleep(1)  # until all have been refused, or the next gets the place
        writer.close()
        return took, answer

    return await asyncio.gather(*(one() for _ in range(count)))


# --- row 9 ---


def full_processor(found: Verdicts) -> None:
    with tempfile.TemporaryDirectory() as name, _serving("--backend", "faster-whisper", "--model", "micro") as server:
        recording = Path(name) / "long.opus"
        write_speech(recording, 1200)
        client = Client(server.url, server.pid)
        client.transcribe(clips("en")[0].path)
        health, _ = watched(client, lambda: client.transcribe(recording))
        client.close()
    what = "/health while 20 minutes are decoded and transcribed"
    found.say(9, what, _spread(health), holds=max(health) <= _BLOCKED_S)


def _spread(times: list[float]) -> str:
    middle, late, most = 1000 * np.percentile(times, [50, 99, 100])
    return f"{middle:.1f} ms p50, {late:.1f} p99, {most:.1f} max of {len(times)}"


# --- row 15 ---


def cold_start(found: Verdicts, count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "steps"
        script = json.dumps({"log": str(log), "load_seconds": 3})
        with _serving("--backend", "fake", "--model", script, "--queue-jobs", "512", ready=False) as server:
            while not _answers(f"{server.url}/health"):
                time.sleep(0.02)
            early = not _answers(f"{server.url}/ready")
            statuses = Counter(asyncio.run(_transcribe(server.url, count)))
        pids = {json.loads(line)["pid"] for line in log.read_text().splitlines()}
    found.say(
        15, f"{count} requests before the model is loaded", f"{dict(statuses)}, {len(pids)} load",
        holds=early and len(pids) == 1 and statuses.keys() <= {200, 503},
    )  # fmt: skip


async def _transcribe(url: str, count: int) -> list[int]:
    wav, limits = as_wav(samples(clips("en")[0].path)), httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        posts = (http.post(_URL, files={"file": numbered(wav, number)}) for number in range(count))
        return [answer.status_code for answer in await asyncio.gather(*posts)]


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


def come_and_go(found: Verdicts, seconds: float) -> None:
    """Bursts with pauses of chance between them, in half of which the model is unloaded."""
    dice, statuses, loads = random.Random(_SEED), Counter[int](), set[int]()  # noqa: S311
    wav, numbers, most, over = as_wav(samples(clips("en")[0].path)), itertools.count(1), [0], threading.Event()
    with _serving("--backend", "faster-whisper", "--model", "micro", "--keep-alive", "1") as server:
        process = psutil.Process(server.pid)

        def watch() -> None:
            while not over.wait(0.02):
                workers = server.children("app.worker.child")
                loads.update(worker.pid for worker in workers)
                most[0] = max(most[0], len(workers))

        def burst(http: httpx.Client) -> None:
            for _ in range(dice.randint(1, 4)):
                answer = http.post(_URL, files={"file": numbered(wav, next(numbers))})
                statuses[answer.status_code] += 1

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with httpx.Client(base_url=server.url, timeout=120) as http, tqdm(total=int(seconds), unit="s") as bar:
                for _ in range(5):
                    burst(http)
                    time.sleep(2)
                before, began = process.memory_info().rss, time.monotonic()
                while (passed := time.monotonic() - began) < seconds:
                    bar.update(int(passed) - bar.n)
                    burst(http)
                    time.sleep(dice.uniform(0, 2.5))
                grown = process.memory_info().rss / before - 1
        finally:
            over.set()
            watcher.join()
    found.say(
        15, f"loaded and unloaded for {seconds / 60:g} minutes", f"{dict(statuses)}, {len(loads)} loads, "
        f"at most {most[0]} worker at once, HTTP process {100 * grown:+.1f} %",
        holds=statuses.keys() <= {200, 503} and most[0] == 1 and len(loads) > 1 and grown <= 0.05,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
