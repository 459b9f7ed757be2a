"""``x_heartbeat``: white space before a JSON answer that takes long, as seen on the wire and by OpenAI's client.

A heartbeat comes every 5 s. So what takes long is asked for once, all at the same time, and looked at by several tests.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import Recording, Server, StartServer, clips, script_of, wait_for

CLIP = clips("en000")[0]
#: How long the one step takes: two heartbeats fit.
STEP_S = 11


@dataclass
class Seen:
    """An answer as it came: each piece of its body with its second."""

    status: int
    headers: dict[str, str]
    pieces: list[tuple[float, bytes]]

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


@contextlib.contextmanager
def asked(server: Server, query: str = "", **headers: str) -> Iterator[http.client.HTTPConnection]:
    """A connection on which the clip was sent."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    given = {name.replace("_", "-"): value for name, value in {"content_type": "audio/flac", **headers}.items()}
    with contextlib.closing(connection):
        connection.request("POST", f"/v1/audio/transcriptions{query}", CLIP.path.read_bytes(), given)
        yield connection


def watch(server: Server, query: str = "", **headers: str) -> Seen:
    """Send the clip, and note what comes and when."""
    started = time.monotonic()
    with asked(server, query, **headers) as connection:
        response = connection.getresponse()
        pieces = []
        while piece := response.read1():
            pieces.append((time.monotonic() - started, piece))
        return Seen(response.status, {name.lower(): value for name, value in response.getheaders()}, pieces)


def ask_with_sdk(server: Server) -> Any:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        CLIP.path.open("rb") as file,
    ):
        return client.audio.transcriptions.create(file=file, model="whisper-1", extra_body={"x_heartbeat": True})


@pytest.fixture(scope="module")
def slow(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """What is answered after a long step that ends well, badly, or never."""

    def serve(**script: Any) -> Server:
        return start_server(backend="fake", model=script_of(tmp_path_factory.mktemp("fake"), **script))

    good, bad = serve(seconds_per_step=STEP_S), serve(seconds_per_step=6, on_window={"0": "raise"})
    calls: dict[str, Callable[[], Any]] = {
        "field": lambda: watch(good, "?x_heartbeat=true"),
        "header": lambda: watch(good, x_heartbeat="true"),
        "verbose_json": lambda: watch(good, "?response_format=verbose_json", x_heartbeat="true"),
        "sdk": lambda: ask_with_sdk(good),
        "srt": lambda: watch(good, "?response_format=srt", x_heartbeat="true"),
        "text": lambda: watch(good, "?response_format=text", x_heartbeat="true"),
        "without": lambda: watch(good),
        "failed": lambda: watch(bad, x_heartbeat="true"),
        "failed srt": lambda: watch(bad, "?response_format=srt", x_heartbeat="true"),
    }
    with ThreadPoolExecutor(len(calls)) as pool:
        yield {name: pool.submit(call) for name, call in calls.items()}
    assert (good.stop(), bad.stop()) == (0, 0)


@pytest.fixture(scope="module")
def fake(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(backend="fake", model=script_of(tmp_path_factory.mktemp("fake")))
    yield server
    assert server.stop() == 0


# Those that need nothing of ``slow`` come first, but after one that starts it: they pass while it works.


def test_an_answer_that_comes_at_once_is_as_without_heartbeats(slow: dict[str, Future[Any]], fake: Server) -> None:
    assert not slow["field"].done()
    for query in ("", "?response_format=verbose_json"):
        patient, plain = watch(fake, query, x_heartbeat="true"), watch(fake, query)
        assert (patient.status, patient.body) == (plain.status, plain.body)
        assert patient.headers["content-type"] == plain.headers["content-type"]


def test_an_error_that_comes_at_once_has_its_own_status(fake: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    response = fake.transcribe(tmp_path / "letter.txt", x_heartbeat="true")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_audio")
    assert response.content == fake.transcribe(tmp_path / "letter.txt").content


def test_a_step_that_fails_at_once_is_a_500_that_is_not_sent_again(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, on_step={"1": "raise"}))
    response = server.transcribe(CLIP.path, x_heartbeat="true")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "inference_failed")
    assert response.headers["x-should-retry"] == "false"
    assert server.stop() == 0


def test_a_heartbeat_is_a_yes_or_a_no(fake: Server) -> None:
    response = fake.transcribe(CLIP.path, x_heartbeat="sometimes")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x_heartbeat")


def test_a_client_that_hangs_up_before_the_first_heartbeat_frees_the_device(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.5), max_batch=1)
    with pytest.raises(httpx.TimeoutException):
        server.transcribe(long_recording.path, timeout=1, x_heartbeat="true")
    wait_for(lambda: httpx.get(f"{server.url}/v1/queue").json()["data"] == [], 10, server.log)
    assert server.transcribe(CLIP.path).status_code == 200
    assert server.stop() == 0


def test_a_client_that_hangs_up_at_a_heartbeat_frees_the_device(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=60))
    with asked(server, x_heartbeat="true") as connection:
        assert connection.getresponse().read1(1) == b" "
        assert len(httpx.get(f"{server.url}/v1/queue").json()["data"]) == 1
    wait_for(lambda: httpx.get(f"{server.url}/v1/queue").json()["data"] == [], 10, server.log)
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["field", "header", "verbose_json"])
def test_white_space_comes_before_the_answer(slow: dict[str, Future[Any]], name: str) -> None:
    seen = slow[name].result()
    *heartbeats, (at, answer) = seen.pieces
    assert seen.status == 200
    assert {piece for _, piece in heartbeats} == {b" "}
    assert heartbeats[0][0] < at - 1, "it was not all sent in the end"
    assert seen.headers["content-type"] == "application/json"
    assert "content-length" not in seen.headers
    assert json.loads(seen.body) == json.loads(answer)
    assert json.loads(answer)["text"] == "w0"


def test_openais_client_reads_an_answer_behind_white_space(slow: dict[str, Future[Any]]) -> None:
    transcription = slow["sdk"].result()
    assert transcription.text == "w0"
    assert transcription.usage.type == "duration"


def test_without_it_nothing_comes_before_the_answer(slow: dict[str, Future[Any]]) -> None:
    seen = slow["without"].result()
    assert json.loads(seen.body)["text"] == "w0"
    assert seen.body.startswith(b"{")
    assert int(seen.headers["content-length"]) == len(seen.body)


@pytest.mark.parametrize(("name", "begins"), [("srt", b"1\n00:00:00"), ("text", b"w0")])
def test_formats_that_white_space_would_spoil_are_sent_whole(
    slow: dict[str, Future[Any]], name: str, begins: bytes
) -> None:
    seen = slow[name].result()
    assert seen.status == 200
    assert seen.body.startswith(begins)
    assert int(seen.headers["content-length"]) == len(seen.body)


def test_what_fails_after_white_space_is_an_error_body_with_status_200(slow: dict[str, Future[Any]]) -> None:
    seen, plain = slow["failed"].result(), slow["failed srt"].result()
    assert seen.status == 200
    assert seen.body.startswith(b" ")
    error = json.loads(seen.body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "inference_failed"
    assert plain.status == 500
    assert json.loads(plain.body)["error"] == error
