"""Jobs on disk with a real store, a real engine and a real worker (the fake backend), and with a decoder that takes an
upload's first letter for its number of seconds.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.backends.base import StepResult
from app.engine import durable
from app.engine.admission import Admission, QueueLimits, Upload
from app.engine.device import Device
from app.engine.durable import DurableJobs
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.engine.job_rows import JobRecord
from app.engine.job_store import JobStore
from app.engine.relay import Relay
from app.engine.spool import Spool
from app.engine.succession import Candidate
from app.engine.worker import Worker, WorkerSettings
from app.errors import QueueFull, StorageFull, WhisperdError
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE, Options, Window
from app.worker.messages import Decoded

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SpelledDecoders:
    """``b"3..."`` is three windows of a second each; ``b"0..."`` is never opened; ``b"3?"`` does not say how long it
    is, and its seconds come 0.3 s apart. The samples are silence.
    """

    memory = 0

    def __init__(self) -> None:
        self.opened: list[bytes] = []
        #: Nothing is decoded before.
        self.go_on = anyio.Event()
        self.go_on.set()

    async def warm_up(self) -> None:
        pass

    async def decode(self, source: Path, pcm: Path, vad: object, longest: int) -> AsyncIterator[Decoded]:
        upload = await anyio.Path(source).read_bytes()
        self.opened.append(upload)
        seconds = int(upload[:1])
        if not seconds:
            await anyio.sleep_forever()
        await self.go_on.wait()
        await anyio.Path(pcm).write_bytes(bytes(2 * seconds * SAMPLE_RATE))
        spans = [(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE) for second in range(seconds)]
        windows = tuple(Window(start, end, ((start, end),)) for start, end in spans)
        if b"?" in upload:
            for window in windows:
                yield Decoded((window,), window.end, None, False)
                await anyio.sleep(0.3)
            windows = ()
        yield Decoded(windows, seconds * SAMPLE_RATE, float(seconds), True)

    async def aclose(self) -> None:
        pass


@dataclass
class House:
    """A server's inside without its HTTP. A step takes 0.1 s; ``steps`` is where they are logged."""

    folder: Path
    engine: Engine
    jobs: DurableJobs
    store: JobStore
    decoders: SpelledDecoders
    options: Options = field(default_factory=lambda: Options(language="en"))

    def work(self, upload: bytes, owner: str = "a", model: str = "good") -> Work:
        return Work(self.options, str(self.folder / model), model, hashlib.sha256(upload).hexdigest(), owner)

    @contextmanager
    def admitted(self, upload: bytes) -> Iterator[Upload]:
        with self.engine.admit(len(upload)) as admitted:
            admitted.source.write_bytes(upload)
            yield admitted

    async def accept(
        self, upload: bytes, *, owner: str = "a", model: str = "good", background: bool = False
    ) -> JobRecord:
        with self.admitted(upload) as admitted:
            return await self.jobs.accept(
                admitted,
                self.work(upload, owner, model),
                response_format="json",
                granularities=("segment",),
                background=background,
            )

    @contextmanager
    def requested(self, upload: bytes, owner: str = "a") -> Iterator[Job]:
        """A request for the same work that somebody waits for."""
        with self.admitted(upload) as admitted, self.engine.submit(admitted, self.work(upload, owner)) as job:
            yield job

    async def over(self, record: JobRecord) -> JobRecord:
        """The job once it is over."""
        await until(lambda: self.stored(record).status != "waiting")
        return self.stored(record)

    def stored(self, record: JobRecord) -> JobRecord:
        """The job as it lies on the disk."""
        found = self.store.get(record.id, record.owner)
        assert found is not None
        return found

    async def text(self, record: JobRecord) -> str:
        """What a job says, once it is over."""
        assert (await self.over(record)).status == "completed"
        transcript = await self.jobs.transcript(record.id, record.owner)
        assert transcript is not None
        return transcript.text

    async def begun(self, record: JobRecord, steps: int = 1) -> Job:
        """The job as the engine works on it, once so many steps of it are done."""
        await until(lambda: (live := self.jobs.live(record.id)) is not None and len(live.steps) >= steps)
        job = self.jobs.live(record.id)
        assert job is not None
        return job


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - many things are waited for, and few have an event
            await anyio.sleep(0.01)


@asynccontextmanager
async def house(
    folder: Path,
    *,
    ttl_s: float = 3600,
    max_bytes: int = 2**20,
    waiting_bytes: int = 2**20,
    audio_s: float = 3600,
    **script: Any,
) -> AsyncIterator[House]:
    """The models ``good`` and ``broken`` (which cannot be loaded); ``script`` is more of the fake's, for ``good``."""
    given = {"seconds_per_step": 0.1, "log": str(folder / "steps"), **script}
    (folder / "good").write_text(json.dumps(given))
    (folder / "broken").write_text(json.dumps({"load": "unavailable"}))
    spool, metrics = Spool(folder / "spool"), Metrics()
    relay = Relay(Worker(WorkerSettings(folder, spool.empty, 60), metrics), metrics)
    device = Device(relay, metrics, lambda _, path: (Candidate("fake", path),), max_batch=1, step_timeout_s=60)
    decoders = SpelledDecoders()
    limits = QueueLimits(jobs=8, spool_bytes=2**20, audio_s=audio_s)
    engine = Engine(Admission(spool, limits), device, decoders, metrics)
    store = JobStore(folder / "jobs")
    jobs = DurableJobs(store, engine, metrics, ttl_s=ttl_s, max_bytes=max_bytes, waiting_bytes=waiting_bytes)
    async with engine.running(str(folder / "good")), jobs.running():
        yield House(folder, engine, jobs, store, decoders)


def steps_of(folder: Path) -> list[int]:
    """The windows that the device began with, in order, each by its second."""
    events = [json.loads(line) for line in (folder / "steps").read_text().splitlines()]
    return [event["windows"][0][0] // SAMPLE_RATE for event in events if event["event"] == "begin"]


# --- whose jobs ---


async def test_another_owner_sees_nothing_of_a_job_and_cannot_end_it(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        mine = await it.accept(b"3")
        for when in ("running", "completed"):
            assert await it.jobs.get(mine.id, "b") is None, when
            assert await it.jobs.transcript(mine.id, "b") is None, when
            assert await it.jobs.listed("b", 10) == [], when
            assert not await it.jobs.delete(mine.id, "b"), when
            assert await it.text(mine) == "w0 w1000 w2000"
        assert [job.id for job in await it.jobs.listed("a", 10)] == [mine.id]


async def test_another_owners_same_upload_is_a_job_of_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        mine, theirs = await it.accept(b"2"), await it.accept(b"2", owner="b")
        assert mine.id != theirs.id
        assert await it.jobs.delete(mine.id, "a")
        assert await it.text(theirs) == "w0 w1000"
        assert await it.jobs.listed("a", 10) == []


# --- how long they are kept ---


async def test_a_finished_job_is_kept_so_long_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_EXPIRE_S", 0.05)
    async with house(tmp_path, ttl_s=0.5) as it:
        finished, waiting = await it.accept(b"1"), await it.accept(b"0")
        assert await it.text(finished) == "w0"
        await until(lambda: it.store.get(finished.id, "a") is None)
        assert await it.jobs.transcript(finished.id, "a") is None
        assert (await it.jobs.listed("a", 10))[0].id == waiting.id, "what is not over does not grow old"


async def test_the_oldest_results_go_where_all_take_too_much_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_EXPIRE_S", 0.05)
    async with house(tmp_path, max_bytes=3000, text="x" * 1000) as it:
        first = await it.accept(b"1 first")
        await it.over(first)
        others = [await it.accept(f"1 {name}".encode()) for name in ("second", "third", "fourth")]
        await it.over(others[-1])
        await until(lambda: it.store.get(first.id, "a") is None)
        assert others[-1].id in [job.id for job in await it.jobs.listed("a", 10)]


async def test_uploads_that_wait_have_a_limit_and_give_their_room_back(tmp_path: Path) -> None:
    async with house(tmp_path, waiting_bytes=1000) as it:
        stuck = await it.accept(b"0" * 2000)  # what comes alone is taken
        with pytest.raises(QueueFull):
            await it.accept(b"1")
        assert list((tmp_path / "spool").glob("server-*/job-*")) == []
    async with house(tmp_path, waiting_bytes=1000) as it:
        with pytest.raises(QueueFull):
            await it.accept(b"1")
        assert await it.jobs.delete(stuck.id, "a")
        done = await it.accept(b"1" * 1000)
        with pytest.raises(QueueFull):
            await it.accept(b"2")
        assert await it.text(done) == "w0"
        await until(lambda: it.jobs.live(done.id) is None)
        running, waiting = await it.accept(b"0" * 500), await it.accept(b"1" * 500)
        with pytest.raises(QueueFull):
            await it.accept(b"2")
        assert it.jobs.ahead(waiting.id) == 0
        assert await it.jobs.delete(waiting.id, "a")
        await it.accept(b"2" * 500)
        with pytest.raises(QueueFull):
            await it.accept(b"3")
        assert await it.jobs.delete(running.id, "a")
        await it.accept(b"3" * 500)


async def test_an_upload_that_came_whole_is_a_job_even_if_its_client_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as it:
        begun, go_on, add = anyio.Event(), threading.Event(), it.store.add

        def slow_add(record: JobRecord, upload: Path) -> None:
            anyio.from_thread.run_sync(begun.set)
            go_on.wait(10)
            add(record, upload)

        monkeypatch.setattr(it.store, "add", slow_add)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.accept, b"1")
            await begun.wait()
            tasks.cancel_scope.cancel()
            go_on.set()
        (kept,) = await it.jobs.listed("a", 10)
        assert await it.text(kept) == "w0"


# --- one job, several who want it ---


async def test_the_same_upload_twice_at_once_is_one_job(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(it.accept, b"3")
        (record,) = await it.jobs.listed("a", 10)
        assert await it.text(record) == "w0 w1000 w2000"


async def test_a_job_of_the_background_is_ordinary_once_it_is_asked_for_as_such(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        record = await it.accept(b"5", background=True)
        job = await it.begun(record)
        assert job.background
        assert (await it.accept(b"5")).id == record.id
        assert not job.background


async def test_a_job_meets_the_request_that_does_its_work(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with it.requested(b"5") as request:
            record = await it.accept(b"5")
            await until(lambda: it.jobs.live(record.id) is request)
            text = (await request.result()).text
        assert await it.text(record) == text
        assert steps_of(tmp_path) == [0, 1, 2, 3, 4], "the device did it once"


async def test_a_job_goes_on_where_the_request_that_it_met_is_left(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with it.requested(b"5") as request:
            record = await it.accept(b"5")
            await until(lambda: it.jobs.live(record.id) is request)
        assert await it.text(record) == "w0 w1000 w2000 w3000 w4000"
        assert steps_of(tmp_path) == [0, 1, 2, 3, 4]


async def test_a_deleted_job_leaves_the_request_that_it_met_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with it.requested(b"5") as request:
            record = await it.accept(b"5")
            await until(lambda: it.jobs.live(record.id) is request)
            assert await it.jobs.delete(record.id, "a")
            assert (await request.result()).text == "w0 w1000 w2000 w3000 w4000"
        assert await it.jobs.listed("a", 10) == []


async def test_a_request_meets_the_job_that_does_its_work_and_may_leave_it(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        record = await it.accept(b"5", background=True)
        job = await it.begun(record)
        with it.requested(b"5") as met:
            assert met is job
            assert not job.background, "somebody waits for it now"
        with it.requested(b"5") as met:
            assert (await met.result()).text == "w0 w1000 w2000 w3000 w4000"
        assert await it.text(record) == "w0 w1000 w2000 w3000 w4000"
        assert steps_of(tmp_path) == [0, 1, 2, 3, 4]


# --- how they are taken up ---


async def test_jobs_are_opened_one_after_the_other_and_no_more_than_half_of_the_queue_takes(tmp_path: Path) -> None:
    async with house(tmp_path, audio_s=8) as it:
        first, second, third = [await it.accept(upload) for upload in (b"5 first", b"5 second", b"1 third")]
        await it.begun(first)
        assert it.decoders.opened == [b"5 first"], "it alone is more than half of 8 s"
        assert [it.jobs.ahead(record.id) for record in (first, second, third)] == [None, 0, 1]
        await it.begun(second)
        assert len((await it.begun(first)).steps if it.jobs.live(first.id) else range(5)) >= 2
        for record in (first, second, third):
            await it.over(record)
        assert it.decoders.opened == [b"5 first", b"5 second", b"1 third"]


async def test_a_job_whose_model_cannot_be_loaded_keeps_no_other_waiting(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        stuck = await it.accept(b"1", model="broken")
        following = await it.accept(b"2")
        assert await it.text(following) == "w0 w1000"
        assert it.stored(stuck).status == "waiting", "it will be tried again"
        assert await it.jobs.delete(stuck.id, "a")


async def test_a_bug_costs_its_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as it:
        steps = it.store.steps
        hit: list[str] = []

        def broken_steps(job_id: str) -> list[StepResult]:
            if not hit or job_id in hit:
                hit.append(job_id)
                raise ZeroDivisionError
            return steps(job_id)

        monkeypatch.setattr(it.store, "steps", broken_steps)
        hurt, other = await it.accept(b"1 hurt"), await it.accept(b"2 other")
        assert await it.text(other) == "w0 w1000"
        assert set(hit) == {hurt.id}
        assert await it.jobs.delete(hurt.id, "a")


async def test_a_full_disk_makes_a_job_wait_and_costs_it_no_step_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StorageFull, "retry_after", 1)
    async with house(tmp_path) as it:
        append, calls = it.store.append, []

        def full_once(job_id: str, step: StepResult) -> None:
            calls.append(step)
            if len(calls) == 3:
                raise StorageFull("The server's disk is full.")
            append(job_id, step)

        monkeypatch.setattr(it.store, "append", full_once)
        record = await it.accept(b"6")
        assert await it.text(record) == "w0 w1000 w2000 w3000 w4000 w5000"
        steps = steps_of(tmp_path)
        assert steps.count(0) == steps.count(1) == 1
        assert steps.count(2) == 2


# --- from one server's life to the next ---


async def test_a_job_goes_on_behind_its_last_finished_step_in_the_next_life(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        record = await it.accept(b"6")
        await it.begun(record, 3)
        await it.engine.drain(0)
    before = steps_of(tmp_path)
    assert 3 <= len(before) < 6
    async with house(tmp_path) as it:
        assert await it.text(record) == "w0 w1000 w2000 w3000 w4000 w5000"
    again = steps_of(tmp_path)[len(before) :]
    assert again == list(range(again[0], 6))
    assert again[0] >= len(before) - 2, "the one in flight, and one that was just being written"


async def test_the_language_that_was_found_is_kept_for_the_next_life(tmp_path: Path) -> None:
    async with house(tmp_path, language="de") as it:
        it.options = Options()
        record = await it.accept(b"4")
        await it.begun(record, 2)
        await it.engine.drain(0)
    async with house(tmp_path, language="es") as it:
        assert await it.text(record) == "w0 w1000 w2000 w3000"
        transcript = await it.jobs.transcript(record.id, "a")
        assert transcript is not None
        assert transcript.language == "de"


async def test_what_went_back_to_the_queue_waits_for_the_decoder_in_the_next_life(tmp_path: Path) -> None:
    """Rests of windows are known before their sound is there again: a loss of power may cost the samples."""
    async with house(tmp_path, max_audio=SAMPLE_RATE // 4) as it:
        record = await it.accept(b"4")
        await it.begun(record, 1)
        await it.engine.drain(0)
    (it.store.folder_of(record.id) / "pcm").unlink()
    async with house(tmp_path, max_audio=SAMPLE_RATE // 4) as it:
        it.decoders.go_on = anyio.Event()
        await until(lambda: it.engine.device.relay.ready)
        await anyio.sleep(0.3)
        it.decoders.go_on.set()
        assert await it.text(record) == "w0 w250 w1000 w1250 w2000 w2250 w3000 w3250"


async def test_a_share_never_falls_though_the_recording_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    """Browsers record so, and decoding is no faster than the device always."""
    async with house(tmp_path) as it:
        record = await it.accept(b"4?")
        job = await it.begun(record)
        shares: list[float] = []
        while not job.over:
            shares.append(job.progress.share)
            await anyio.sleep(0.02)
        assert shares == sorted(shares)
        assert len(shares) > 20


async def test_a_job_says_nothing_of_its_share_until_its_length_is_known_again(tmp_path: Path) -> None:
    """What was done before the restart is all that is known of the recording then."""
    async with house(tmp_path) as it:
        record = await it.accept(b"6")
        await it.begun(record, 3)
        await until(lambda: len(it.store.steps(record.id)) >= 3)  # a step is written down while the next one runs
        await it.engine.drain(0)
    async with house(tmp_path) as it:
        it.decoders.go_on = anyio.Event()
        job = await it.begun(record, 3)
        assert job.progress.share < 1
        it.decoders.go_on.set()
        assert await it.text(record) == "w0 w1000 w2000 w3000 w4000 w5000"


async def test_jobs_keep_their_order_and_what_they_were_asked_in_the_next_life(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        stuck = await it.accept(b"0")
        records = [await it.accept(f"1 {name}".encode(), background=True) for name in ("first", "second", "third")]
    async with house(tmp_path) as it:
        assert await it.jobs.delete(stuck.id, "a")
        for record in records:
            assert (await it.over(record)).background
        opened = [content for content in it.decoders.opened if content != b"0"]
        assert opened[-3:] == [b"1 first", b"1 second", b"1 third"]
        finished = [(await it.over(record)).finished for record in records]
        assert finished == sorted(finished)


async def test_errors_of_the_engine_end_a_job_for_good(tmp_path: Path) -> None:
    async with house(tmp_path, on_step={"1": "raise"}) as it:
        record = await it.over(await it.accept(b"1"))
        assert record.status == "failed"
        assert record.error is not None
        error = record.error.restored()
        assert isinstance(error, WhisperdError)
        assert (error.code, error.status) == ("inference_failed", 500)
        assert await it.jobs.transcript(record.id, "a") is None
