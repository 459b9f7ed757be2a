"""Backends that take over from one another under a real server: a fake one that fails, and faster-whisper."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.catalog import MICRO_FOLDER
from tests.api.test_jobs import accepted, ask, over
from tests.conftest import Recording, Server, StartServer, clips, join_windows, wait_for, word_error_rate
from tests.faults.test_workers import figure
from tests.steps import lines_of

CLIPS = clips("en")[:3]
KEY = "correct horse"

Fails = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Fails:
    """Make, or change, a folder that is the fake's script and micro in one."""

    def make(**given: Any) -> Path:
        folder = tmp_path / "micro"
        if not folder.exists():
            folder.mkdir()
            for file in MICRO_FOLDER.iterdir():
                (folder / file.name).symlink_to(file)
        (folder / "script").write_text(json.dumps(given))
        return folder

    return make


@pytest.fixture
def serve(start_server: StartServer):
    running: list[Server] = []

    def start(model: Path, **flags: Any) -> Server:
        flags = {"backend": "fake", "fallback": "faster-whisper", **flags}
        running.append(start_server(model=model, **flags))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def health(server: Server, **headers: str) -> dict[str, Any]:
    return httpx.get(f"{server.url}/health", headers=headers).json()


def done_by(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.headers.get("x-whisperd-backend", "")


def errors_in(response: httpx.Response, clip_text: str) -> float:
    return word_error_rate([clip_text], [response.json()["text"]])


@pytest.mark.parametrize("fault", ["unavailable", "raise", "kill", "hang"])
def test_where_the_first_cannot_start_the_next_does_the_jobs_and_all_say_so(serve, script: Fails, fault: str) -> None:
    server = serve(script(load=fault), ready=False, load_timeout_s=3 if fault == "hang" else 60)
    with ThreadPoolExecutor() as pool:  # they wait while the first is tried
        answers = list(pool.map(lambda clip: server.transcribe(clip.path, language="en"), CLIPS))
    assert [done_by(answer) for answer in answers] == [(200, "faster-whisper")] * 3
    assert [errors_in(answer, clip.text) for answer, clip in zip(answers, CLIPS, strict=True)] == [0, 0, 0]
    assert httpx.get(f"{server.url}/ready").json() == {"status": "ready"}
    body = health(server)
    assert (body["status"], body["state"], body["backend"], body["model"]) == ("ok", "ready", "faster-whisper", "micro")
    assert body["device"] == "cpu"
    assert body["precision"]
    states = [(each["name"], each["state"]) for each in body["backends"]]
    assert states == [("fake", "broken" if fault == "kill" else "failed"), ("faster-whisper", "ready")]
    assert body["backends"][0]["reason"]
    assert figure(server, 'whisperd_backend_switches_total{from="fake",to="faster-whisper"}') == 1
    assert figure(server, 'whisperd_backend_steps_total{backend="faster-whisper"}') == 3
    assert 'whisperd_backend_info{backend="faster-whisper",device="cpu"' in httpx.get(f"{server.url}/metrics").text
    assert len([line for line in server.log.read_text().splitlines() if "backend switched" in line]) == 1


def test_where_the_first_dies_at_every_step_no_waiting_request_is_lost(serve, script: Fails) -> None:
    server = serve(script(on_step={"1": "kill"}))
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda clip: server.transcribe(clip.path, language="en"), CLIPS))
    assert [done_by(answer) for answer in answers] == [(200, "faster-whisper")] * 3
    assert [errors_in(answer, clip.text) for answer, clip in zip(answers, CLIPS, strict=True)] == [0, 0, 0]


def test_what_the_first_has_transcribed_before_it_died_stays(serve, script: Fails, tmp_path: Path) -> None:
    recording: Recording = join_windows(CLIPS, tmp_path / "long.wav")
    log = tmp_path / "steps"
    server = serve(script(text=" plugh", on_step={"2": "kill"}, log=str(log)), max_batch=1)
    response = server.transcribe(recording.path, language="en")
    assert done_by(response) == (200, "faster-whisper")
    words = response.json()["text"].split()
    assert words[:2] == ["plugh", "plugh"], "each worker does one window and dies in the next"
    assert len(words) > 10
    assert "plugh" not in words[2:]


def test_a_stream_names_who_is_at_work_as_it_begins(serve, script: Fails) -> None:
    server = serve(script(load="unavailable"))
    response = server.transcribe(CLIPS[0].path, stream="true", language="en")
    assert done_by(response) == (200, "faster-whisper")
    done = next(line for line in response.text.splitlines() if "transcript.text.done" in line)
    assert word_error_rate([CLIPS[0].text], [json.loads(done.removeprefix("data: "))["text"]]) == 0


def test_a_job_on_disk_goes_on_with_the_next_and_names_it_after_a_restart(serve, script: Fails, tmp_path: Path) -> None:
    recording = join_windows(CLIPS, tmp_path / "long.wav")
    model, state = script(text=" plugh", on_step={"2": "kill"}), tmp_path / "state"
    server = serve(model, max_batch=1, state_dir=state)
    job_id = accepted(server, recording.path, language="en")
    assert over(server, job_id)["status"] == "completed"
    assert done_by(ask(server, job_id, "/result")) == (200, "faster-whisper")
    assert server.stop() == 0
    again = serve(model, state_dir=state)
    assert done_by(ask(again, job_id, "/result")) == (200, "faster-whisper")


def test_where_nobody_is_left_it_is_a_503_that_names_who_failed_of_what(serve, script: Fails, tmp_path: Path) -> None:
    (tmp_path / "lone").write_text(json.dumps({"load": "unavailable"}))  # is no model for any other
    server = serve(tmp_path / "lone", ready=False)
    response = server.transcribe(CLIPS[0].path)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "backend_unavailable")
    said = response.json()["error"]["message"]
    assert "fake: The model could not be loaded: The script says" in said
    assert "faster-whisper: The model 'lone' is not here" in said
    assert httpx.get(f"{server.url}/ready").status_code == 503
    assert [each["state"] for each in health(server)["backends"]] == ["failed", "missing"]
    assert "fallback cannot be used" in server.log.read_text()


def test_the_first_has_its_place_again_after_its_rest_and_loses_it_without_losing_a_request(
    serve, script: Fails, tmp_path: Path
) -> None:
    model = script(load="unavailable")
    server = serve(model, fallback_rest_s=1)
    said = "model not loaded"
    wait_for(lambda: server.log.read_text().count(said) >= 2, 30, server.log)  # tried in vain
    assert done_by(server.transcribe(CLIPS[0].path)) == (200, "faster-whisper")
    script(text=" plugh", log=str(tmp_path / "steps"))
    wait_for(lambda: health(server)["backend"] == "fake" and bool(lines_of(tmp_path / "steps")), 60, server.log)
    response = server.transcribe(CLIPS[0].path)
    assert done_by(response) == (200, "fake")
    assert response.json()["text"] == "plugh"
    assert figure(server, 'whisperd_backend_switches_total{from="faster-whisper",to="fake"}') == 1


def test_details_are_for_who_has_the_key(serve, script: Fails) -> None:
    server = serve(script(), env={"WHISPERD_API_KEY": KEY})
    assert health(server) == {"status": "ok"}
    assert httpx.get(f"{server.url}/health", headers={"Authorization": "Bearer wrong"}).status_code == 200
    assert health(server, Authorization="Bearer wrong") == {"status": "ok"}
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert health(server, **headers)["backend"] == "fake"
    assert httpx.get(f"{server.url}/ready").json() == {"status": "ready"}


def test_a_web_page_may_read_the_name(serve, script: Fails) -> None:
    server = serve(script(), cors_origins="https://notes.example")
    with CLIPS[0].path.open("rb") as file:
        response = httpx.post(
            f"{server.url}/v1/audio/transcriptions", files={"file": file}, headers={"Origin": "https://notes.example"}
        )
    assert done_by(response) == (200, "fake")
    assert "X-Whisperd-Backend" in response.headers["access-control-expose-headers"]
