"""Workers and decoders that die under a real server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import Recording, Server, StartServer, clips, script_of, wait_for, word_error_rate
from tests.steps import overlap, steps_of

CLIP = clips("en000")[0]


def in_background(call: object) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def busy(server: Server) -> bool:
    text = httpx.get(f"{server.url}/metrics").text
    return "whisperd_queue_jobs 1.0" in text


def test_a_worker_killed_mid_job_costs_that_job_nothing_but_time(
    start_server: StartServer, long_recording: Recording
) -> None:
    """The real thing: faster-whisper and micro, SIGKILL from outside while the step runs."""
    server = start_server(backend="faster-whisper", model="micro", max_batch=1)
    thread, answers = in_background(lambda: server.transcribe(long_recording.path, language="en"))
    (worker,) = server.children("app.worker.child")
    wait_for(lambda: figure(server, "whisperd_step_windows_total") >= 1, 60, server.log)
    worker.kill()
    thread.join(120)
    assert answers[0].status_code == 200
    assert word_error_rate([long_recording.text], [answers[0].json()["text"]]) <= 0.05
    (restarted,) = server.children("app.worker.child")
    assert restarted.pid != worker.pid
    assert figure(server, 'whisperd_worker_restarts_total{role="worker"}') == 1
    following = server.transcribe(CLIP.path)
    assert following.status_code == 200
    assert word_error_rate([CLIP.text], [following.json()["text"]]) == 0
    assert server.stop() == 0


def figure(server: Server, name: str) -> float:
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    return 0.0


def test_a_recording_that_kills_its_worker_twice_is_a_500_that_is_not_retried(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, on_step={"1": "kill"}))
    response = server.transcribe(CLIP.path)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "worker_died")
    assert response.headers["x-should-retry"] == "false"
    server.stop()


def test_three_deaths_in_a_minute_open_the_breaker_and_ready_says_so(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, on_step={"1": "kill"}))
    server.transcribe(CLIP.path)
    assert server.transcribe(CLIP.path).status_code in (500, 503)
    response = server.transcribe(CLIP.path)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "backend_unavailable")
    assert "dying" in httpx.get(f"{server.url}/ready").json()["error"]["message"]
    assert httpx.get(f"{server.url}/health").status_code == 200
    server.stop()


def test_an_idle_worker_that_dies_is_started_again_by_itself(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path))
    (worker,) = server.children("app.worker.child")
    worker.kill()
    wait_for(lambda: [c.pid for c in server.children("app.worker.child")] not in ([], [worker.pid]), 20, server.log)
    server.wait_until_ready(20)
    assert server.transcribe(CLIP.path).status_code == 200
    server.stop()


def test_a_step_that_hangs_is_a_504_and_the_next_request_is_answered(start_server: StartServer, tmp_path: Path) -> None:
    script = script_of(tmp_path, on_step={"1": "hang"}, once=str(tmp_path / "hung"))
    server = start_server(backend="fake", model=script, step_timeout_s=1)
    response = server.transcribe(CLIP.path, timeout=20)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert response.headers["x-should-retry"] == "false"
    assert server.transcribe(CLIP.path).status_code == 200
    server.stop()


def test_a_failed_step_is_a_500_for_its_job_alone(start_server: StartServer, tmp_path: Path) -> None:
    faults = {"1": "raise", "3": "memory", "5": "nan"}
    server = start_server(backend="fake", model=script_of(tmp_path, on_step=faults))
    for fault in faults.values():
        response = server.transcribe(CLIP.path)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "inference_failed"), fault
        assert server.transcribe(CLIP.path).status_code == 200
    server.stop()


def test_a_decoder_killed_mid_file_is_replaced_and_the_file_tried_again(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path))
    wait_for(lambda: len(server.children("app.worker.decoder")) == 1, 20, server.log)
    (decoder,) = server.children("app.worker.decoder")
    decoder.suspend()  # so that it is surely killed with the file in hand
    thread, answers = in_background(lambda: server.transcribe(CLIP.path))
    wait_for(lambda: busy(server), 10, server.log)
    time.sleep(0.2)
    decoder.kill()
    thread.join(30)
    assert answers[0].status_code == 200
    server.stop()


def test_a_client_that_hangs_up_frees_the_device_within_a_step(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    log = tmp_path / "steps"
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.3, log=str(log)), max_batch=1)
    with pytest.raises(httpx.ReadTimeout):
        server.transcribe(long_recording.path, timeout=1)
    wait_for(lambda: not busy(server), 5, server.log)
    time.sleep(0.5)
    steps = steps_of(log)
    time.sleep(0.7)
    assert steps_of(log) == steps, "the device works on for nobody"
    assert figure(server, 'whisperd_jobs_total{outcome="cancelled"}') == 1
    assert list((server.log.parent / "state" / "spool").glob("server-*/job-*")) == []
    server.stop()


def test_steps_never_overlap_and_a_dictation_overtakes_a_long_recording(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    log = tmp_path / "steps"
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.6, log=str(log)), max_batch=1)
    long, long_answers = in_background(lambda: server.transcribe(long_recording.path))
    wait_for(lambda: bool(steps_of(log)), 20, server.log)
    assert server.transcribe(CLIP.path).status_code == 200
    assert not long_answers, "the dictation came later and is done first"
    long.join(60)
    assert long_answers[0].status_code == 200
    assert len(steps_of(log)) > 2
    assert not overlap(steps_of(log))
    server.stop()


def test_a_full_queue_is_a_429_that_says_when_to_come_back(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=1), queue_jobs=1)
    thread, answers = in_background(lambda: server.transcribe(CLIP.path))
    wait_for(lambda: busy(server), 10, server.log)
    response = server.transcribe(CLIP.path)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert 1 <= int(response.headers["retry-after"]) <= 120
    thread.join(30)
    assert answers[0].status_code == 200
    assert server.transcribe(CLIP.path).status_code == 200
    server.stop()


def test_an_upload_over_the_limit_is_a_413_announced_or_not(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path), max_upload_mb=1)
    big = tmp_path / "big.wav"
    big.write_bytes(bytes(4 * 2**20))
    assert server.transcribe(big).status_code == 413

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(2**16)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{server.url}/v1/audio/transcriptions", content=body(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "upload_too_large")
    server.stop()
