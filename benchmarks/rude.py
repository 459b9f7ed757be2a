"""What rude clients reach: a line for each thing that they do, and whether its figure holds; exits with 1 where not.

python -m benchmarks.rude                   300 connections, 100 refused uploads each way, fake backend
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import psutil

from benchmarks.server import Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
_POST = f"POST {_URL} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n".encode()
#: Row 17's goals: seconds until the last rude connection is closed, milliseconds added to good requests' p99.
_CLOSED_S, _ADDED_MS = 12, 50
#: Rows 18 and 22's: MiB that the HTTP process may grow, seconds of its CPU.
_REFUSED_MIB, _BOMB_MIB, _BOMB_CPU_S = 20, 4, 1
_FOUND = Verdicts()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--uploads", type=int, default=100, help="refused uploads, each client and each way")
    add_json(parser)
    options = parser.parse_args()
    print(machine())
    with _serving() as server:
        slow_clients(server, options.connections)
    with _serving("--max-upload-mb", "1") as server:
        refused_uploads(server, options.uploads)
    with _serving("--queue-jobs", "1") as server:
        refused_by_the_queue(server, options.uploads)
    with _serving() as server:
        bombs(server)
        smuggling(server)
    going_down()
    return _FOUND.end(options.json)


@contextlib.contextmanager
def _serving(*flags: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "--backend", "fake", "--model", "{}", *flags)
        try:
            server.start()
            yield server
        finally:
            server.stop()


# --- row 17 ---


def slow_clients(server: Server, count: int) -> None:
    quiet = _good_requests(server, lambda: time.sleep(12))
    ends: list[float] = []
    kinds = itertools.cycle(
        [b"GET /health HTTP/1.1\r\nHost: x\r\nX-A", _POST + b"Content-Length: 9000\r\n\r\n", b"", None]
    )
    beside = _good_requests(server, lambda: ends.extend(asyncio.run(_hold_all(server, kinds, count))))
    _FOUND.say(
        17, f"{count} slow connections: the last one is closed", f"{max(ends):.1f} s", holds=max(ends) <= _CLOSED_S
    )
    bad = Counter(status for status, _ in beside if status != "200")
    _FOUND.say(17, "good requests meanwhile, /health among them", f"{len(beside)}, bad: {dict(bad)}", holds=not bad)
    p99s = [1000 * float(np.percentile([seconds for _, seconds in each], 99)) for each in (quiet, beside)]
    added = p99s[1] - p99s[0]
    _FOUND.say(17, "their p99", f"{p99s[0]:.1f} ms alone, {p99s[1]:.1f} ms beside them", holds=added <= _ADDED_MS)


async def _hold_all(server: Server, kinds: Iterator[bytes | None], count: int) -> list[float]:
    return await asyncio.gather(*(_hold(server, kind) for kind in itertools.islice(kinds, count)))


async def _hold(server: Server, first: bytes | None) -> float:
    """Seconds until the server closes a connection that says ``first`` and, if that was a post, a byte a second; None
    asks well once and is then idle.
    """
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(*_address(server))
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if first is None else first)

    async def dribble(seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            writer.write(b"x")
            await writer.drain()

    dribbling = asyncio.create_task(dribble(1)) if first and first.startswith(_POST) else None
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass
    if dribbling is not None:  # it has its answer, and is closed once what it sends on is refused
        dribbling.cancel()
        with contextlib.suppress(OSError):
            await dribble(0.1)
    writer.close()
    return time.monotonic() - started


def _good_requests(server: Server, work: Callable[[], object]) -> list[tuple[str, float]]:
    """Status and seconds of good requests, one after the other, each on its own connection, while ``work`` runs."""
    audio, outcomes, over = clips("en000")[0].path.read_bytes(), list[tuple[str, float]](), threading.Event()

    def ask(http: httpx.Client) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            started = time.perf_counter()
            try:
                response = http.get("/health") if number % 2 else http.post(_URL, files={"file": audio})
                status = str(response.status_code)
            except httpx.TransportError as error:
                status = type(error).__name__
            outcomes.append((status, time.perf_counter() - started))
            time.sleep(0.02)

    with httpx.Client(base_url=server.url, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        asking = threading.Thread(target=ask, args=(http,))
        asking.start()
        try:
            work()
        finally:
            over.set()
            asking.join()
    return outcomes


# --- row 18 ---


def refused_uploads(server: Server, count: int) -> None:
    """20 MB against a limit of 1 MiB, announced and in chunks, from each kind of client."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(20_000_000))
        file.flush()
        process = psutil.Process(server.pid)
        # The first ones at once take what the upload's path keeps for all later ones.
        _refused(server, Path(file.name), 8, "413", "first")
        before = process.memory_info().rss
        _refused(server, Path(file.name), count, "413", "413")
        grown = (process.memory_info().rss - before) / 2**20
    _FOUND.say(18, "the HTTP process has grown", f"{grown:.1f} MiB", holds=grown <= _REFUSED_MIB)


def refused_by_the_queue(server: Server, count: int) -> None:
    """Uploads that meet a full queue: a slow one holds its only place."""
    with socket.create_connection(_address(server)) as held, tempfile.NamedTemporaryFile() as file:
        held.sendall(_POST + b"Content-Length: 900000\r\n\r\n" + bytes(9000))
        over = threading.Event()

        def keep() -> None:
            while not over.wait(0.1):
                held.sendall(bytes(400))

        keeping = threading.Thread(target=keep)
        keeping.start()
        file.write(bytes(20_000_000))
        file.flush()
        _refused(server, Path(file.name), count, "429", "429")
        over.set()
        keeping.join()


def _refused(server: Server, path: Path, count: int, wanted: str, what: str) -> None:
    clients = {"curl": _curl, "httpx": _httpx, "OpenAI SDK": _sdk}
    for name, ask in clients.items():
        for chunked in (False, True) if name != "OpenAI SDK" else (False,):
            if name == "curl" and shutil.which("curl") is None:
                continue
            with ThreadPoolExecutor(4) as pool:
                outcomes = Counter(pool.map(lambda _: ask(server, path, chunked), range(count)))  # noqa: B023
            if what == "first":
                continue
            way = "in chunks" if chunked else "announced"
            _FOUND.say(18, f"{what} for 20 MB, {name}, {way}", str(dict(outcomes)), holds=outcomes == {wanted: count})


def _curl(server: Server, path: Path, chunked: bool) -> str:
    words = ["curl", "-s", "-o", "-", "-w", "%{http_code}", "-H", "Expect:", "-F", f"file=@{path}"]
    words += ["-H", "Transfer-Encoding: chunked"] if chunked else []
    done = subprocess.run([*words, f"{server.url}{_URL}"], capture_output=True, text=True, check=False)
    return done.stdout[-3:] if '"error"' in done.stdout and done.returncode == 0 else f"exit {done.returncode}"


def _httpx(server: Server, path: Path, chunked: bool) -> str:
    with path.open("rb") as file:
        try:
            if chunked:
                blocks = iter(lambda: file.read(65536), b"")
                response = httpx.post(f"{server.url}{_URL}", content=blocks, headers={"Content-Type": "audio/wav"})
            else:
                response = httpx.post(f"{server.url}{_URL}", files={"file": file})
            return str(response.status_code) if "error" in response.json() else "no error"
        except httpx.TransportError as error:
            return type(error).__name__


def _sdk(server: Server, path: Path, chunked: bool) -> str:  # noqa: ARG001
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    try:
        with path.open("rb") as file:
            client.audio.transcriptions.create(model="whisper-1", file=file)
    except openai.APIStatusError as error:
        return str(error.status_code)
    except openai.APIError as error:
        return type(error).__name__
    return "200"


# --- row 22 ---


def bombs(server: Server) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nb\r\n'
    form = b"".join(part % number for number in range(1500)) + b"--x--\r\n"
    head = b"POST " + _URL.encode() + b" HTTP/1.1\r\nHost: x\r\n"
    cases: dict[str, list[bytes]] = {
        "a header of 64 MB": [b"GET / HTTP/1.1\r\nA: ", *[b"x" * 2**20] * 64],
        "100,000 headers": [b"GET / HTTP/1.1\r\n", b"".join(b"h%d: x\r\n" % number for number in range(100_000))],
        "1,500 parts": [
            head + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(form),
            form,
        ],
        "200,000 chunks of a byte": [
            _POST + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n",
        ],
        "JSON 100,000 deep": [
            head + b"Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n",
            b"[" * 100_000 + b"]" * 100_000,
        ],
    }
    process = psutil.Process(server.pid)
    talk(server, cases["1,500 parts"])
    for name, pieces in cases.items():
        before, cpu = process.memory_info().rss, process.cpu_times()
        answer, _ = talk(server, pieces)
        after = process.cpu_times()
        seconds = after.user + after.system - cpu.user - cpu.system
        grown = (process.memory_info().rss - before) / 2**20
        fine = answer.startswith(b"HTTP/1.1 4") and grown <= _BOMB_MIB and seconds <= _BOMB_CPU_S
        _FOUND.say(22, name, f"{_status(answer)}, {seconds:.2f} s of CPU, {grown:+.1f} MiB", holds=fine)


def smuggling(server: Server) -> None:
    """None of these may be taken for two requests, nor leave the connection open."""
    second = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    heads = [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 999999999999999999999\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ]
    good = 0
    for head in heads:
        answer, closed = talk(server, [b"POST /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\nX" + second])
        good += closed and answer.count(b"HTTP/1.1") == 1 and answer.startswith(b"HTTP/1.1 400")
    _FOUND.say(22, "ambiguous bodies: one 400 each, then closed", f"{good} of {len(heads)}", holds=good == len(heads))


def talk(server: Server, pieces: list[bytes], wait: float = 10) -> tuple[bytes, bool]:
    """What comes back until the server closes, or for ``wait`` seconds; and whether it closed."""
    answer = b""
    with socket.create_connection(_address(server)) as connection:
        connection.settimeout(wait)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        try:
            while data := connection.recv(65536):
                answer += data
                if answer.endswith(b"}") and b"connection: close" not in answer.lower():
                    return answer, False
        except TimeoutError:
            return answer, False
        except ConnectionError:
            pass
    return answer, True


# --- row 21 ---


def going_down() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "--backend", "fake", "--model", "{}")
        server.start()
        with socket.create_connection(_address(server)) as slow:
            slow.settimeout(20)
            slow.sendall(_POST + b"Content-Length: 100000\r\n\r\n" + bytes(9000))
            time.sleep(0.5)
            started, answer = time.monotonic(), b""
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            with contextlib.suppress(ConnectionError):
                while data := slow.recv(65536):
                    answer += data
            stopping.join()
            seconds = time.monotonic() - started
    told = answer.startswith(b"HTTP/1.1 503") and b"shutting_down" in answer
    _FOUND.say(
        21,
        "SIGTERM with a slow upload open",
        f"{_status(answer)}, gone after {seconds:.1f} s",
        holds=told and seconds <= 6,
    )


def _status(answer: bytes) -> str:
    return answer[9:12].decode() or "no answer"


def _address(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    return url.host, url.port or 80


if __name__ == "__main__":
    sys.exit(main())
