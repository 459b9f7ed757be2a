"""Servers that are killed, stopped or started twice over the jobs on their disk."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.test_jobs import accepted, ask, over, send
from tests.conftest import Recording, Server, StartServer, clips, join_windows, script_of, wait_for
from tests.steps import lines_of

CLIP = clips("en000")[0]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Twelve, eight and six windows; no two windows are alike."""
    folder, spoken = tmp_path_factory.mktemp("recordings"), clips("en")
    parts = {"twelve": spoken[:12], "eight": spoken[12:20], "six": spoken[20:26]}
    return [
        join_windows(part, folder / f"{name}.wav", 2.5 + number / 10)
        for number, (name, part) in enumerate(parts.items())
    ]


Windows = list[tuple[int, int]]


def begun(steps: Path) -> Windows:
    """The windows of all steps that have begun, in order, by the fake's log."""
    return [(start, end) for line in lines_of(steps, "begin") for start, end in line["windows"]]


def kill(server: Server) -> None:
    """SIGKILL; its children end with their step."""
    children = server.children("app.worker")
    server.process.kill()
    server.process.wait()
    for child in children:
        child.wait(10)


def test_jobs_survive_kills_at_any_moment_and_lose_no_finished_step(
    start_server: StartServer, tmp_path: Path, recordings: list[Recording]
) -> None:
    """All but the last two steps of each life: one is in flight, and the one before it may be just being written."""
    steps, state = tmp_path / "steps", tmp_path / "state"
    quick = start_server(backend="fake", model=script_of(tmp_path, log=str(steps)), max_batch=1)
    plain = [quick.transcribe(recording.path).json()["text"] for recording in recordings]
    assert quick.stop() == 0
    assert [len(text.split()) for text in plain] == [12, 8, 6]
    wanted = begun(steps)
    assert len(set(wanted)) == 26, "each window can be told from all others"
    steps.unlink()
    script = script_of(tmp_path, seconds_per_step=0.2, log=str(steps))

    def start() -> Server:
        return start_server(backend="fake", model=script, max_batch=1, state_dir=state)

    server = start()
    jobs = [accepted(server, recording.path) for recording in recordings]
    lives: list[Windows] = []
    moments = [random.uniform(0, 0.4) for _ in range(3)]
    for moment in moments:
        before = sum(map(len, lives))
        wait_for(lambda least=before + 4: len(begun(steps)) >= least, 20, server.log)
        time.sleep(moment)
        kill(server)
        lives.append(begun(steps)[before:])
        server = start()
    bodies = [over(server, job_id) for job_id in jobs]
    assert [body["status"] for body in bodies] == ["completed"] * 3
    assert [ask(server, job_id, "/result").json()["text"] for job_id in jobs] == plain
    everything = begun(steps)
    assert set(everything) == set(wanted)
    lives.append(everything[sum(map(len, lives)) :])
    kept: set[tuple[int, int]] = set()
    for life in lives:
        assert len(set(life)) == len(life)
        assert kept.isdisjoint(life), moments
        kept |= set(life[:-2])
    wait_for(lambda: list((state / "jobs").glob("job-*")) == [], 5, server.log)
    assert server.stop() == 0


def test_a_terminated_server_ends_its_requests_and_leaves_its_jobs_to_the_next(
    start_server: StartServer, tmp_path: Path, recordings: list[Recording]
) -> None:
    steps, state = tmp_path / "steps", tmp_path / "state"
    script = script_of(tmp_path, seconds_per_step=0.2, log=str(steps))
    first = start_server(backend="fake", model=script, max_batch=1, state_dir=state, drain_s=0.2)
    twelve, eight, six = recordings
    running, waiting = accepted(first, twelve.path), accepted(first, eight.path)
    wait_for(lambda: bool(ask(first, running).json()["segments"]), 20, first.log)
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(first.transcribe, six.path)
        wait_for(lambda: len(httpx.get(f"{first.url}/v1/queue").json()["data"]) == 3, 10, first.log)
        started = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - started < 10
        answer = plain.result(5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert int(answer.headers["retry-after"]) >= 1
    assert list((state / "spool").iterdir()) == []
    before = begun(steps)

    second = start_server(backend="fake", model=script, max_batch=1, state_dir=state)
    assert "jobs on disk taken up again" in second.log.read_text()
    for job_id, windows in ((running, 12), (waiting, 8)):
        assert over(second, job_id)["status"] == "completed"
        assert len(ask(second, job_id, "/result").json()["text"].split()) == windows
    again = set(begun(steps)[len(before) :]) & set(before)
    assert again <= set(before[-2:]), "what was finished is not done again"
    assert second.stop() == 0


def test_a_second_server_on_the_same_folder_serves_requests_but_no_jobs(
    start_server: StartServer, tmp_path: Path, recordings: list[Recording]
) -> None:
    state = tmp_path / "state"
    script = script_of(tmp_path, seconds_per_step=0.2)
    first = start_server(backend="fake", model=script, max_batch=1, state_dir=state)
    job_id = accepted(first, recordings[1].path)
    second = start_server(backend="fake", model=script, max_batch=1, state_dir=state)
    assert second.transcribe(CLIP.path).status_code == 200
    assert_keeps_no_jobs(second, job_id)
    assert "Another server keeps its jobs" in error_of(second)
    assert over(first, job_id)["status"] == "completed"
    assert second.stop() == first.stop() == 0
    alone = start_server(backend="fake", model=script, state_dir=state)
    assert ask(alone, job_id).json()["status"] == "completed"
    assert alone.stop() == 0


def assert_keeps_no_jobs(server: Server, job_id: str) -> None:
    answers = [send(server, CLIP.path), httpx.get(f"{server.url}/v1/jobs"), ask(server, job_id)]
    answers += [ask(server, job_id, "/result"), httpx.delete(f"{server.url}/v1/jobs/{job_id}")]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "jobs_unavailable")
    assert httpx.get(f"{server.url}/v1/queue").json()["data"] == []


def error_of(server: Server) -> str:
    """The one error in the log."""
    (line,) = [line for line in server.log.read_text().splitlines() if " error " in line]
    return line


def test_a_server_that_is_older_than_its_jobs_serves_requests_and_leaves_them_alone(
    start_server: StartServer, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    script = script_of(tmp_path)
    first = start_server(backend="fake", model=script, state_dir=state)
    job_id = accepted(first, CLIP.path)
    over(first, job_id)
    assert first.stop() == 0
    (version,) = versions(state, set_to=99)

    older = start_server(backend="fake", model=script, state_dir=state)
    assert older.transcribe(CLIP.path).status_code == 200
    assert_keeps_no_jobs(older, job_id)
    assert "version 99" in error_of(older)
    assert older.stop() == 0
    versions(state, set_to=version)

    again = start_server(backend="fake", model=script, state_dir=state)
    assert ask(again, job_id).json()["status"] == "completed"
    assert again.stop() == 0


def versions(state: Path, *, set_to: int) -> list[int]:
    """The version that the database had."""
    connection = sqlite3.connect(state / "jobs" / "jobs.sqlite3")
    with contextlib.closing(connection):
        found = [row[0] for row in connection.execute("PRAGMA user_version")]
        connection.execute(f"PRAGMA user_version = {set_to}")
        connection.commit()
    return found


def test_damaged_jobs_are_put_aside_and_new_ones_taken(start_server: StartServer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = script_of(tmp_path, seconds_per_step=1)
    first = start_server(backend="fake", model=script, state_dir=state)
    job_id = accepted(first, CLIP.path)
    kill(first)
    database = state / "jobs" / "jobs.sqlite3"
    database.write_bytes(b"no database" * 1000)

    second = start_server(backend="fake", model=script, state_dir=state)
    assert "job store damaged" in error_of(second)
    assert ask(second, job_id).status_code == 404
    assert over(second, accepted(second, CLIP.path))["status"] == "completed"
    assert (state / "jobs" / "jobs.sqlite3.damaged-1").read_bytes().startswith(b"no database")
    wait_for(lambda: list((state / "jobs").glob("job-*")) == [], 5, second.log)
    assert second.stop() == 0
