"""The id of a request: in its answer, on its lines in the log, and nothing else of it there."""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import log
from app.api.app import create_app
from app.api.request_id import RequestIdMiddleware
from app.settings import load_settings
from tests.conftest import Server, StartServer, clips, script_of, wait_for

CLIP, OTHER_CLIP = clips("en00")[:2]
KEY = "correct horse"
MADE = re.compile(r"req_[0-9a-f]{24}")
LinesLogged = Callable[[], list[dict[str, Any]]]
TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"


@pytest.fixture(scope="module")
def served(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes a while for each step, wants a key, and logs all that it can."""
    script = script_of(tmp_path_factory.mktemp("fake"), seconds_per_step=0.6)
    server = start_server(
        backend="fake",
        model=script,
        log_format="json",
        log_level="debug",
        max_upload_mb=1,
        env={"WHISPERD_API_KEY": KEY},
    )
    yield server
    server.stop()


def ask(server: Server, method: str, path: str, identity: str | None = None, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}", **options.pop("headers", {})}
    if identity is not None:
        headers["X-Request-Id"] = identity
    return httpx.request(method, f"{server.url}{path}", headers=headers, timeout=options.pop("timeout", 30), **options)


def work(server: Server, identity: str, path: str = TRANSCRIPTIONS, audio: Path = CLIP.path, **options: Any):
    """Each is prompted with its id, so that none is answered with what was done for another."""
    files, data = {"file": audio.read_bytes()}, {"prompt": identity, **options.pop("data", {})}
    return ask(server, "POST", path, identity, files=files, data=data, **options)


def lines(server: Server, identity: str) -> list[dict[str, Any]]:
    logged = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in logged if line.get("request") == identity]


def answered(server: Server, identity: str) -> dict[str, Any]:
    """The one event that says how the request was answered; it comes a moment after the answer."""
    wait_for(lambda: any(line["event"] == "answered" for line in lines(server, identity)), 10, server.log)
    (line,) = [line for line in lines(server, identity) if line["event"] == "answered"]
    return line


FILE = {"file": CLIP.path.read_bytes()}
PREFLIGHT = {"Origin": "app://obsidian.md", "Access-Control-Request-Method": "POST"}
ANSWERS: dict[str, tuple[str, str, dict[str, Any], int, str, str]] = {
    "health": ("GET", "/health", {}, 200, "/health", "debug"),
    "work": ("POST", TRANSCRIPTIONS, {"files": FILE, "data": {"prompt": "work"}}, 200, TRANSCRIPTIONS, "info"),
    "pasted-path": ("POST", "/audio/transcriptions/", {}, 400, TRANSCRIPTIONS, "info"),
    "events": ("POST", TRANSCRIPTIONS, {"files": FILE, "data": {"stream": "true"}}, 200, TRANSCRIPTIONS, "info"),
    "no-file": ("POST", TRANSCRIPTIONS, {"data": {"model": "whisper-1"}}, 400, TRANSCRIPTIONS, "info"),
    "no-key": ("POST", TRANSCRIPTIONS, {"headers": {"Authorization": ""}}, 401, "-", "info"),
    "no-model": ("GET", "/v1/models/none", {}, 404, "/v1/models/{model:path}", "debug"),
    "nowhere": ("GET", "/v1/nowhere", {}, 404, "-", "debug"),
    "not-allowed": ("PUT", TRANSCRIPTIONS, {}, 405, TRANSCRIPTIONS, "info"),
    "too-large": ("POST", TRANSCRIPTIONS, {"files": {"file": bytes(3 * 2**20)}}, 413, TRANSCRIPTIONS, "info"),
    "preflight": ("OPTIONS", TRANSCRIPTIONS, {"headers": PREFLIGHT}, 200, "-", "debug"),
    "refused-preflight": ("OPTIONS", "/x", {"headers": {**PREFLIGHT, "Origin": "http://x.example"}}, 400, "-", "debug"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_carries_the_clients_id_once_and_is_logged_once(served: Server, name: str) -> None:
    method, path, options, status, route, level = ANSWERS[name]
    response = ask(served, method, path, f"an.answer_{name}", **options)
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == [f"an.answer_{name}"]
    line = answered(served, f"an.answer_{name}")
    assert {key: line[key] for key in ("level", "method", "route", "status")} == {
        "level": level,
        "method": method,
        "route": route,
        "status": status,
    }
    assert 0 <= line["seconds"] < 20


def test_a_request_without_an_id_gets_one_of_its_own(served: Server) -> None:
    made = [ask(served, "GET", "/health").headers.get_list("x-request-id") for _ in range(2)]
    assert all(len(each) == 1 and MADE.fullmatch(each[0]) for each in made)
    assert made[0] != made[1]
    assert answered(served, made[0][0])["status"] == 200


@pytest.mark.parametrize("identity", ["a" * 64, "AZaz09._-", "."])
def test_a_well_formed_id_is_kept(served: Server, identity: str) -> None:
    assert ask(served, "GET", "/health", identity).headers["x-request-id"] == identity


@pytest.mark.parametrize(
    "identity",
    [b"", b"a" * 65, b"two words", b"a/b", b"status=500", b"na\xefve", "naïve".encode(), b"<script>", b'a"b'],
)
def test_any_other_id_is_replaced_and_not_logged(served: Server, identity: bytes) -> None:
    """By http.client, which sends what it is given."""
    before = served.log.stat().st_size
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=10)
    connection.putrequest("GET", "/health")
    connection.putheader("X-Request-Id", identity)
    connection.endheaders()
    response = connection.getresponse()
    (made,) = response.headers.get_all("X-Request-Id")
    connection.close()
    assert MADE.fullmatch(made)
    assert answered(served, made)["status"] == 200
    logged = served.log.read_bytes()[before:]
    assert not identity or identity not in logged
    assert b"\\u00" not in logged


def test_all_lines_of_a_request_carry_its_id(served: Server) -> None:
    work(served, "all-lines", data={"no_such_field": "1"})
    answered(served, "all-lines")
    events = [line["event"] for line in lines(served, "all-lines")]
    assert {"fields ignored", "job ended"} < set(events)
    assert events[-1] == "answered"


def test_requests_at_the_same_time_keep_their_ids_apart(served: Server) -> None:
    """Told apart by what they ask for: the path, and how long the recording is."""
    asked = {
        "one": (TRANSCRIPTIONS, CLIP),
        "two": (TRANSLATIONS, OTHER_CLIP),
        "three": (TRANSLATIONS, CLIP),
        "four": (TRANSCRIPTIONS, OTHER_CLIP),
    }
    assert CLIP.duration != pytest.approx(OTHER_CLIP.duration, abs=0.1)
    responses: dict[str, httpx.Response] = {}
    threads = []
    for identity, (path, clip) in asked.items():

        def run(identity: str = identity, path: str = path, audio: Path = clip.path) -> None:
            responses[identity] = work(served, identity, path, audio)

        threads.append(threading.Thread(target=run))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for identity, (path, clip) in asked.items():
        assert responses[identity].status_code == 200
        assert responses[identity].headers["x-request-id"] == identity
        assert answered(served, identity)["route"] == path
        (job,) = [line for line in lines(served, identity) if line["event"] == "job ended"]
        assert job["audio_s"] == pytest.approx(clip.duration, abs=0.05)
    took = [answered(served, identity)["seconds"] for identity in asked]
    assert max(took) > 1.2, "they did not wait for each other, so they were not there at the same time"


def test_requests_on_one_connection_have_ids_of_their_own(served: Server) -> None:
    with httpx.Client(base_url=served.url) as client:
        client.post(TRANSCRIPTIONS, headers={"X-Request-Id": "first"}, content=bytes(2**19))
        second = client.get("/health").headers["x-request-id"]
    assert MADE.fullmatch(second)
    assert answered(served, second)["route"] == "/health"


def test_a_stream_is_logged_at_its_end(served: Server) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "stream"}
    data = {"stream": "true", "prompt": "stream"}
    with httpx.stream("POST", f"{served.url}{TRANSCRIPTIONS}", headers=headers, files=FILE, data=data) as response:
        rest = response.iter_lines()
        assert next(rest).startswith(":")
        assert response.headers["x-request-id"] == "stream"
        assert not any(line["event"] == "answered" for line in lines(served, "stream"))
        assert list(rest)
    assert answered(served, "stream")["seconds"] >= 0.6


def test_a_client_that_hung_up_before_its_answer_is_a_499(served: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        work(served, "gone", timeout=httpx.Timeout(10, read=0.2))
    assert answered(served, "gone")["status"] == 499
    assert answered(served, "gone")["level"] == "info"


def test_nothing_else_of_a_request_is_in_the_log(served: Server) -> None:
    """Last in this file, of all that the server was asked."""
    secret = {"X-Secret": "sesame-header", "User-Agent": "sesame-agent", "Referer": "http://sesame.example"}
    paths = [
        "/sesame?sesame=1",
        "/v1/models/sesame",
        "/v1/v1/models/sesame/?sesame",
        "/v1/audio/transcriptions?a=sesame",
    ]
    for number, path in enumerate(paths):
        ask(served, "GET", path, f"quiet-{number}", headers=secret)
        assert answered(served, f"quiet-{number}")["method"] == "GET"
    ask(served, "SESAME", "/health", "odd-method")
    assert answered(served, "odd-method")["method"] == "-"
    logged = served.log.read_text()
    assert "sesame" not in logged.lower()
    assert KEY not in logged
    assert "/v1/nowhere" not in logged


# In this process: what a healthy server does not do.


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start_logging(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], LinesLogged]]:
    """To be called in the test itself, since pytest handles logging anew for each of its phases; gives a function that
    gives what was logged since.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def start() -> LinesLogged:
        log.set_up("info", "json")
        return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    yield start
    root.handlers[:], root.level = before
    logging.getLogger("uvicorn.error").filters.clear()


def failing_app() -> FastAPI:
    app = create_app(load_settings(backend="fake", model="micro"))

    @app.get("/fails/{name}")
    async def fail(name: str) -> None:
        logging.getLogger("uvicorn.error").warning("about to fail")
        raise ValueError(name)

    @app.get("/names-itself")
    async def name_itself() -> Response:
        return Response(headers={"X-Request-Id": "another"})

    return app


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


@pytest.mark.anyio
async def test_an_unexpected_error_carries_the_id_too(start_logging: Callable[[], LinesLogged]) -> None:
    logged = start_logging()
    async with client_of(failing_app()) as client:
        response = await client.get("/fails/sesame", headers={"X-Request-Id": "failing"})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert response.headers.get_list("x-request-id") == ["failing"]
    events = logged()
    assert [line["event"] for line in events] == ["about to fail", "unexpected error", "answered"]
    assert {line["request"] for line in events} == {"failing"}
    assert {key: events[-1][key] for key in ("level", "method", "route", "status")} == {
        "level": "info",
        "method": "GET",
        "route": "/fails/{name}",
        "status": 500,
    }
    assert "sesame" not in json.dumps(events)
    assert log.request_id.get() == "", "what comes after the request is not of it"


@pytest.mark.anyio
async def test_the_id_stands_once_whatever_the_answer_brings() -> None:
    async with client_of(failing_app()) as client:
        response = await client.get("/names-itself", headers={"X-Request-Id": "mine"})
    assert response.headers.get_list("x-request-id") == ["mine"]


@pytest.mark.anyio
async def test_a_request_that_is_cut_off_is_logged_as_a_500(start_logging: Callable[[], LinesLogged]) -> None:
    """As at the end of a shutdown that took too long."""

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    logged = start_logging()
    with anyio.move_on_after(0.01):
        async with client_of(RequestIdMiddleware(hang)) as client:
            await client.post("/", headers={"X-Request-Id": "cut"})
    (line,) = logged()
    assert (line["event"], line["status"], line["request"]) == ("answered", 500, "cut")


@pytest.mark.anyio
async def test_an_app_that_says_nothing_lost_its_client(start_logging: Callable[[], LinesLogged]) -> None:
    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    logged = start_logging()
    await RequestIdMiddleware(leave)({"type": "http", "method": "POST", "headers": []}, no_receive, no_send)
    (line,) = logged()
    assert (line["status"], line["level"], line["route"]) == (499, "info", "-")
    assert MADE.fullmatch(line["request"])


async def no_receive() -> Message:
    raise AssertionError("nothing is to be read")


async def no_send(message: Message) -> None:
    raise AssertionError("nothing is to be sent")
