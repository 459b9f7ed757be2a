"""The engine from the first byte to the last caller's leaving, with the reins of its decoder and worker in hand."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.engine.admission import QueueLimits
from app.engine.job import Job, Work
from app.engine.recent import Recent
from app.errors import DeadlineExceeded, JobCancelled, QueueFull, ShuttingDown, WhisperdError
from app.transcript import SAMPLE_RATE, Options
from app.worker.messages import Decoded
from tests.engine.reins import ENGLISH, HeldDecoders, first_text, part, running, until
from tests.steps import windows_of

pytestmark = pytest.mark.anyio
TWO_JOBS = QueueLimits(jobs=2, spool_bytes=2**20, audio_s=3600)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def decoders(**recordings: Any) -> HeldDecoders:
    """Decoders that do not wait, and know a recording of three windows besides."""
    given = HeldDecoders(three=[part(0, 3, done=True)], **recordings)
    given.go_on.set()
    return given


# --- one job ---


async def test_transcription_begins_while_the_file_is_still_being_decoded(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted() as job:
            await first_text(job)
            assert [s.text for s in job.progress.segments] == [" w0"]
            assert not job.progress.decoded, "the first window's text is there before the second is decoded"
            bench.decoders.go_on.set()
            assert (await job.result()).text == "w0 w1000"


async def test_segments_come_once_each_and_end_with_the_job(tmp_path: Path) -> None:
    async with running(tmp_path, decoders()) as bench:
        with bench.submitted() as job:
            assert [segment.text async for fresh in job.segments() for segment in fresh] == [" w0", " w1000"]


async def test_leaving_a_job_gives_its_decoder_back(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted() as job:
            await first_text(job)
        await bench.decoders.given_up.wait()
        assert job.outcome == "cancelled"
        assert bench.folders == []


async def test_a_bug_costs_its_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, decoders()) as bench:

        async def bug(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(bench.worker, "step", bug)
            with bench.submitted() as job, pytest.raises(WhisperdError, match="unexpectedly"):
                await job.result()
        with bench.submitted() as job:
            assert (await job.result()).text == "w0 w1000"


async def test_a_job_that_takes_too_long_in_all_is_ended(tmp_path: Path) -> None:
    async with running(tmp_path, job_timeout_s=0.3) as bench:
        with bench.submitted() as job:
            with pytest.raises(DeadlineExceeded, match=r"longer than 0\.3 s"):
                await job.result()
            assert (bench.engine.jobs, bench.folders) == ([], [])


async def test_a_cancelled_job_ends_for_all_its_callers_and_for_its_owner_alone(tmp_path: Path) -> None:
    work = {"digest": "d", "owner": "anna"}
    async with running(tmp_path) as bench:
        with bench.submitted(**work) as job, bench.submitted(**work) as same:
            assert bench.engine.cancel(job.id, "bert") is None
            assert bench.engine.cancel("another", "anna") is None
            assert not job.over
            assert bench.engine.cancel(job.id, "anna") is job
            for caller in (job, same):
                with pytest.raises(JobCancelled):
                    await caller.result()
            assert (bench.engine.jobs, bench.folders) == ([], [])
            assert bench.engine.cancel(job.id, "anna") is None


# --- the queue ---


async def test_the_queue_has_an_end_and_a_slot_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path, limits=TWO_JOBS) as bench:
        with bench.engine.admit(), bench.engine.admit():
            with pytest.raises(QueueFull) as caught, bench.engine.admit():
                pass
            assert caught.value.retry_after is not None
        with bench.engine.admit():
            pass


async def test_retries_have_a_reserve_that_has_an_end_too(tmp_path: Path) -> None:
    async with running(tmp_path, limits=TWO_JOBS) as bench:
        with ExitStack() as stack:
            for retry in (False, False, True):
                stack.enter_context(bench.engine.admit(retry=retry))
            for retry in (False, True):
                with pytest.raises(QueueFull), bench.engine.admit(retry=retry):
                    pass


async def test_a_retry_that_meets_its_job_gives_its_slot_and_its_room_back(tmp_path: Path) -> None:
    async with running(tmp_path, HeldDecoders()) as bench:
        with bench.submitted(digest="d", size=1000) as job:
            taken = bench.engine.admission.slots, bench.engine.admission.bytes
            with bench.engine.admit(2000) as upload:
                upload.source.write_text("")
                with bench.engine.submit(upload, job.work) as same:
                    assert same is job
                    assert (bench.engine.admission.slots, bench.engine.admission.bytes) == taken
                    assert bench.folders == [job.source.parent]


async def test_uploads_have_room_on_the_disk_together_and_a_large_one_alone(tmp_path: Path) -> None:
    limits = QueueLimits(jobs=9, spool_bytes=1000, audio_s=3600)
    async with running(tmp_path, limits=limits) as bench:
        with bench.engine.admit(5000), pytest.raises(QueueFull), bench.engine.admit(1):
            pass
        with bench.engine.admit(600) as upload, bench.engine.admit(400), pytest.raises(QueueFull):
            upload.grow(601)
        assert bench.engine.admission.bytes == 0


async def test_audio_over_the_limit_is_refused_to_the_newcomer_alone(tmp_path: Path) -> None:
    long = [part(0, 1, done=False, declared_s=20), part(1, 2, done=True)]
    held = HeldDecoders(long=long, short=[part(0, 1, done=False), part(1, 2, done=True)])
    async with running(tmp_path, held, limits=QueueLimits(jobs=9, spool_bytes=2**20, audio_s=10)) as bench:
        bench.worker.hold()
        with bench.submitted("long") as first:
            await until(lambda: first.running)
            assert not first.over, "alone it is welcome, however long"
            with bench.submitted("short") as second:
                with pytest.raises(QueueFull, match="hours of audio") as caught:
                    await second.result()
                assert 1 <= (caught.value.retry_after or 0) <= 120
            bench.worker.release()
            held.go_on.set()
            assert (await first.result()).text == "w0 w1000"


async def test_a_job_that_has_begun_is_not_refused_for_what_came_after_it(tmp_path: Path) -> None:
    growing = [part(0, 1, done=False), part(1, 2, done=False, declared_s=30), part(2, 3, done=True)]
    held = HeldDecoders(growing=growing, short=[part(0, 1, done=False), part(1, 2, done=True)])
    async with running(tmp_path, held, limits=QueueLimits(jobs=9, spool_bytes=2**20, audio_s=10)) as bench:
        with bench.submitted("growing") as first, bench.submitted("short") as second:
            await first_text(first)
            await first_text(second)
            held.go_on.set()  # the first turns out to be longer than all the queue holds
            assert (await first.result()).text == "w0 w1000 w2000"
            assert (await second.result()).text == "w0 w1000"


# --- one job for the same work ---


async def test_two_callers_of_the_same_work_share_one_job(tmp_path: Path) -> None:
    async with running(tmp_path, decoders()) as bench:
        with bench.submitted("three", digest="d") as job, bench.submitted("three", digest="d") as same:
            assert same is job
            assert bench.engine.jobs == [job]
            assert (await job.result()).text == "w0 w1000 w2000"
            assert await same.result() is await job.result()
        assert bench.decoders.calls == 1
        assert windows_of(bench.steps()) == [0, 1000, 2000]


async def test_a_caller_who_joins_late_gets_all_segments(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted(digest="d") as job:
            await first_text(job)
            with bench.submitted(digest="d") as same:
                bench.decoders.go_on.set()
                assert [segment.text async for fresh in same.segments() for segment in fresh] == [" w0", " w1000"]


async def test_the_first_callers_leaving_ends_nothing_for_the_second(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with ExitStack() as first:
            job = first.enter_context(bench.submitted(digest="d"))
            with bench.submitted(digest="d"):
                await first_text(job)
                first.close()
                bench.decoders.go_on.set()
                assert (await job.result()).text == "w0 w1000"


async def test_the_last_callers_leaving_ends_a_job_that_is_not_to_be_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted(digest="d") as job, bench.submitted(digest="d"):
            await first_text(job)
        assert (job.outcome, bench.folders) == ("cancelled", [])
        with bench.submitted(digest="d") as another:
            assert another is not job


@pytest.mark.parametrize(
    "other",
    [
        {"digest": ""},
        {"digest": "e"},
        {"owner": "bert"},
        {"model_path": "another"},
        {"options": Options(language="de")},
        {"options": Options(language="en", prompt="Grüße")},
        {"options": Options(language="en", temperature=0.2)},
        {"options": Options(language="en", words=True)},
        {"options": Options(language="en", task="translate")},
    ],
    ids=lambda other: str(other),
)
async def test_other_work_is_never_shared(tmp_path: Path, other: dict[str, Any]) -> None:
    work = {"digest": "d", "owner": "anna"}
    async with running(tmp_path, keep_s=60) as bench:
        with (
            bench.submitted(**work) as job,
            bench.submitted(**work) as same,
            bench.submitted(**{**work, **other}) as its,
        ):
            assert same is job
            assert its is not job


async def test_work_without_a_digest_is_not_even_shared_with_its_like(tmp_path: Path) -> None:
    async with running(tmp_path, keep_s=60) as bench:
        with bench.submitted() as job, bench.submitted() as other:
            assert other is not job


async def test_somebody_who_waits_brings_a_job_of_the_background_forward(tmp_path: Path) -> None:
    held = decoders(one=[part(0, 1, done=True)])
    async with running(tmp_path, held) as bench:
        bench.worker.hold()
        with (
            bench.submitted(digest="now"),
            bench.submitted("one", digest="behind", background=True) as job,
            bench.submitted("three", digest="before") as before,
        ):
            await until(lambda: bench.worker.holds)
            assert bench.engine.device.place(job).position > bench.engine.device.place(before).position
            with bench.submitted("one", digest="behind"):
                assert not job.background
                assert bench.engine.device.place(job).position < bench.engine.device.place(before).position
            bench.worker.release()


# --- what is kept for a retry ---


async def test_the_same_work_again_is_answered_from_what_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path, decoders(), keep_s=60) as bench:
        with bench.submitted("three", digest="d") as job:
            transcript = await job.result()
        assert (bench.engine.jobs, bench.engine.admission.slots, bench.folders) == ([], 0, [])
        with bench.submitted("three", digest="d") as same:
            assert await same.result() is transcript
            assert [segment.text async for fresh in same.segments() for segment in fresh] == [" w0", " w1000", " w2000"]
        assert bench.decoders.calls == 1
        assert windows_of(bench.steps()) == [0, 1000, 2000]


async def test_a_job_that_failed_is_done_anew(tmp_path: Path) -> None:
    script = {"on_window": {"16000": "raise"}, "once": str(tmp_path / "failed")}
    async with running(tmp_path, decoders(), script=script, keep_s=60) as bench:
        with bench.submitted(digest="d") as job, pytest.raises(WhisperdError, match="RuntimeError"):
            await job.result()
        with bench.submitted(digest="d") as another:
            assert (await another.result()).text == "w0 w1000"


async def test_a_job_that_its_callers_left_goes_on_where_it_was(tmp_path: Path) -> None:
    async with running(tmp_path, decoders(), keep_s=60) as bench:
        bench.worker.hold()
        with bench.submitted("three", digest="d") as job:
            await until(lambda: bench.worker.holds)
            bench.worker.release()
            await first_text(job)
            bench.worker.hold()
            await until(lambda: bench.worker.holds)
        assert job.parked
        bench.worker.release()
        await until(lambda: len(job.steps) == 2)
        await anyio.sleep(0.2)
        assert windows_of(bench.steps()) == [0, 1000], "the device works for nobody"
        with bench.submitted("three", digest="d") as same:
            assert same is job
            assert (await job.result()).text == "w0 w1000 w2000"
        assert bench.decoders.calls == 1
        assert windows_of(bench.steps()) == [0, 1000, 2000]


async def test_a_job_left_in_the_midst_of_decoding_does_no_window_twice(tmp_path: Path) -> None:
    async with running(tmp_path, keep_s=60) as bench:
        with bench.submitted(digest="d") as job:
            await first_text(job)
        await bench.decoders.given_up.wait()
        bench.decoders.go_on.set()
        with bench.submitted(digest="d") as same:
            assert same is job
            assert (await job.result()).text == "w0 w1000"
        assert bench.decoders.calls == 2
        assert windows_of(bench.steps()) == [0, 1000]


async def test_a_result_that_comes_when_everybody_has_left_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path, decoders(), keep_s=60) as bench:
        with bench.submitted(digest="d") as job:
            await first_text(job)
            bench.worker.hold()
            await until(lambda: bench.worker.holds)
        bench.worker.release()
        await until(lambda: job.over)
        assert (bench.engine.admission.slots, bench.engine.admission.bytes, bench.folders) == (0, 0, [])
        with bench.submitted(digest="d") as same:
            assert (await same.result()).text == "w0 w1000"
        assert windows_of(bench.steps()) == [0, 1000]


async def test_a_job_left_during_its_first_step_keeps_that(tmp_path: Path) -> None:
    async with running(tmp_path, decoders(), keep_s=60) as bench:
        bench.worker.hold()
        with bench.submitted("three", digest="d") as job:
            await until(lambda: bench.worker.holds)
        bench.worker.release()
        with bench.submitted("three", digest="d") as same:
            assert same is job
            assert (await job.result()).text == "w0 w1000 w2000"
        assert windows_of(bench.steps()) == [0, 1000, 2000]


async def test_a_job_that_the_device_has_done_nothing_for_is_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path, script={"load_seconds": 0.3}, keep_s=60) as bench:
        with bench.submitted(digest="d") as job:
            await until(lambda: job.wants_step)
        assert (job.outcome, bench.folders) == ("cancelled", [])


async def test_a_job_left_while_its_model_is_loading_gets_no_step(tmp_path: Path) -> None:
    held = HeldDecoders(one=[part(5, 6, done=True)])
    async with running(tmp_path, held, script={"load_seconds": 0.3}, keep_s=60) as bench:
        with bench.submitted(digest="d") as job:
            await first_text(job)
            with bench.submitted("one", model_path=bench.model("other")) as other:
                await other.result()
            held.go_on.set()
            await until(lambda: not bench.worker.ready and job.wants_step)
        await until(lambda: bench.worker.ready)
        await anyio.sleep(0.2)
        assert windows_of(bench.steps()) == [0, 5000]
        with bench.submitted(digest="d"):
            assert (await job.result()).text == "w0 w1000"


async def test_a_left_job_has_no_slot_but_its_room_on_the_disk(tmp_path: Path) -> None:
    async with running(tmp_path, keep_s=60) as bench:
        with bench.submitted(digest="d", size=1000) as job:
            await first_text(job)
        admission = bench.engine.admission
        assert (bench.engine.jobs, admission.slots, admission.bytes) == ([], 0, 1000)
        assert bench.folders == [job.source.parent]
        with bench.submitted(digest="d"):
            assert (bench.engine.jobs, admission.slots, admission.bytes) == ([job], 1, 1000)
        assert (bench.engine.jobs, admission.slots, admission.bytes) == ([], 0, 1000)


async def test_left_jobs_make_room_the_oldest_first(tmp_path: Path) -> None:
    limits = QueueLimits(jobs=9, spool_bytes=1000, audio_s=3600)
    async with running(tmp_path, keep_s=60, limits=limits) as bench:
        jobs = []
        for digest in ("first", "second"):
            with bench.submitted(digest=digest, size=400) as job:
                await first_text(job)
            jobs.append(job)
        with bench.engine.admit(600) as upload:
            assert [job.outcome for job in jobs] == ["cancelled", ""]
            assert sorted(bench.folders) == sorted([jobs[1].source.parent, upload.folder])
        assert bench.engine.admission.bytes == 400
        with bench.engine.admit(601):
            assert jobs[1].outcome == "cancelled"


async def test_a_job_that_nobody_comes_back_to_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, keep_s=0.2) as bench:
        with bench.submitted(digest="d", size=1000) as job:
            await first_text(job)
        assert job.parked
        await until(lambda: job.over)
        assert (job.outcome, bench.engine.admission.bytes, bench.folders) == ("cancelled", 0, [])
        bench.decoders.go_on.set()
        with bench.submitted(digest="d") as another:
            assert (await another.result()).text == "w0 w1000"
        assert windows_of(bench.steps()) == [0, 0, 1000]


async def test_a_result_is_forgotten_after_its_time(tmp_path: Path) -> None:
    async with running(tmp_path, decoders(), keep_s=0.2) as bench:
        with bench.submitted(digest="d") as job:
            await job.result()
        await anyio.sleep(1.5)  # results are looked at every second
        with bench.submitted(digest="d") as another:
            await another.result()
        assert windows_of(bench.steps()) == [0, 1000, 0, 1000]


def finished(digest: str, *, hours: float = 0.0) -> Job:
    """A job as it is once it is over."""
    job = Job(Work(ENGLISH, "model", digest=digest), Path("upload"), Path("pcm"))
    job.add(Decoded((), int(hours * 3600 * SAMPLE_RATE), None, True))
    return job


@pytest.mark.parametrize(("hours", "kept"), [(0.0, 32), (1.0, 6), (7.0, 1)])
async def test_of_many_results_the_newest_are_kept(hours: float, kept: int) -> None:
    recent, jobs = Recent(life_s=60), [finished(str(number), hours=hours) for number in range(40)]
    for job in jobs:
        recent.add(job)
        assert recent.keep(job)
    assert sorted(job.work.digest for job in recent.outlived()) == sorted(job.work.digest for job in jobs[:-kept])


# --- the end ---


async def test_draining_ends_what_does_not_end_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted() as job:
            await bench.engine.drain(0.1)
            with pytest.raises(ShuttingDown):
                await job.result()
            with pytest.raises(ShuttingDown), bench.engine.admit():
                pass


async def test_draining_gives_time_to_what_does(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.submitted() as job:
            await first_text(job)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bench.engine.drain, 20)
                await until(lambda: bench.engine.closing)
                bench.decoders.go_on.set()
                assert (await job.result()).text == "w0 w1000"


async def test_draining_leaves_nothing_of_jobs_that_their_callers_left(tmp_path: Path) -> None:
    async with running(tmp_path, keep_s=60) as bench:
        with bench.submitted(digest="d") as job:
            await first_text(job)
        await bench.engine.drain(20)
        assert (job.outcome, bench.folders) == ("cancelled", [])


async def test_an_upload_that_is_whole_only_after_the_drain_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        with bench.engine.admit() as upload:
            upload.source.write_text("")
            await bench.engine.drain(0.1)
            with pytest.raises(ShuttingDown), bench.engine.submit(upload, Work(ENGLISH, "model")):
                pass
        assert bench.folders == []
