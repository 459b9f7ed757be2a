"""Rude clients over raw sockets: against a small app with short bounds, and against the whole server with its own."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import anyio
import httpx
import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api import errors, request_id
from app.api.connection import Connections
from app.errors import QueueFull
from tests.conftest import Server, StartServer, clips, wait_for

MIB = 2**20
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
TRANSCRIBE = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
StartSmall = Callable[..., "Small"]


@dataclass
class Small:
    """A small app behind connections with bounds of its own."""

    port: int
    uvicorn: uvicorn.Server
    bounds: Connections

    @property
    def connections(self) -> int:
        return len(self.uvicorn.server_state.connections)

    @property
    def busy(self) -> int:
        """Connections with a request."""
        return self.connections - len(self.bounds.waiting)


def small_app() -> FastAPI:
    """Says how long a body was (of ``/later`` after a second, of ``/never`` not at all); ``/flood`` sends 64 MiB."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> Response:
        return Response("well")

    @app.post("/now")
    async def now(request: Request) -> Response:
        return Response(str(len(await request.body())))

    @app.post("/later")
    async def later(request: Request) -> Response:
        await anyio.sleep(1)
        return Response(str(len(await request.body())))

    @app.post("/never")
    async def never() -> Response:
        raise QueueFull("There is no room.")

    @app.get("/flood")
    async def flood() -> Response:
        return StreamingResponse(bytes(MIB) for _ in range(64))

    errors.install(app)
    request_id.install(app)
    return app


@pytest.fixture
def start_small() -> Iterator[StartSmall]:
    """Start it with fields of ``Connections`` as keywords; bounds that are not named are too far to matter."""
    with contextlib.ExitStack() as running:

        def start(*, idle_s: int = 60, **bounds: float) -> Small:
            far = {
                "most": 1000,
                "head_s": 60,
                "body_s": 60,
                "body_rate": 1,
                "linger_s": 60,
                "linger_step_s": 60,
                "write_s": 60,
            }
            connections = Connections(**{**far, **bounds})
            listener = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(
                small_app(), http=connections.protocol, log_config=None, timeout_keep_alive=idle_s, lifespan="off"
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
            thread.start()

            def stop() -> None:
                server.should_exit = server.force_exit = True
                thread.join(10)

            running.callback(stop)
            wait_for(lambda: server.started, 10)
            return Small(listener.getsockname()[1], server, connections)

        yield start


class Client:
    """A raw connection."""

    def __init__(self, server: Small | Server) -> None:
        port = server.port if isinstance(server, Small) else httpx.URL(server.url).port
        self._socket = socket.create_connection(("127.0.0.1", port or 0), timeout=30)

    def send(self, *pieces: bytes, every: float = 0) -> None:
        for piece in pieces:
            self._socket.sendall(piece)
            time.sleep(every)

    def answer(self) -> httpx.Response:
        """The next answer, which says how long it is."""
        status, *lines = self.head().decode().strip().split("\r\n")
        headers = httpx.Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)])
        body = b""
        while len(body) < int(headers["content-length"]):
            body += self._socket.recv(int(headers["content-length"]) - len(body))
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)

    def head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            assert byte, f"closed after {head!r}"
            head += byte
        return head

    def rest(self) -> bytes:
        """What comes until the server closes."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := self._socket.recv(65536):
                data += piece
        return data

    def end(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def wait_until_cut(self, within: float) -> None:
        """Fails unless the server refuses to read more in time."""
        until = time.monotonic() + within
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                self._socket.sendall(b"x")
                time.sleep(0.05)
            pytest.fail("the server still reads")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def client() -> Iterator[Callable[[Small | Server], Client]]:
    """Connections that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(contextlib.closing(Client(server)))


Connect = Callable[[Small | Server], Client]


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    """OpenAI's envelope, an id, and the word that no other request is read."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    assert answer.headers["connection"].lower() == "close"


# --- time ---


def test_a_head_that_takes_too_long_is_a_408(
    start_small: StartSmall, client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    late = client(start_small(head_s=0.4))
    late.send(b"GET / HT")
    answer = late.answer()
    assert_refused(answer, 408, "request_timeout")
    assert late.rest() == b""
    (record,) = [each for each in caplog.records if each.message == "answered"]
    assert record.fields.items() >= {"status": 408, "method": "-", "route": "-"}.items()


def test_each_byte_of_a_head_buys_no_more_time(start_small: StartSmall, client: Connect) -> None:
    late = client(start_small(head_s=0.5))
    with contextlib.suppress(ConnectionError):
        late.send(*[b"G"] * 40, every=0.05)
    assert_refused(late.answer(), 408, "request_timeout")


def test_a_silent_connection_is_closed_without_an_answer(start_small: StartSmall, client: Connect) -> None:
    assert client(start_small(head_s=0.3)).rest() == b""


def test_a_kept_connection_is_closed_when_idle_and_timed_from_its_next_byte(
    start_small: StartSmall, client: Connect
) -> None:
    server = start_small(head_s=0.4, idle_s=1)
    idle, late, good = client(server), client(server), client(server)
    for each in (idle, late, good):
        each.send(GET)
        assert each.answer().text == "well"
    late.send(GET[:10])
    assert_refused(late.answer(), 408, "request_timeout")
    time.sleep(0.3)
    good.send(GET)
    assert good.answer().text == "well"
    assert idle.rest() == b""


def test_a_body_that_comes_too_slowly_is_a_408_of_its_own_request(start_small: StartSmall, client: Connect) -> None:
    slow = client(start_small(body_s=0.4, body_rate=100, linger_step_s=0.2))
    slow.send(b"POST /now HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: 999\r\n\r\nabc")
    answer = slow.answer()
    assert_refused(answer, 408, "request_timeout")
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-should-retry"] == "true"
    slow.wait_until_cut(5)


def test_a_body_that_stops_in_the_middle_is_a_408(start_small: StartSmall, client: Connect) -> None:
    slow = client(start_small(body_s=0.5))
    slow.send(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n", bytes(50_000))
    assert_refused(slow.answer(), 408, "request_timeout")


def test_a_slow_body_that_keeps_the_rate_passes_however_long_it_takes(start_small: StartSmall, client: Connect) -> None:
    phone = client(start_small(body_s=0.8, body_rate=1024))
    phone.send(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 51200\r\n\r\n", *[bytes(1024)] * 50, every=0.05)
    assert phone.answer().text == "51200"


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_the_server_does_not_ask_for_is_not_late(
    start_small: StartSmall, client: Connect, expect: bytes
) -> None:
    patient = client(start_small(body_s=0.3))
    patient.send(b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n" + expect + b"\r\n")
    if expect:
        assert patient.head().startswith(b"HTTP/1.1 100")
    patient.send(bytes(20_000_000))
    assert patient.answer().text == "20000000"


def test_a_client_that_does_not_read_its_answer_is_cut(start_small: StartSmall, client: Connect) -> None:
    server = start_small(write_s=0.5)
    deaf = client(server)
    deaf.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: server.connections == 1, 10)
    wait_for(lambda: server.connections == 0, 10)


# --- answers that do not wait for the body ---


@pytest.mark.parametrize("head", [b"Content-Length: 30000000", b"Connection: close\r\nContent-Length: 30000000"])
def test_who_sends_a_body_that_nobody_wants_sees_the_answer(
    start_small: StartSmall, client: Connect, head: bytes
) -> None:
    server = start_small()
    sender = client(server)
    sender.send(b"POST /never HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n", *[bytes(MIB)] * 28)
    assert_refused(sender.answer(), 429, "queue_full")
    assert sender.rest() == b""
    sender.close()
    wait_for(lambda: server.connections == 0, 10)


def test_who_goes_on_sending_after_its_answer_is_cut(start_small: StartSmall, client: Connect) -> None:
    server = start_small(body_s=0.5, body_rate=100, linger_s=2, linger_step_s=0.3)
    slow, fast = client(server), client(server)
    for each in (slow, fast):
        each.send(b"POST /never HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + bytes(64))
        assert_refused(each.answer(), 429, "queue_full")
    slow.wait_until_cut(5)
    with pytest.raises(ConnectionError):
        fast.send(*[b"x" * 4096] * 1000, every=0.01)


def test_a_refused_body_that_came_whole_with_its_head_keeps_the_connection(
    start_small: StartSmall, client: Connect
) -> None:
    kept = client(start_small())
    for _ in range(3):
        kept.send(b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        assert kept.answer().status_code == 429
    kept.send(GET + GET)
    assert [kept.answer().text, kept.answer().text] == ["well", "well"]


# --- how many ---


def test_the_connection_that_waited_longest_goes_for_a_newcomer(start_small: StartSmall, client: Connect) -> None:
    server = start_small(most=3)
    kept, silent = client(server), client(server)
    wait_for(lambda: server.connections == 2, 10)
    kept.send(GET)
    assert kept.answer().text == "well"
    busy = client(server)
    busy.send(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 65\r\n\r\n" + bytes(60))
    wait_for(lambda: server.busy == 1, 10)
    for gone in (silent, kept):
        newcomer = client(server)
        assert gone.rest() == b""
        newcomer.send(GET)
        assert newcomer.answer().text == "well"
    busy.send(b"hello")
    assert busy.answer().text == "65"


def test_one_too_many_is_a_503_where_all_are_busy(start_small: StartSmall, client: Connect) -> None:
    server = start_small(most=2)
    busy = [client(server) for _ in range(2)]
    for each in busy:
        each.send(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 61\r\n\r\n" + bytes(60))
    wait_for(lambda: server.busy == 2, 10)
    refused = client(server)
    answer = refused.answer()
    assert_refused(answer, 503, "too_many_connections")
    assert answer.headers["retry-after"] == "1"
    refused.close()
    for each in busy:
        each.send(b"o")
        assert each.answer().text == "61"


# --- what is no HTTP ---

SECOND = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "length and chunks": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and length": b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "two lengths": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a list of lengths": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\n",
    "a negative length": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "no number": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
    "a length beyond all": b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999999999\r\n\r\n",
    "chunks of HTTP/1.0": b"POST /now HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an unknown coding": b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "a space before the colon": b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
}


@pytest.mark.parametrize("kept", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_http_or_could_be_read_two_ways_is_one_400(
    start_small: StartSmall, client: Connect, caplog: pytest.LogCaptureFixture, head: bytes, kept: bool
) -> None:
    caplog.set_level(logging.INFO)
    rude = client(start_small())
    if kept:
        rude.send(GET)
        assert rude.answer().text == "well"
    caplog.clear()
    rude.send(head + SECOND)
    assert_refused(rude.answer(), 400, "invalid_request")
    assert rude.rest() == b""
    assert [each.message for each in caplog.records] == ["answered"]


@pytest.mark.parametrize("body", [b"5\r\nhello\r\nZZ\r\n", b"5\r\nhello!\r\n", b"-5\r\n", b"1\r\nx\r\n" * 20_000])
def test_chunks_that_are_none_or_too_small_are_a_400(start_small: StartSmall, client: Connect, body: bytes) -> None:
    rude = client(start_small())
    rude.send(b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + SECOND)
    assert_refused(rude.answer(), 400, "invalid_request")
    assert rude.rest() == b""


def test_small_chunks_are_fine_where_they_are_few_or_hold_something(start_small: StartSmall, client: Connect) -> None:
    good = client(start_small())
    for chunk, count in ((b"1\r\nx\r\n", 9_000), (b"40\r\n" + bytes(64) + b"\r\n", 20_000)):
        good.send(b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * count + b"0\r\n\r\n")
        assert int(good.answer().text) == count * (64 if len(chunk) > 9 else 1)


def test_a_body_longer_than_announced_is_a_request_that_is_none(start_small: StartSmall, client: Connect) -> None:
    rude = client(start_small())
    rude.send(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello and more\r\n\r\n")
    assert rude.answer().text == "5"
    assert_refused(rude.answer(), 400, "invalid_request")


# --- the whole server ---


@pytest.fixture(scope="module")
def whole(start_server: StartServer) -> Server:
    return start_server(backend="fake", model="{}", log_format="json")


def test_slow_clients_of_every_kind_are_closed_and_harm_nobody(start_server: StartServer) -> None:
    """40 at once, ten of each kind, with the bounds as they are: all closed soon after ten seconds."""
    server = start_server(backend="fake", model="{}")

    def hold(number: int) -> float:
        with contextlib.closing(Client(server)) as rude:
            started = time.monotonic()
            kind = number % 4
            rude.send([GET[:20], TRANSCRIBE + b"Content-Length: 9000\r\n\r\nx", b"", GET][kind])
            if kind == 3:
                assert rude.answer().status_code == 200
            said = rude.rest()
            assert said.startswith(b"HTTP/1.1 408") if kind < 2 else said == b""
            return time.monotonic() - started

    with ThreadPoolExecutor(40) as pool:
        held = [pool.submit(hold, number) for number in range(40)]
        while not all(each.done() for each in held):
            assert httpx.get(f"{server.url}/health").status_code == 200
            assert server.transcribe(clips("en000")[0].path).status_code == 200
            time.sleep(0.2)
    assert max(each.result() for each in held) < 15


BOMBS = {
    "a header of 64 MB": [b"GET / HTTP/1.1\r\nA: ", *[b"x" * MIB] * 64],
    "a path of 64 MB": [b"GET /", *[b"x" * MIB] * 64],
    "100,000 headers": [b"GET / HTTP/1.1\r\n", *[b"".join(b"h%d: x\r\n" % n for n in range(20_000))] * 5],
    "JSON 100,000 deep": [
        TRANSCRIBE.replace(b"audio/wav", b"application/json") + b"Content-Length: 100000\r\n\r\n",
        b"[" * 100_000,
    ],
    "1,500 parts": [
        TRANSCRIBE.replace(b"audio/wav", b"multipart/form-data; boundary=x") + b"Transfer-Encoding: chunked\r\n\r\n",
        *[b'38\r\n--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nabcdef\r\n\r\n'] * 1500,
    ],
    "200,000 chunks of a byte": [TRANSCRIBE + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n" * 20_000] * 10],
    "more than any disk": [TRANSCRIBE + b"Content-Length: 99999999999999999999\r\n\r\n"],
}


@pytest.mark.parametrize("pieces", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_and_leave_no_memory_behind(whole: Server, client: Connect, pieces: list[bytes]) -> None:
    process = psutil.Process(whole.pid)
    before = process.memory_info().rss
    rude = client(whole)
    rude.send(*pieces)
    answer = rude.answer()
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]["message"]
    assert process.memory_info().rss - before < 16 * MIB


def test_a_body_shorter_than_announced_is_a_client_that_went(whole: Server, client: Connect) -> None:
    gone = client(whole)
    gone.send(TRANSCRIBE + b"X-Request-Id: went\r\nContent-Length: 500\r\n\r\nabc")
    gone.end()
    assert gone.rest() == b""
    wait_for(lambda: '"request": "went"' in whole.log.read_text(), 10)
    (line,) = [json.loads(each) for each in whole.log.read_text().splitlines() if '"request": "went"' in each]
    assert line["status"] == 499


def test_a_file_over_the_limit_is_a_413_that_is_seen(start_server: StartServer) -> None:
    server = start_server(backend="fake", model="{}", max_upload_mb=1)
    for body in (bytes(20_000_000), iter([bytes(100_000)] * 200)):
        response = httpx.post(
            f"{server.url}/v1/audio/transcriptions", content=body, headers={"Content-Type": "audio/wav"}, timeout=30
        )
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "upload_too_large"


def test_who_is_gone_before_its_refusal_is_no_error_of_ours(start_server: StartServer) -> None:
    server = start_server(backend="fake", model="{}", max_upload_mb=1)
    address = httpx.URL(server.url)
    for _ in range(200):
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(TRANSCRIBE + b"Content-Length: 90000000\r\n\r\n" + bytes(9000))
            connection.recv(1)  # the rest stays unread: closing resets
    assert "unexpected" not in server.log.read_text()


def test_who_sends_next_to_nothing_takes_no_place_in_the_queue(start_server: StartServer, client: Connect) -> None:
    server = start_server(backend="fake", model="{}", queue_jobs=1)
    slow = [client(server) for _ in range(3)]
    for each in slow:
        each.send(TRANSCRIBE + b"Content-Length: 50000\r\n\r\n", *[b"x"] * 3, every=0.02)
    assert server.transcribe(clips("en000")[0].path).status_code == 200
    slow[0].send(bytes(10_000))
    wait_for(lambda: "whisperd_queue_jobs 1.0" in httpx.get(f"{server.url}/metrics").text, 10)
    refused = server.transcribe(clips("en000")[0].path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")


def test_an_upload_under_way_is_told_when_the_server_goes_down(start_server: StartServer, client: Connect) -> None:
    server = start_server(backend="fake", model="{}", drain_s=1)
    slow, idle, partial = client(server), client(server), client(server)
    slow.send(TRANSCRIBE + b"Content-Length: 50000\r\n\r\n" + bytes(10_000))
    idle.send(GET)
    assert idle.answer().status_code == 200
    partial.send(GET[:10])
    wait_for(lambda: "whisperd_queue_jobs 1.0" in httpx.get(f"{server.url}/metrics").text, 10)
    server.process.terminate()
    assert_refused(slow.answer(), 503, "shutting_down")
    assert idle.rest() == partial.rest() == b""
    assert server.process.wait(10) == 0
    assert "timeout graceful shutdown exceeded" not in server.log.read_text()


def test_five_hundred_posts_at_once_are_all_answered(start_server: StartServer) -> None:
    server = start_server(backend="fake", model="{}", queue_jobs=8)
    audio = clips("en000")[0].path.read_bytes()

    async def post(http: httpx.AsyncClient, statuses: list[int]) -> None:
        statuses.append((await http.post("/v1/audio/transcriptions", files={"file": audio})).status_code)

    async def all_of_them() -> list[int]:
        statuses: list[int] = []
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(500):
                tasks.start_soon(post, http, statuses)
        return statuses

    statuses = anyio.run(all_of_them)
    assert len(statuses) == 500
    assert set(statuses) == {200, 429}
