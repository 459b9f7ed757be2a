"""Clients that lose patience, hang up, or ask twice: the same work is done once, over a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import Recording, Server, StartServer, clips, join_windows, script_of, wait_for
from tests.steps import Step, steps_of, text_of, windows_of

CLIP = clips("en000")[0]
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@dataclass
class Watched:
    """A server, and the steps that its device did since the test began."""

    server: Server
    log: Path
    before: int = 0

    @property
    def steps(self) -> list[Step]:
        return steps_of(self.log)[self.before :]

    @property
    def folders(self) -> list[Path]:
        """The uploads' folders in the spool."""
        return list((self.server.log.parent / "state" / "spool").glob("server-*/job-*"))

    def figure(self, name: str) -> float:
        lines = httpx.get(f"{self.server.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def wait_for_steps(self, number: int) -> None:
        """Wait until so many steps have ended."""
        wait_for(lambda: sum(step.ended < float("inf") for step in self.steps) >= number, 20, self.server.log)

    def wait_until_idle(self) -> None:
        wait_for(lambda: self.figure("whisperd_queue_jobs ") == 0, 20, self.server.log)


@pytest.fixture(scope="module")
def pauses(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six sentences with long pauses: six windows."""
    return join_windows(clips("en")[:6], tmp_path_factory.mktemp("pauses") / "pauses.wav")


@pytest.fixture(scope="module")
def patient(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("patient")
    script = script_of(folder, seconds_per_step=0.25, log=str(folder / "steps"))
    return Watched(start_server(backend="fake", model=script, max_batch=1, retry_keep_s=60), folder / "steps")


@pytest.fixture
def watched(patient: Watched) -> Watched:
    """The server that is shared by tests which each send a prompt of their own, so that none meets another's work."""
    patient.wait_until_idle()
    return Watched(patient.server, patient.log, len(steps_of(patient.log)))


def streamed(server: Server, path: Path, **fields: str) -> tuple[list[str], dict[str, Any]]:
    """A stream's deltas, and its last event."""
    response = server.transcribe(path, stream="true", **fields)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    *deltas, done = [json.loads(event) for event in events]
    return [delta["delta"] for delta in deltas], done


@contextlib.contextmanager
def sent(server: Server, path: Path, **fields: str) -> Iterator[socket.socket]:
    """A connection on which a whole request was sent, and whose answer nobody waits for: it hangs up in the end."""
    with path.open("rb") as file:
        request = httpx.Request("POST", f"{server.url}{TRANSCRIPTIONS}", files={"file": file}, data=fields)
        body = request.read()
    head = [f"POST {TRANSCRIPTIONS} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with socket.create_connection((request.url.host, request.url.port or 80)) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        yield connection


# --- the same work, asked for again ---


def test_an_sdk_that_loses_patience_gets_its_text_in_the_end_and_no_window_is_done_twice(
    watched: Watched, pauses: Recording
) -> None:
    """Six steps of 0.25 s take longer than its time-out of 1.2 s."""
    uploads = []

    def count(request: httpx.Request) -> None:
        uploads.append(request.headers["x-stainless-retry-count"])

    with (
        httpx.Client(event_hooks={"request": [count]}) as http,
        openai.OpenAI(
            base_url=f"{watched.server.url}/v1", api_key="none", timeout=1.2, max_retries=2, http_client=http
        ) as client,
    ):
        answer = client.audio.transcriptions.create(model="whisper-1", file=pauses.path, prompt="impatient")
    assert len(uploads) > 1, "it lost its patience"
    assert uploads == ["0", "1", "2"][: len(uploads)]
    assert len(watched.steps) == 6
    assert answer.text == text_of(watched.steps)
    assert watched.folders == []


def test_two_who_send_the_same_at_once_share_one_inference(watched: Watched, pauses: Recording) -> None:
    joined = watched.figure("whisperd_jobs_joined_total")
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(watched.server.transcribe, pauses.path, prompt="twice") for _ in range(2)]
    assert [future.result().json()["text"] for future in asked] == [text_of(watched.steps)] * 2
    assert len(watched.steps) == 6
    assert watched.figure("whisperd_jobs_joined_total") == joined + 1


def test_callers_of_one_job_each_get_their_own_format(watched: Watched, pauses: Recording) -> None:
    formats = ["json", "text", "srt", "vtt", "verbose_json"]
    with ThreadPoolExecutor() as pool:
        asked = {
            name: pool.submit(watched.server.transcribe, pauses.path, prompt="formats", response_format=name)
            for name in formats
        }
        watched.wait_for_steps(1)
        stream = pool.submit(streamed, watched.server, pauses.path, prompt="formats")
    answers = {name: future.result() for name, future in asked.items()}
    text, (deltas, done) = text_of(watched.steps), stream.result()
    assert len(watched.steps) == 6
    assert answers["json"].json()["text"] == answers["text"].text.strip() == text
    assert [segment["text"].strip() for segment in answers["verbose_json"].json()["segments"]] == text.split()
    assert answers["vtt"].text.startswith("WEBVTT")
    assert [answers[name].text.count("-->") for name in ("srt", "vtt")] == [6, 6]
    assert len(deltas) > 1, "it came while the job ran"
    assert "".join(deltas) == done["text"] == text


def test_the_same_again_is_answered_without_the_device(watched: Watched, pauses: Recording) -> None:
    first = watched.server.transcribe(pauses.path, prompt="again")
    watched.wait_until_idle()
    assert watched.folders == [], "only the text is kept"
    assert watched.server.transcribe(pauses.path, prompt="again").json() == first.json()
    assert "".join(streamed(watched.server, pauses.path, prompt="again")[0]) == text_of(watched.steps)
    assert len(watched.steps) == 6


def test_after_its_time_the_same_is_done_anew(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, log=str(tmp_path / "steps")), retry_keep_s=1)
    watched = Watched(server, tmp_path / "steps")
    texts = [server.transcribe(CLIP.path).json()["text"] for _ in range(2)]
    assert len(watched.steps) == 1

    def done_anew() -> bool:
        texts.append(server.transcribe(CLIP.path).json()["text"])
        return len(watched.steps) == 2

    wait_for(done_anew, 10, server.log)
    assert len(set(texts)) == 1
    server.stop()


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({}, {"language": "de"}),
        ({}, {"temperature": "0.4"}),
        ({}, {"beam_size": "2"}),
        ({}, {"include[]": "logprobs"}),
        ({}, {"prompt": "options of another"}),
        ({"response_format": "verbose_json"}, {"timestamp_granularities[]": "word"}),
    ],
    ids=["language", "temperature", "beams", "log-probabilities", "prompt", "words"],
)
def test_work_with_other_options_is_done_for_itself(
    watched: Watched, fields: dict[str, str], other: dict[str, str], request: pytest.FixtureRequest
) -> None:
    mine = {"prompt": f"options {request.node.callspec.id}", **fields}
    theirs = {**mine, **other}
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(watched.server.transcribe, CLIP.path, **each) for each in (mine, theirs)]
    bodies = [future.result().json() for future in asked]
    assert len(watched.steps) == 2
    assert ["words" in body for body in bodies] == [False, other == {"timestamp_granularities[]": "word"}]
    assert ["logprobs" in body for body in bodies] == [False, other == {"include[]": "logprobs"}]
    again = [watched.server.transcribe(CLIP.path, **each).json() for each in (mine, theirs)]
    assert again == bodies
    assert len(watched.steps) == 2, "each was kept for itself"


def test_a_translation_is_no_transcription(watched: Watched) -> None:
    watched.server.transcribe(CLIP.path, prompt="translate")
    with CLIP.path.open("rb") as file:
        answer = httpx.post(
            f"{watched.server.url}/v1/audio/translations", files={"file": file}, data={"prompt": "translate"}
        )
    assert answer.status_code == 200
    assert len(watched.steps) == 2


def test_another_recording_with_the_same_options_is_done_for_itself(watched: Watched, tmp_path: Path) -> None:
    longer = tmp_path / "longer.wav"
    longer.write_bytes(CLIP.path.read_bytes() + b"\0")
    for path in (CLIP.path, longer):
        assert watched.server.transcribe(path, prompt="recordings").status_code == 200
    assert len(watched.steps) == 2


# --- clients that hang up ---


def test_a_job_whose_client_hung_up_stops_and_goes_on_for_the_next_who_asks(
    watched: Watched, pauses: Recording
) -> None:
    left = watched.figure('whisperd_jobs_joined_total{met="left"}')
    with sent(watched.server, pauses.path, prompt="hang up"):
        watched.wait_for_steps(1)
    watched.wait_until_idle()
    time.sleep(0.5)  # a step that had begun may end
    steps = windows_of(watched.steps)
    time.sleep(0.5)
    assert windows_of(watched.steps) == steps, "the device works on for nobody"
    assert len(steps) < 6
    answer = watched.server.transcribe(pauses.path, prompt="hang up")
    assert answer.json()["text"] == text_of(watched.steps)
    assert len(watched.steps) == 6
    assert watched.figure('whisperd_jobs_joined_total{met="left"}') == left + 1


def test_one_of_two_who_hangs_up_takes_nothing_from_the_other(watched: Watched, pauses: Recording) -> None:
    with ThreadPoolExecutor() as pool:
        with sent(watched.server, pauses.path, prompt="one of two"):
            watched.wait_for_steps(1)
            other = pool.submit(streamed, watched.server, pauses.path, prompt="one of two")
            watched.wait_for_steps(2)
        deltas, _ = other.result()
    assert "".join(deltas) == text_of(watched.steps)
    assert len(watched.steps) == 6


def test_of_a_job_that_nobody_comes_back_to_nothing_is_left(
    start_server: StartServer, tmp_path: Path, pauses: Recording
) -> None:
    script = script_of(tmp_path, seconds_per_step=0.2, log=str(tmp_path / "steps"))
    server = start_server(backend="fake", model=script, max_batch=1, retry_keep_s=2)
    watched = Watched(server, tmp_path / "steps")
    with sent(server, pauses.path):
        watched.wait_for_steps(1)
    watched.wait_until_idle()
    assert len(watched.folders) == 1, "for a while it waits for a retry"
    wait_for(lambda: watched.folders == [], 10, server.log)
    assert watched.figure('whisperd_jobs_total{outcome="cancelled"}') == 1
    assert server.transcribe(pauses.path).status_code == 200
    assert windows_of(watched.steps).count(0) == 2, "all of it was done again"
    server.stop()


# --- who may ---


def test_a_wrong_key_gets_nothing_of_what_a_right_one_asked_for(start_server: StartServer, tmp_path: Path) -> None:
    key = "a key of some length"
    server = start_server(
        backend="fake",
        model=script_of(tmp_path, log=str(tmp_path / "steps")),
        retry_keep_s=60,
        env={"WHISPERD_API_KEY": key},
    )

    def ask(key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        with CLIP.path.open("rb") as file:
            return httpx.post(f"{server.url}{TRANSCRIPTIONS}", files={"file": file}, headers=headers)

    assert ask(key).json()["text"] == "w0"
    for wrong in ("a key of some other length", key.upper()):
        answer = ask(wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "w0" not in answer.text
    assert ask(key).json()["text"] == "w0"
    assert len(steps_of(tmp_path / "steps")) == 1
    server.stop()


def test_a_retry_joins_its_job_in_a_full_queue_and_others_are_refused_unread(
    start_server: StartServer, tmp_path: Path, pauses: Recording
) -> None:
    script = script_of(tmp_path, seconds_per_step=0.3, log=str(tmp_path / "steps"))
    server = start_server(backend="fake", model=script, max_batch=1, retry_keep_s=60, queue_jobs=1)
    watched = Watched(server, tmp_path / "steps")
    host, port = server.url.removeprefix("http://").split(":")
    head = [f"POST {TRANSCRIPTIONS} HTTP/1.1", "Host: x", "Content-Type: audio/wav", "Content-Length: 1000000", "", ""]

    def retry() -> httpx.Response:
        with pauses.path.open("rb") as file:
            headers = {"x-stainless-retry-count": "1"}
            return httpx.post(f"{server.url}{TRANSCRIPTIONS}", files={"file": file}, headers=headers, timeout=60)

    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(server.transcribe, pauses.path)]
        watched.wait_for_steps(1)
        for joined in (1, 2):
            asked.append(pool.submit(retry))
            wait_for(lambda: watched.figure("whisperd_jobs_joined_total") == joined, 10, server.log)  # noqa: B023
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall("\r\n".join(head).encode() + bytes(8192))  # and no more than the body's first part
            answer = connection.recv(65_536).decode()
    status, *headers = answer.partition("\r\n\r\n")[0].lower().splitlines()
    assert status.startswith("http/1.1 429")
    (seconds,) = [line.partition(":")[2] for line in headers if line.startswith("retry-after:")]
    assert 1 <= int(seconds) <= 120
    assert [future.result().json().get("text") for future in asked] == [text_of(watched.steps)] * 3
    assert len(watched.steps) == 6
    server.stop()
