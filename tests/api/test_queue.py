"""The queue seen and shortened from outside, and the times that answers carry."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.api.test_jobs import accepted, ask, over, send
from tests.conftest import Recording, Server, StartServer, clips, join_windows, script_of, wait_for

CLIP = clips("en000")[0]
Entries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six windows, a sentence each."""
    return join_windows(clips("en")[:6], tmp_path_factory.mktemp("six") / "six.wav")


@pytest.fixture(scope="module")
def fake(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A window a step, 0.3 s each."""
    script = script_of(tmp_path_factory.mktemp("fake"), seconds_per_step=0.3)
    server = start_server(backend="fake", model=script, max_batch=1)
    yield server
    assert server.stop() == 0


@pytest.fixture
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Calls something in a thread; a future of what it gives."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def queue(server: Server) -> Entries:
    body = httpx.get(f"{server.url}/v1/queue").raise_for_status().json()
    assert body["object"] == "list"
    entries: Entries = body["data"]
    return entries


def until(server: Server, condition: Callable[[Entries], bool]) -> Entries:
    """The queue's entries, once they are as they should be."""
    seen: Entries = []

    def holds() -> bool:
        seen[:] = queue(server)
        return condition(seen)

    wait_for(holds, 30, server.log)
    return seen


def entry(server: Server, request_id: str) -> dict[str, Any]:
    """The entry of the request with this id, once a window of it is done."""
    there = until(server, lambda seen: any(e["request_id"] == request_id and e["done_s"] > 0 for e in seen))
    return next(each for each in there if each["request_id"] == request_id)


def ask_for(server: Server, path: Path, request_id: str, **fields: str) -> httpx.Response:
    with path.open("rb") as file:
        return httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": file},
            data=fields,
            headers={"X-Request-Id": request_id},
            timeout=60,
        )


def cancel(server: Server, entry_id: str) -> httpx.Response:
    return httpx.delete(f"{server.url}/v1/queue/{entry_id}")


def test_the_queue_shows_who_is_there_how_far_and_for_how_long(
    start_server: StartServer, tmp_path: Path, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.3), max_batch=1)
    assert queue(server) == []
    before = int(time.time())
    first = aside(ask_for, server, CLIP.path, "first")
    (only,) = until(server, bool)
    assert only["estimated_s"] is None, "nothing has been measured yet"
    assert first.result().status_code == 200

    running = aside(ask_for, server, six.path, "long")
    shown = entry(server, "long")
    assert before <= shown.pop("created_at") <= time.time()
    assert re.fullmatch(r"[0-9a-f]{16}", shown.pop("id"))
    assert 0 < shown.pop("estimated_s") < 60
    assert 0 < shown.pop("done_s") < six.duration
    assert 0 < shown.pop("progress") < 1
    assert shown == {
        "object": "queue.entry",
        "request_id": "long",
        "status": "running",
        "position": 1,
        "audio_s": pytest.approx(six.duration, abs=0.1),
        "model": "script.json",
        "priority": "normal",
        "callers": 1,
    }
    job_id = accepted(server, six.path, x_priority="background", headers={"X-Request-Id": "behind"})
    ahead, behind = until(server, lambda seen: len(seen) == 2 and seen[1]["audio_s"] > 0)
    assert (ahead["request_id"], ahead["position"]) == ("long", 1)
    assert (behind["request_id"], behind["position"], behind["id"]) == ("behind", 2, job_id)
    assert (behind["status"], behind["priority"], behind["progress"]) == ("queued", "background", 0)
    assert behind["estimated_s"] > ahead["estimated_s"]
    assert running.result().status_code == 200
    assert over(server, job_id)["status"] == "completed"
    assert queue(server) == []
    assert server.stop() == 0


def test_what_the_device_is_at_the_end_of_stands_before_what_waits(
    start_server: StartServer, tmp_path: Path, aside: Callable[..., Future[Any]]
) -> None:
    """However short that is."""
    long, short = clips("en000")[0], clips("en004")[0]
    assert short.duration < long.duration
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=1), max_batch=1)
    running = aside(ask_for, server, long.path, "running")
    until(server, lambda seen: [each["status"] for each in seen] == ["running"])
    waiting = aside(ask_for, server, short.path, "waiting")
    there = until(server, lambda seen: len(seen) == 2 and min(each["audio_s"] for each in seen) > 0)
    assert [(each["request_id"], each["position"]) for each in there] == [("running", 1), ("waiting", 2)]
    assert running.result().status_code == waiting.result().status_code == 200
    assert server.stop() == 0


def test_a_cancelled_request_is_answered_410_and_the_next_begins(
    fake: Server, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    cancelled = aside(ask_for, fake, six.path, "cancelled")
    job_id = entry(fake, "cancelled")["id"]
    following = aside(ask_for, fake, six.path, "following", prompt="other work")
    until(fake, lambda seen: len(seen) == 2)
    response = cancel(fake, job_id)
    assert (response.status_code, response.json()) == (200, {"id": job_id, "object": "queue.entry", "deleted": True})
    answer = cancelled.result(timeout=10)
    assert answer.status_code == 410
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("cancelled", "invalid_request_error")
    assert [each["request_id"] for each in queue(fake)] == ["following"]
    assert following.result().status_code == 200


def test_a_request_is_cancelled_while_it_waits(fake: Server, six: Recording, aside: Callable[..., Future[Any]]) -> None:
    running = aside(ask_for, fake, six.path, "running")
    entry(fake, "running")
    waiting = aside(ask_for, fake, six.path, "waiting", prompt="other work")
    there = until(fake, lambda seen: len(seen) == 2)
    (job_id,) = [each["id"] for each in there if each["request_id"] == "waiting"]
    assert cancel(fake, job_id).status_code == 200
    assert waiting.result(timeout=10).status_code == 410
    assert running.result().status_code == 200


def test_openais_client_does_not_send_a_cancelled_request_again(
    fake: Server, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    """It would send what is answered 408, 409, 429 or 5xx twice more."""
    client = openai.OpenAI(base_url=f"{fake.url}/v1", api_key="none", max_retries=2)
    before = fake.log.read_text().count("status=410")
    with client, six.path.open("rb") as file:
        call = aside(
            client.audio.transcriptions.create, file=file, model="whisper-1", extra_headers={"X-Request-Id": "sdk"}
        )
        cancel(fake, entry(fake, "sdk")["id"])
        with pytest.raises(openai.APIStatusError) as caught:
            call.result(timeout=10)
    assert (caught.value.status_code, caught.value.code) == (410, "cancelled")
    # The answer is logged once it is sent, perhaps a moment after the client has it.
    wait_for(lambda: fake.log.read_text().count("status=410") > before, 10, fake.log)
    assert fake.log.read_text().count("status=410") == before + 1
    assert queue(fake) == []


def test_a_cancelled_stream_ends_in_an_error_event(
    fake: Server, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    stream = aside(ask_for, fake, six.path, "stream", stream="true")
    cancel(fake, entry(fake, "stream")["id"])
    answer = stream.result(timeout=10)
    assert answer.status_code == 200
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data:")]
    *deltas, last = events
    assert last["error"]["code"] == "cancelled"
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}


def test_requests_for_the_same_work_are_one_entry_and_cancelled_together(
    fake: Server, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    first = aside(ask_for, fake, six.path, "same")
    job_id = entry(fake, "same")["id"]
    second = aside(ask_for, fake, six.path, "also", response_format="srt")
    (only,) = until(fake, lambda seen: seen[0]["callers"] == 2)
    assert (only["id"], only["request_id"]) == (job_id, "same")
    cancel(fake, job_id)
    assert first.result(timeout=10).status_code == second.result(timeout=10).status_code == 410


def test_a_job_on_disk_that_is_cancelled_says_so(fake: Server, six: Recording) -> None:
    job_id = accepted(fake, six.path)
    until(fake, lambda seen: [each["id"] for each in seen] == [job_id])
    assert cancel(fake, job_id).status_code == 200
    body = over(fake, job_id)
    assert (body["status"], body["error"]) == ("cancelled", None)
    result = ask(fake, job_id, "/result")
    assert (result.status_code, result.json()["error"]["code"]) == (410, "cancelled")


@pytest.mark.parametrize("entry_id", ["0123456789abcdef", "a" * 5000, "%00"])
def test_an_entry_that_is_not_there_is_a_404(fake: Server, entry_id: str) -> None:
    response = cancel(fake, entry_id)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_what_is_over_cannot_be_cancelled(fake: Server) -> None:
    job_id = accepted(fake, CLIP.path)
    over(fake, job_id)
    assert cancel(fake, job_id).status_code == 404
    assert ask(fake, job_id).json()["status"] == "completed"


def test_queue_and_jobs_are_found_without_the_version_too(fake: Server, six: Recording) -> None:
    with six.path.open("rb") as file:
        response = httpx.post(
            f"{fake.url}/audio/transcriptions", files={"file": file}, headers={"Prefer": "respond-async"}
        )
    job_id = response.json()["id"]
    wait_for(lambda: [e["id"] for e in httpx.get(f"{fake.url}/queue").json()["data"]] == [job_id], 10, fake.log)
    assert httpx.get(f"{fake.url}/jobs/{job_id}/").json()["id"] == job_id
    assert job_id in [job["id"] for job in httpx.get(f"{fake.url}/jobs").json()["data"]]
    assert httpx.delete(f"{fake.url}/queue/{job_id}").status_code == 200
    assert httpx.get(f"{fake.url}/jobs/{job_id}/result").status_code == 410
    assert httpx.delete(f"{fake.url}/jobs/{job_id}").status_code == 200
    assert httpx.get(f"{fake.url}/jobs/{job_id}").status_code == 404


# --- Server-Timing ---


def times(answer: httpx.Response) -> dict[str, float]:
    """The header's seconds."""
    matches = re.findall(r"(\w+);dur=([\d.]+)(?:, |$)", answer.headers["server-timing"])
    assert ", ".join(f"{name};dur={duration}" for name, duration in matches) == answer.headers["server-timing"]
    return {name: float(duration) / 1000 for name, duration in matches}


def test_answers_say_how_long_they_waited_were_decoded_and_transcribed(
    fake: Server, six: Recording, aside: Callable[..., Future[Any]]
) -> None:
    running = aside(ask_for, fake, six.path, "running")
    entry(fake, "running")
    started = time.monotonic()
    waited = ask_for(fake, CLIP.path, "waited", response_format="text")
    took = time.monotonic() - started
    long, short = times(running.result()), times(waited)
    assert long.keys() == short.keys() == {"queue", "decode", "inference"}
    assert 6 * 0.3 <= long["inference"] < 60
    assert 0.3 <= short["inference"] < took
    assert 0 < short["decode"] < took
    assert 0 < short["queue"] < took
    assert sum(short.values()) < took + 0.1


def test_only_whole_answers_carry_times(fake: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    assert "server-timing" in ask_for(fake, CLIP.path, "whole", response_format="vtt").headers
    assert "server-timing" not in ask_for(fake, CLIP.path, "streamed", stream="true").headers
    assert "server-timing" not in fake.transcribe(tmp_path / "letter.txt").headers
    assert "server-timing" not in send(fake, CLIP.path).headers
