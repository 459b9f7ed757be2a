from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine import recent
from app.engine.job import Job, Work
from app.engine.recent import Recent
from app.transcript import SAMPLE_RATE, Options

WORK = Work(Options(language="en"), "/models/micro", "micro", digest="d1", owner="a")
HOUR = 3600


def jobs_of(*works: Work, hours: float = 0) -> list[Job]:
    async def make() -> list[Job]:
        return [Job(work, Path("upload"), Path("pcm")) for work in works]

    made = anyio.run(make)
    for job in made:
        job.progress.samples = int(hours * HOUR) * SAMPLE_RATE
    return made


def job_of(work: Work, hours: float = 0) -> Job:
    return jobs_of(work, hours=hours)[0]


def different(count: int, hours: float = 0) -> list[Job]:
    return jobs_of(*(replace(WORK, digest=f"d{number}") for number in range(count)), hours=hours)


def running(kept: Recent, *jobs: Job) -> None:
    for job in jobs:
        kept.add(job)


def ended(kept: Recent, *jobs: Job) -> None:
    for job in jobs:
        kept.add(job)
        assert kept.keep(job)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass on the clock that the jobs' lives are counted by."""
    now = [1000.0]
    monkeypatch.setattr(recent, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def let_pass(seconds: float) -> None:
        now[0] += seconds

    return let_pass


# --- who meets whom ---


def test_equal_work_meets_the_job_that_runs() -> None:
    kept, job = Recent(120), job_of(WORK)
    assert kept.find(WORK) is None
    kept.add(job)
    assert kept.find(replace(WORK)) is job
    assert kept.outlived() == []


def test_the_model_is_known_by_its_folder_whatever_name_it_was_asked_for_by() -> None:
    kept, job = Recent(120), job_of(WORK)
    kept.add(job)
    assert kept.find(replace(WORK, model="whisper-1")) is job


@pytest.mark.parametrize(
    "other",
    [
        replace(WORK, owner="b"),
        replace(WORK, owner=""),
        replace(WORK, digest="d2"),
        replace(WORK, model_path="/models/other"),
        replace(WORK, options=Options(language="de")),
        replace(WORK, options=replace(WORK.options, prompt="Dear")),
        replace(WORK, options=replace(WORK.options, task="translate")),
        replace(WORK, options=replace(WORK.options, words=True)),
    ],
)
def test_no_other_owners_and_no_other_work_is_ever_met(other: Work) -> None:
    kept = Recent(120)
    ended(kept, job_of(WORK))
    assert kept.find(other) is None


def test_work_whose_upload_has_no_digest_is_met_by_nobody_and_not_kept() -> None:
    kept, work = Recent(120), replace(WORK, digest="")
    job = job_of(work)
    kept.add(job)
    assert kept.find(work) is None
    assert not kept.keep(job)
    assert kept.outlived() == []


def test_of_two_jobs_for_equal_work_the_first_is_met_whatever_becomes_of_the_second() -> None:
    kept = Recent(120)
    first, second = jobs_of(WORK, WORK)
    running(kept, first, second)
    assert kept.find(WORK) is first
    assert not kept.keep(second)
    kept.forget(second)
    assert kept.find(WORK) is first
    kept.forget(first)
    assert kept.find(WORK) is None


def test_to_forget_a_job_that_is_not_here_is_harmless() -> None:
    kept, job = Recent(120), job_of(WORK)
    kept.forget(job)
    kept.add(job)
    kept.forget(job)
    kept.forget(job)
    assert kept.find(WORK) is None


# --- for how long ---


def test_a_job_that_ended_is_met_until_its_life_is_over(pass_time: Callable[[float], None]) -> None:
    kept, job = Recent(120), job_of(WORK)
    ended(kept, job)
    pass_time(119.5)
    assert kept.outlived() == []
    assert kept.find(WORK) is job
    pass_time(0.5)
    assert kept.outlived() == [job]
    kept.forget(job)
    assert kept.find(WORK) is None
    assert kept.outlived() == []


def test_a_job_that_runs_has_no_end_of_life(pass_time: Callable[[float], None]) -> None:
    kept, job = Recent(120), job_of(WORK)
    kept.add(job)
    pass_time(1e6)
    assert kept.outlived() == []
    assert kept.find(WORK) is job


def test_a_job_that_runs_again_is_kept_anew_once_it_ends(pass_time: Callable[[float], None]) -> None:
    kept, job = Recent(120), job_of(WORK)
    ended(kept, job)
    pass_time(100)
    kept.add(job)
    pass_time(100)
    assert kept.outlived() == []
    assert kept.keep(job)
    pass_time(119)
    assert kept.outlived() == []
    pass_time(1)
    assert kept.outlived() == [job]


def test_without_a_life_nothing_is_kept_but_what_runs_is_met() -> None:
    kept, job = Recent(0), job_of(WORK)
    kept.add(job)
    assert kept.find(WORK) is job
    assert not kept.keep(job)
    assert kept.outlived() == []


# --- and how many ---


def test_more_than_so_many_are_not_kept_and_the_oldest_go_first() -> None:
    kept, jobs = Recent(120), different(35)
    ended(kept, *jobs[:32])
    assert kept.outlived() == []
    ended(kept, *jobs[32:])
    assert set(kept.outlived()) == set(jobs[:3])
    kept.forget(jobs[0])
    assert set(kept.outlived()) == set(jobs[1:3])


def test_jobs_that_run_take_no_place_of_those_that_are_kept() -> None:
    kept, jobs = Recent(120), different(64, hours=1)
    running(kept, *jobs[:60])
    ended(kept, *jobs[60:])
    assert kept.outlived() == []


def test_no_more_than_six_hours_of_audio_are_kept_and_the_oldest_go_first() -> None:
    kept, jobs = Recent(120), different(5, hours=2)
    ended(kept, *jobs[:3])
    assert kept.outlived() == []
    ended(kept, *jobs[3:])
    assert set(kept.outlived()) == set(jobs[:2])


def test_the_newest_is_kept_however_long_it_is() -> None:
    kept = Recent(120)
    (short,) = different(1, hours=0.1)
    long = job_of(replace(WORK, digest="long"), hours=8)
    ended(kept, short, long)
    assert kept.outlived() == [short]


def test_who_is_kept_again_is_the_newest(pass_time: Callable[[float], None]) -> None:
    kept, (left, other) = Recent(120), different(2, hours=4)
    ended(kept, left, other)
    pass_time(1)
    assert kept.keep(left)
    assert kept.outlived() == [other]


def test_the_job_to_make_room_with_is_the_one_that_has_waited_longest_for_its_callers() -> None:
    kept, (finished, first, second) = Recent(120), different(3)
    ended(kept, finished, second, first)
    assert kept.oldest_parked() is None
    first.parked = second.parked = True
    assert kept.oldest_parked() is second
    kept.forget(second)
    assert kept.oldest_parked() is first
    kept.add(first)
    assert kept.oldest_parked() is None


# --- any sequence ---


MOVES = st.sampled_from(["add", "add", "keep", "keep", "keep", "forget"])


@settings(deadline=None)
@given(st.lists(st.tuples(MOVES, st.integers(0, 7)), min_size=20, max_size=60))
def test_whatever_happens_the_first_job_for_its_work_is_met_until_it_is_forgotten(moves: list[tuple[str, int]]) -> None:
    kept = Recent(120)
    pool = jobs_of(*(replace(WORK, digest=digest) for digest in ("", "a", "a", "b", "c", "d", "e", "e")), hours=3)
    met: dict[str, Job] = {}
    at_rest: list[Job] = []
    for move, number in moves:
        job, digest = pool[number], pool[number].work.digest
        if move == "keep":
            assert kept.keep(job) == (met.get(digest) is job)
        else:
            getattr(kept, move)(job)
        if move == "add" and digest:
            met.setdefault(digest, job)
        if move != "keep" or met.get(digest) is job:
            at_rest = [other for other in at_rest if other is not job]
        if move == "keep" and met.get(digest) is job:
            at_rest.append(job)
        if move == "forget" and met.get(digest) is job:
            del met[digest]
        assert [kept.find(each.work) for each in pool] == [met.get(each.work.digest) for each in pool]
        assert set(kept.outlived()) == set(at_rest[:-2]), "six hours are the most"
