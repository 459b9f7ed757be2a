"""The device: how many windows a step has, whose step is next, which model is loaded, and what it does while idle."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from app.backends.base import Memory, StepResult, WindowResult
from app.engine.device import Device
from app.engine.job import Job, Work
from app.engine.relay import Relay
from app.engine.succession import Candidate
from app.errors import BackendUnavailable, JobCancelled, WorkerDied
from app.metrics import Metrics
from app.transcript import Options
from tests.engine.reins import HeldDecoders, first_text, part, running, until
from tests.steps import lines_of, overlap, processes_of, windows_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def recordings() -> HeldDecoders:
    """Recordings that are decoded at once: ``one`` window, ``nine`` of them, and nine ``later`` ones."""
    nine, later = part(0, 9, done=True), part(100, 109, done=True)
    return HeldDecoders(one=[part(0, 1, done=True)], nine=[nine], later=[later])


# --- steps ---


async def test_a_job_alone_is_given_many_windows_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, recordings(), max_batch=4) as bench:
        with bench.submitted("nine") as job:
            await job.result()
        sizes = [len(step.windows) for step in bench.steps()]
        assert sum(sizes) == 9
        assert max(sizes) == 4


async def test_slow_windows_are_given_as_many_as_fit_in_two_seconds(tmp_path: Path) -> None:
    async with running(tmp_path, recordings(), script={"seconds_per_audio": 0.55}, max_batch=8) as bench:
        with bench.submitted("nine"):
            await until(lambda: len(bench.steps()) == 2)
        assert [len(step.windows) for step in bench.steps()] == [1, 3], "one to see how long it takes"


@pytest.mark.parametrize("calm_s", [0, 60])
async def test_where_others_wait_or_did_a_moment_ago_a_step_has_one_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm_s: float
) -> None:
    monkeypatch.setattr("app.engine.device._CALM_S", calm_s)
    script = {"load_seconds": 0.2}  # so that both wait before the first step
    async with running(tmp_path, recordings(), script=script, max_batch=4) as bench:
        with bench.submitted("nine") as job, bench.submitted("later") as other:
            await job.result()
            await other.result()
        left, sizes = {False: 9, True: 9}, {True: set(), False: set()}
        for step in bench.steps():
            sizes[all(left.values())].add(len(step.windows))
            left[step.windows[0] >= 100_000] -= len(step.windows)
        assert left == {False: 0, True: 0}
        assert sizes[True] == {1}, "while both wait"
        assert max(sizes[False]) == (1 if calm_s else 4), "once one is done"


async def test_a_short_recording_goes_before_a_long_one_that_came_first(tmp_path: Path) -> None:
    async with running(tmp_path, recordings()) as bench:
        bench.worker.hold()
        with bench.submitted("later") as long:
            await until(lambda: bench.worker.holds)
            with bench.submitted("one") as short:
                await until(lambda: short.wants_step)
                bench.worker.release()
                await short.result()
                assert not long.over
                await long.result()
        assert windows_of(bench.steps())[:2] == [100_000, 0]


async def test_a_place_tells_who_goes_before_and_how_long_it_takes(tmp_path: Path) -> None:
    async with running(tmp_path, recordings(), script={"seconds_per_audio": 0.1}) as bench:
        place = bench.engine.device.place
        with bench.submitted("one") as job:
            assert (place(job).position, place(job).seconds) == (1, None), "nobody knows how fast the device is"
            await job.result()
        bench.worker.hold()
        with bench.submitted("nine") as long:
            await until(lambda: bench.worker.holds)
            with bench.submitted("one") as short:
                await until(lambda: short.wants_step)
                assert [place(short).position, place(long).position] == [1, 2]
                seconds = [place(short).seconds or 0, place(long).seconds]
                assert seconds[0] >= 0.1
                assert seconds[1] == pytest.approx(10 * seconds[0]), "its own nine windows, and the one before them"
                bench.worker.release()
                await long.result()


# --- models ---


async def test_jobs_of_two_models_are_grouped_by_model(tmp_path: Path) -> None:
    async with running(tmp_path, recordings()) as bench:
        models = [bench.model(name, load_seconds=0.5, seconds_per_step=0.01) for name in ("left", "right")]
        for model in [*models, *models]:  # so that it is known how much could be done in the time of a load
            with bench.submitted("one", model_path=model) as job:
                await job.result()
        bench.worker.hold()
        with ExitStack() as stack:
            stack.enter_context(bench.submitted("one", model_path=models[1]))
            await until(lambda: bench.worker.holds)
            jobs = [stack.enter_context(bench.submitted("one", model_path=models[n % 2])) for n in range(12)]
            await until(lambda: all(job.wants_step for job in jobs))
            bench.worker.release()
            for job in jobs:
                assert (await job.result()).text == "w0"
        steps = bench.steps()
        runs = [len(list(group)) for _, group in groupby(steps, key=lambda step: step.log)]
        assert runs == [1, 1, 1, 8, 6]
        assert len({step.pid for step in steps}) == 5
        assert not overlap(steps)


async def test_the_other_model_is_not_kept_waiting_for_ever(tmp_path: Path) -> None:
    """There is always another job for the model that is loaded."""
    async with running(tmp_path, recordings(), script={"seconds_per_step": 0.01, "load_seconds": 0.05}) as bench:
        other = bench.model("other")
        with ExitStack() as stack:
            await stack.enter_context(bench.submitted("one")).result()
            waiting = stack.enter_context(bench.submitted("one", model_path=other))
            jobs = [stack.enter_context(bench.submitted("one"))]
            while not waiting.over:
                jobs.append(stack.enter_context(bench.submitted("one")))
                await jobs[-2].result()
                jobs = jobs[-1:]
            assert (await waiting.result()).text == "w0"


async def test_a_model_that_cannot_be_loaded_fails_its_own_jobs_alone(tmp_path: Path) -> None:
    async with running(tmp_path, recordings()) as bench:
        broken = bench.model("broken", load="unavailable")
        with bench.submitted("one", model_path=broken) as job, bench.submitted("one") as sound:
            with pytest.raises(BackendUnavailable, match="could not be loaded"):
                await job.result()
            assert (await sound.result()).text == "w0"
        await until(lambda: bench.worker.ready)
        assert bench.worker.candidate.model_path.endswith("/model"), "the one that is there at the start is there again"


# --- one after the other ---


async def test_a_job_that_kills_a_worker_twice_goes_on_with_the_next_and_the_first_has_its_place_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, recordings(), script={"on_window": {"0": "kill"}}, fallback="other") as bench:
        bench.model("other")
        with bench.submitted("one") as job:
            assert (await job.result()).text == "w0"
        assert [step.log for step in bench.steps()] == [bench.logs["model"]] * 2 + [bench.logs["other"]]
        await until(lambda: bench.worker.ready and bench.worker.candidate.model_path.endswith("/model"))
        with bench.submitted("later") as job:
            await job.result()
        assert bench.steps()[-1].log == bench.logs["model"]


async def test_a_recording_that_kills_all_fails_alone_however_often_it_is_sent(tmp_path: Path) -> None:
    poison = {"on_window": {"0": "kill"}}
    async with running(tmp_path, recordings(), script=poison, fallback="other") as bench:
        bench.model("other", **poison)
        for _ in range(3):
            with bench.submitted("one", digest="poison") as job, pytest.raises(WorkerDied):
                await job.result()
            with bench.submitted("later") as sound:
                assert len((await sound.result()).text.split()) == 9


# --- idle ---


async def test_the_library_gives_memory_back_when_nobody_waits_and_not_before(tmp_path: Path) -> None:
    async with running(tmp_path, recordings(), script={"load_seconds": 0.2}) as bench:
        with bench.submitted("nine") as job, bench.submitted("later") as other:
            await job.result()
            await other.result()
        log = bench.logs["model"]
        await until(lambda: lines_of(log)[-1]["event"] == "rest")
        events = [line["event"] for line in lines_of(log)]
        assert events[events.index("begin") :] == ["begin", "end"] * 18 + ["rest"]


async def test_an_idle_model_is_unloaded_and_loaded_again_when_it_is_wanted(tmp_path: Path) -> None:
    async with running(tmp_path, recordings(), keep_alive=0.1) as bench:
        with bench.submitted("one") as job:
            await job.result()
        await until(lambda: bench.worker.state == "unloaded")
        assert (bench.worker.memory, bench.worker.ready) == (0, False)
        with bench.submitted("one") as job:
            assert (await job.result()).text == "w0"
        assert len({step.pid for step in bench.steps()}) == 2


async def test_a_model_that_nobody_asks_for_is_unloaded_too(tmp_path: Path) -> None:
    async with running(tmp_path, keep_alive=0.1) as bench:
        await until(lambda: bench.worker.ready)
        await until(lambda: bench.worker.state == "unloaded")


async def test_an_idle_model_is_used_again_and_again_where_that_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, keep_warm_s=0.1) as bench:
        await until(lambda: bench.worker.ready)
        log = bench.logs["model"]
        await until(lambda: log.exists() and [line["event"] for line in lines_of(log)].count("warm up") > 2)
        assert bench.worker.ready
        assert len(processes_of(log)) == 1


async def test_a_worker_that_dies_of_being_kept_warm_is_started_again(tmp_path: Path) -> None:
    script = {"on_warm_up": {"2": "kill"}, "once": str(tmp_path / "once")}
    async with running(tmp_path, script=script, keep_warm_s=0.1) as bench:
        log = bench.logs["model"]
        await until(lambda: log.exists() and len(processes_of(log)) == 2)
        await until(lambda: bench.worker.ready)


async def test_a_model_stays_for_ever_where_nothing_else_is_said(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await until(lambda: bench.worker.ready)
        await anyio.sleep(1.5)  # the idle device looks every second
        assert bench.worker.ready
        assert len(processes_of(bench.logs["model"])) == 1


async def test_a_model_is_not_unloaded_while_a_recording_is_being_decoded_for_it(tmp_path: Path) -> None:
    async with running(tmp_path, keep_alive=0.1) as bench:
        with bench.submitted() as job:
            await first_text(job)
            await anyio.sleep(1.5)
            bench.decoders.go_on.set()
            await job.result()
        assert len({step.pid for step in bench.steps()}) == 1


# --- fairness ---


async def test_what_is_granted_to_dictations_that_are_given_up_in_their_step_counts_for_who_waits() -> None:
    served: list[str] = []

    class Impatient:
        """A worker during whose steps the dictation's client hangs up, and the next comes."""

        ready, candidate, state = True, Candidate("fake", "m"), "ready"

        def found_dead(self) -> bool:
            return False

        async def ensure(self, candidate: Candidate) -> None:
            pass

        async def rest(self) -> Memory:
            return Memory()

        async def step(self, pcm: Path, windows: tuple, *_: object) -> tuple[StepResult, float]:
            served.append(pcm.name)
            come("dictation", 1)
            if pcm.name == "dictation":
                dictations.pop(0).fail(JobCancelled("The request was given up."))
            if len(served) == 300 or pcm.name == "recording":
                scope.cancel()
            await anyio.lowlevel.checkpoint()
            return StepResult(tuple(WindowResult(window) for window in windows), "en"), 0.1

    metrics, dictations = Metrics(), list[Job]()
    relay = Relay(Impatient(), metrics)
    device = Device(relay, metrics, lambda _, path: (Candidate("fake", path),), max_batch=1, step_timeout_s=60)

    def come(name: str, seconds: int) -> None:
        job = Job(Work(Options(language="en"), "m"), Path("upload"), Path(name))
        job.on_end = device.leave
        device.enter(job)
        job.add(part(0, seconds, done=True))
        device.update(job)
        if name == "dictation":
            dictations.append(job)

    with anyio.CancelScope() as scope:
        come("recording", 600)
        come("dictation", 1)
        await device.run("m")
    assert "recording" in served
