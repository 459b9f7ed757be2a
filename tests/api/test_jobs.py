"""Jobs that outlive their request (``Prefer: respond-async``), as clients and as the disk see them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Recording, Server, StartServer, clips, cut_off, join_windows, script_of, wait_for

CLIP = clips("en000")[0]
#: What every segment of the fake says: it must be in no log.
TEXT = "plugh"


def send(server: Server, path: Path, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """Post the recording as a job, with a prompt of its own: no job of another test is met unless that is asked for."""
    with path.open("rb") as file:
        return httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": file},
            data={"prompt": secrets.token_hex(8), **fields},
            headers={"Prefer": "respond-async", **(headers or {})},
            timeout=30,
        )


def accepted(server: Server, path: Path, **fields: Any) -> str:
    """The id of the job that the recording became."""
    response = send(server, path, **fields)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def ask(server: Server, job_id: str, rest: str = "") -> httpx.Response:
    return httpx.get(f"{server.url}/v1/jobs/{job_id}{rest}")


def over(server: Server, job_id: str, seconds: float = 60) -> dict[str, Any]:
    """The job once it is over."""
    seen: list[dict[str, Any]] = []

    def is_over() -> bool:
        seen.append(ask(server, job_id).raise_for_status().json())
        return seen[-1]["status"] not in ("queued", "running")

    wait_for(is_over, seconds, server.log)
    return seen[-1]


def wait_until_it_runs(server: Server, job_id: str) -> None:
    """Until its first window is done."""
    wait_for(lambda: bool(ask(server, job_id).json()["segments"]), 30, server.log)


def delete(server: Server, job_id: str) -> httpx.Response:
    return httpx.delete(f"{server.url}/v1/jobs/{job_id}", timeout=30)


def begun(steps: Path) -> list[list[int]]:
    """The windows of all steps that have begun, in order, by the fake's log."""
    events = [json.loads(line) for line in steps.read_text().splitlines()]
    return [window for event in events if event["event"] == "begin" for window in event["windows"]]


def state_of(server: Server) -> Path:
    return server.log.parent / "state"


def uploads_on_disk(server: Server) -> list[Path]:
    """The folders of uploads: of requests in work, and of jobs that are not over."""
    return [*state_of(server).glob("spool/server-*/job-*"), *state_of(server).glob("jobs/job-*")]


def holds(folder: Path, text: str) -> bool:
    """Whether any file in the folder has the text in it."""
    return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six windows, a sentence each."""
    return join_windows(clips("en")[:6], tmp_path_factory.mktemp("six") / "xyzzy.wav")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Eight windows, a sentence each."""
    return join_windows(clips("en")[10:18], tmp_path_factory.mktemp("eight") / "eight.wav")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``fake`` logs its steps."""
    return tmp_path_factory.mktemp("steps") / "steps"


@pytest.fixture(scope="module")
def fake(start_server: StartServer, steps: Path) -> Iterator[Server]:
    """A window a step, 0.2 s each, with everything in the log."""
    script = script_of(steps.parent, seconds_per_step=0.2, text=f" {TEXT}{{start}}", log=str(steps))
    server = start_server(backend="fake", model=script, max_batch=1, log_level="debug")
    yield server
    assert server.stop() == 0


# --- what a job gives ---


def test_a_job_gives_in_every_format_what_the_plain_request_answers(server: Server) -> None:
    job_id = accepted(server, CLIP.path, prompt="", response_format="srt")
    assert over(server, job_id)["status"] == "completed"
    for name in ("json", "text", "srt", "vtt", "verbose_json"):
        plain = server.transcribe(CLIP.path, response_format=name)
        result = ask(server, job_id, f"/result?response_format={name}")
        assert (result.status_code, result.text) == (200, plain.text)
        assert result.headers["content-type"] == plain.headers["content-type"]
    assert ask(server, job_id, "/result").text == server.transcribe(CLIP.path, response_format="srt").text


@pytest.mark.parametrize("granularities", [["word"], ["word", "segment"]], ids="+".join)
def test_a_job_that_was_asked_for_words_has_them(server: Server, granularities: list[str]) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": granularities}
    # A temperature of its own, so that the other's job is not met.
    fields["temperature"] = "0" if "segment" in granularities else "0.1"
    plain = server.transcribe(CLIP.path, **fields).json()
    job_id = accepted(server, CLIP.path, prompt="", **fields)
    over(server, job_id)
    result = ask(server, job_id, "/result").json()
    assert len(result["words"]) == len(CLIP.text.split())
    assert result == plain


def test_of_a_damaged_file_a_job_says_what_is_missing(server: Server, tmp_path: Path) -> None:
    path = cut_off(CLIP, tmp_path / "cut.flac")
    plain = server.transcribe(path)
    job_id = accepted(server, path)
    warning = over(server, job_id)["warning"]
    result = ask(server, job_id, "/result")
    assert "of the recording are missing" in warning
    assert warning == result.headers["x-whisperd-warning"] == plain.headers["x-whisperd-warning"]
    assert result.headers["x-whisperd-backend"] == plain.headers["x-whisperd-backend"]
    sound = accepted(server, CLIP.path)
    assert over(server, sound)["warning"] is None
    assert "x-whisperd-warning" not in ask(server, sound, "/result").headers


def test_a_job_begins_as_a_202_that_says_where_it_is(fake: Server, six: Recording) -> None:
    before = int(time.time())
    response = send(fake, six.path, response_format="vtt", headers={"X-Request-Id": "mine-1"})
    body = response.json()
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["location"] == f"/v1/jobs/{body['id']}"
    assert (body["object"], body["status"], body["request_id"]) == ("job", "queued", "mine-1")
    assert (body["task"], body["response_format"], body["priority"]) == ("transcribe", "vtt", "normal")
    assert before <= body["created_at"] <= time.time()
    assert (body["progress"], body["segments"], body["error"], body["finished_at"]) == (0, [], None, None)
    done = over(fake, body["id"])
    assert httpx.get(f"{fake.url}{response.headers['location']}").json() == done
    assert body["created_at"] <= done["finished_at"] <= time.time()
    assert done["expires_at"] == pytest.approx(done["finished_at"] + 7 * 86400, abs=1)
    assert (done["language"], done["duration"]) == ("english", pytest.approx(six.duration, abs=0.01))


@pytest.mark.parametrize(
    "values",
    [
        ["Respond-Async"],
        ["wait=10, respond-async"],
        ["respond-async; x=1, handling=lenient"],
        ["handling=lenient,respond-async,wait=1"],
        ["handling=lenient", "respond-async"],
    ],
    ids=" | ".join,
)
def test_the_preference_is_read_among_others_and_in_any_case(fake: Server, values: list[str]) -> None:
    answer = post_with(fake, [("Prefer", value) for value in values])
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"


@pytest.mark.parametrize("values", [[], ["wait=10"], ["respond-asynchronously"], ["x-respond-async"]], ids=" | ".join)
def test_other_preferences_leave_the_answer_plain(fake: Server, values: list[str]) -> None:
    answer = post_with(fake, [("Prefer", value) for value in values])
    assert answer.status_code == 200
    assert TEXT in answer.json()["text"]
    assert "preference-applied" not in answer.headers


def post_with(server: Server, headers: list[tuple[str, str]]) -> httpx.Response:
    """The bare clip as the body."""
    sent = [("Content-Type", "audio/flac"), *headers]
    return httpx.post(f"{server.url}/v1/audio/transcriptions", content=CLIP.path.read_bytes(), headers=sent)


def test_a_job_goes_before_a_stream_and_a_heartbeat(fake: Server) -> None:
    job_id = accepted(fake, CLIP.path, stream="true", x_heartbeat="true")
    assert over(fake, job_id)["status"] == "completed"


def test_a_translation_may_be_a_job_too(fake: Server) -> None:
    with CLIP.path.open("rb") as file:
        response = httpx.post(
            f"{fake.url}/v1/audio/translations", files={"file": file}, headers={"Prefer": "respond-async"}
        )
    assert (response.status_code, response.json()["task"]) == (202, "translate")
    assert over(fake, response.json()["id"])["status"] == "completed"
    result = ask(fake, response.json()["id"], "/result?response_format=verbose_json").json()
    assert (result["task"], result["language"]) == ("translate", "english")


def test_segments_and_progress_grow_while_the_job_runs(fake: Server, six: Recording) -> None:
    job_id = accepted(fake, six.path)
    seen = [ask(fake, job_id).json()]
    while seen[-1]["status"] in ("queued", "running"):
        time.sleep(0.05)
        seen.append(ask(fake, job_id).json())
    *earlier, done = seen
    assert done["status"] == "completed"
    assert done["progress"] == 1
    assert [segment["id"] for segment in done["segments"]] == list(range(6))
    progress, counts = [body["progress"] for body in seen], [len(body["segments"]) for body in seen]
    assert progress == sorted(progress)
    assert counts == sorted(counts)
    partial = [body for body in earlier if 0 < len(body["segments"]) < 6]
    assert partial, "segments can be had before the last is there"
    for body in partial:
        assert body["status"] == "running"
        assert 0 < body["progress"] < 1
        assert body["segments"] == done["segments"][: len(body["segments"])]
        assert body["duration"] == pytest.approx(six.duration, abs=0.01)
        assert body["position"] == 1
        assert body["estimated_s"] > 0
    text = ask(fake, job_id, "/result?response_format=text").text
    assert text.strip() == "".join(segment["text"] for segment in done["segments"]).strip()


def test_segments_that_a_client_has_are_not_sent_again(fake: Server, six: Recording) -> None:
    job_id = accepted(fake, six.path)
    wait_until_it_runs(fake, job_id)
    have: list[dict[str, Any]] = []
    polls = 0
    while True:
        body = ask(fake, job_id, f"?after={len(have)}").json()
        polls += bool(body["segments"])
        have += body["segments"]
        if body["status"] == "completed":
            break
        time.sleep(0.05)
    assert polls > 1
    assert have == ask(fake, job_id).json()["segments"]
    assert ask(fake, job_id, "?after=6").json()["segments"] == []
    assert ask(fake, job_id, "?after=-1").status_code == 400


def test_a_result_that_is_not_there_yet_is_a_404_that_says_when_to_come_back(fake: Server, six: Recording) -> None:
    job_id = accepted(fake, six.path)
    response = ask(fake, job_id, "/result")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_finished")
    assert int(response.headers["retry-after"]) >= 1
    over(fake, job_id)
    assert ask(fake, job_id, "/result").status_code == 200
    assert ask(fake, job_id, "/result?response_format=docx").status_code == 400


def test_a_recording_that_cannot_be_read_is_a_failed_job(fake: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    job_id = accepted(fake, tmp_path / "letter.txt", prompt="letter")
    body = over(fake, job_id)
    assert (body["status"], body["progress"], body["segments"]) == ("failed", 0, [])
    assert body["error"]["code"] == "unsupported_audio"
    result, plain = ask(fake, job_id, "/result"), fake.transcribe(tmp_path / "letter.txt")
    assert (result.status_code, result.json()) == (400, {"error": body["error"]})
    assert plain.json() == result.json()
    again = accepted(fake, tmp_path / "letter.txt", prompt="letter")
    assert again != job_id, "what failed is tried again"
    over(fake, again)


def test_what_is_wrong_with_the_request_is_told_at_once(fake: Server) -> None:
    before = httpx.get(f"{fake.url}/v1/jobs").json()
    for fields, status, code, param in (
        ({"model": "nonesuch"}, 404, "model_not_found", "model"),
        ({"temperature": "7"}, 400, "invalid_request", "temperature"),
        ({"x_priority": "urgent"}, 400, "invalid_request", "x_priority"),
    ):
        response = send(fake, CLIP.path, **fields)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    no_file = httpx.post(
        f"{fake.url}/v1/audio/transcriptions", data={"language": "en"}, headers={"Prefer": "respond-async"}
    )
    assert no_file.status_code == 400
    assert httpx.get(f"{fake.url}/v1/jobs").json() == before


# --- which job ---


def test_the_same_upload_meets_its_job_while_it_runs_and_when_it_is_done(
    fake: Server, six: Recording, steps: Path
) -> None:
    before = len(begun(steps))
    job_id = accepted(fake, six.path, prompt="again")
    assert accepted(fake, six.path, prompt="again") == job_id
    over(fake, job_id)
    again = send(fake, six.path, prompt="again")
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, job_id, "completed")
    assert len(begun(steps)) - before == 6, "the device did it once"
    other = accepted(fake, six.path, prompt="again", language="de")
    assert other != job_id
    over(fake, other)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"response_format": "json"}, {"response_format": "srt"}),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]},
            {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]},
        ),
    ],
    ids=["format", "granularities"],
)
def test_the_same_upload_is_given_in_the_shape_that_it_was_sent_for_last(
    fake: Server, first: dict[str, Any], second: dict[str, Any]
) -> None:
    prompt = secrets.token_hex(8)
    over(fake, accepted(fake, CLIP.path, prompt=prompt, **first))
    job_id = accepted(fake, CLIP.path, prompt=prompt, **second)
    over(fake, job_id)
    assert ask(fake, job_id, "/result").text == fake.transcribe(CLIP.path, prompt=prompt, **second).text


def test_jobs_are_listed_newest_first_as_many_as_asked_for(fake: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Madam")
    ids = [accepted(fake, path) for path in (CLIP.path, tmp_path / "letter.txt", CLIP.path)]
    over(fake, ids[-1])
    listed = httpx.get(f"{fake.url}/v1/jobs").json()
    assert listed["object"] == "list"
    assert [job["id"] for job in listed["data"][:3]] == ids[::-1]
    assert [job["status"] for job in listed["data"][:3]] == ["completed", "failed", "completed"]
    assert all(job["segments"] == [] for job in listed["data"])
    assert httpx.get(f"{fake.url}/v1/jobs?limit=2").json()["data"] == listed["data"][:2]
    for limit in ("0", "1001", "many"):
        response = httpx.get(f"{fake.url}/v1/jobs?limit={limit}")
        assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("job_id", ["0123456789abcdef", "%2e%2e", "jobs.sqlite3", "a" * 5000, "%00", "' OR 1=1"])
def test_an_unknown_job_is_a_404(fake: Server, job_id: str) -> None:
    for response in (ask(fake, job_id), ask(fake, job_id, "/result"), delete(fake, job_id)):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_an_ordinary_request_overtakes_a_job_of_the_background(fake: Server, tmp_path: Path) -> None:
    """By its length the job would go first. What is left of it takes seconds, so that a busy machine sees it run."""
    job = join_windows(clips("en")[:15], tmp_path / "job.wav")
    longer = join_windows(clips("en")[20:36], tmp_path / "longer.wav")
    job_id = accepted(fake, job.path, headers={"X-Priority": "background"})
    wait_until_it_runs(fake, job_id)
    assert fake.transcribe(longer.path).status_code == 200
    body = ask(fake, job_id).json()
    assert (body["status"], body["priority"]) == ("running", "background")
    assert over(fake, job_id)["priority"] == "background"


# --- the end of a job ---


def assert_gone(server: Server, job_id: str, response: httpx.Response) -> None:
    assert (response.status_code, response.json()) == (200, {"id": job_id, "object": "job", "deleted": True})
    for later in (ask(server, job_id), ask(server, job_id, "/result"), delete(server, job_id)):
        assert (later.status_code, later.json()["error"]["code"]) == (404, "not_found")
    assert job_id not in [job["id"] for job in httpx.get(f"{server.url}/v1/jobs").json()["data"]]
    assert not list(state_of(server).rglob(f"*{job_id}*"))


def test_a_running_job_is_deleted_and_the_device_is_free(fake: Server, eight: Recording, steps: Path) -> None:
    job_id = accepted(fake, eight.path)
    wait_until_it_runs(fake, job_id)
    assert f"job-{job_id}" in [path.name for path in uploads_on_disk(fake)]
    response = delete(fake, job_id)
    done = begun(steps)
    assert_gone(fake, job_id, response)
    assert uploads_on_disk(fake) == []
    time.sleep(0.5)
    assert begun(steps) == done, "the device works on for nobody"
    assert f"job={job_id} outcome=cancelled" in fake.log.read_text()
    assert fake.transcribe(CLIP.path).status_code == 200


def test_a_job_is_deleted_that_waits_for_the_device(fake: Server, six: Recording, eight: Recording) -> None:
    running, waiting = accepted(fake, six.path), accepted(fake, eight.path)
    wait_for(lambda: ask(fake, waiting).json()["duration"] is not None, 30, fake.log)
    assert ask(fake, waiting).json()["status"] == "queued"
    assert_gone(fake, waiting, delete(fake, waiting))
    assert over(fake, running)["status"] == "completed"


def test_a_job_is_deleted_that_waits_on_the_disk(
    start_server: StartServer, tmp_path: Path, six: Recording, eight: Recording
) -> None:
    """Jobs wait there while those before them have half of the audio that the queue takes."""
    server = start_server(
        backend="fake", model=script_of(tmp_path, seconds_per_step=0.2), max_batch=1, queue_audio_s=20
    )
    running, waiting, last = (accepted(server, path) for path in (six.path, eight.path, CLIP.path))
    wait_until_it_runs(server, running)
    bodies = [ask(server, each).json() for each in (running, waiting, last)]
    assert [body["position"] for body in bodies] == [1, 2, 3]
    assert [body["duration"] is not None for body in bodies] == [True, False, False]
    assert_gone(server, waiting, delete(server, waiting))
    assert ask(server, last).json()["position"] in (1, 2)
    assert over(server, running)["status"] == over(server, last)["status"] == "completed"
    assert server.stop() == 0


def test_a_finished_job_is_deleted_with_all_that_it_said(fake: Server) -> None:
    job_id = accepted(fake, CLIP.path, prompt="frotz and gnusto")
    over(fake, job_id)
    assert holds(state_of(fake) / "jobs", "frotz and gnusto"), "else this test shows nothing"
    assert_gone(fake, job_id, delete(fake, job_id))
    assert not holds(state_of(fake), "frotz and gnusto")


def test_what_jobs_leave_on_the_disk_is_private_and_their_audio_goes_with_their_end(
    fake: Server, eight: Recording
) -> None:
    job_id = accepted(fake, eight.path)
    wait_until_it_runs(fake, job_id)
    folder = state_of(fake) / "jobs" / f"job-{job_id}"
    assert {path.name for path in folder.iterdir()} == {"upload", "pcm"}
    modes = {path: path.stat().st_mode & 0o777 for path in state_of(fake).rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir() and path.name != "empty"} == {0o700}
    over(fake, job_id)
    wait_for(lambda: uploads_on_disk(fake) == [], 5, fake.log)


def test_the_log_holds_no_text_no_prompt_and_no_files_name(fake: Server, six: Recording) -> None:
    job_id = accepted(fake, six.path, prompt="frotz and gnusto", x_priority="background")
    over(fake, job_id)
    assert TEXT in ask(fake, job_id, "/result").text
    log = fake.log.read_text()
    assert f"job={job_id}" in log
    for secret in (TEXT, "frotz", six.path.name):
        assert secret not in log


# --- limits ---


def test_jobs_that_wait_take_half_of_the_room_for_uploads_and_no_more(
    start_server: StartServer, tmp_path: Path, six: Recording, eight: Recording
) -> None:
    """A job that comes alone is taken however large; while it waits there is no room for even a small one."""
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.2), max_batch=1, spool_mb=1)
    assert six.path.stat().st_size > 2**19
    first = accepted(server, six.path)
    for path in (eight.path, CLIP.path):
        response = send(server, path)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(response.headers["retry-after"]) <= 120
    assert [path.name for path in uploads_on_disk(server)] == [f"job-{first}"]
    assert server.transcribe(CLIP.path).status_code == 200, "requests that somebody waits for have the other half"
    over(server, first)
    wait_for(lambda: send(server, CLIP.path, prompt="second").status_code == 202, 5, server.log)
    second, third = accepted(server, CLIP.path, prompt="second"), accepted(server, CLIP.path)
    assert delete(server, second).status_code == 200
    assert over(server, third)["status"] == "completed"
    assert server.stop() == 0
