"""The lane by examples, and before a simulated device that keeps its own account of what the lane promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, cycle, groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.lane import Lane

#: On purpose not imported: with these an hour's recording waits for six minutes of dictations at the most, and what can
#: wait stands back behind an hour.
AGING = 10
BACKGROUND = 3600


# --- a device, and jobs for it ---


@dataclass(eq=False)
class Job:
    """``declared`` says whether its recording tells how long it is; ``decoded`` is what its decoder has done."""

    number: int
    amount: int
    group: str
    background: bool
    declared: bool
    decoded: int
    done: int = 0
    running: int = 0
    #: Seconds granted to later comers while it waited, since its own last grant; its highest price since; and the later
    #: comers that had a grant although it was overdue.
    aged: int = field(default=0, repr=False)
    most: int = field(default=0, repr=False)
    passed: set[int] = field(default_factory=set, repr=False)

    @property
    def waits(self) -> bool:
        return self.decoded > self.done + self.running

    @property
    def remaining(self) -> int:
        return (self.amount if self.declared else self.decoded) - self.done


class Machine:
    """A device that gives steps of at most ``steps`` seconds of audio in turn. What a swap costs is reckoned anew after
    each load and each step, as ``costs`` in turn.
    """

    def __init__(self, *, steps: tuple[int, ...] = (30,), costs: tuple[int, ...] = (0,)) -> None:
        self.lane: Lane[int] = Lane()
        self.jobs: dict[int, Job] = {}
        self.served: list[Job] = []
        self.finished: list[Job] = []
        self.loaded = ""
        self.swaps = 0
        #: Seconds of audio that the device could have done since it was switched on, had it done nothing but steps.
        self.clock = 0
        self._cost = 0
        self._done_since_swap = 0
        self._came = 0
        self._steps, self._costs = cycle(steps), cycle(costs)

    def come(
        self,
        amount: int,
        *,
        group: str = "",
        background: bool = False,
        declared: bool = True,
        decoded: int | None = None,
    ) -> Job:
        job = Job(self._came, amount, group, background, declared, amount if decoded is None else min(decoded, amount))
        self._came += 1
        self.jobs[job.number] = job
        self.lane.enter(job.number, group=group, background=background)
        self._update(job)
        return job

    def decode(self, job: Job, seconds: int) -> None:
        if job.decoded < job.amount:
            job.decoded = min(job.amount, job.decoded + seconds)
            self._update(job)

    def leave(self, job: Job) -> None:
        del self.jobs[job.number]
        self.lane.leave(job.number)

    def promote(self, job: Job) -> None:
        job.background, job.most = False, 0
        self.lane.promote(job.number)

    def load(self, group: str) -> None:
        self.loaded, self._cost, self._done_since_swap = group, next(self._costs), 0
        self.swaps += 1
        self.clock += self._cost
        self.lane.swapped(group, self._cost)

    def named(self) -> Job | None:
        """The job that the lane names, which must be here."""
        number = self.lane.next()
        return None if number is None else self.jobs[number]

    def step(self, meanwhile: Callable[[], None] = lambda: None) -> Job | None:
        """Give the lane's job a step, during which ``meanwhile`` happens."""
        job = self.named()
        if job is None:
            meanwhile()
            return None
        if job.group != self.loaded:
            self.load(job.group)
        job.running = min(next(self._steps), job.decoded - job.done)
        meanwhile()
        self.clock += job.running
        self._cost = self.lane.swap_cost = next(self._costs)
        here = job.number in self.jobs
        if here:
            self._account(job)
            self.served.append(job)
        self.lane.granted(job.number, job.running)
        job.done, job.running = job.done + job.running, 0
        if here and job.done == job.amount:
            self.finished.append(job)
            self.leave(job)
        elif here:
            self._update(job)
        return job

    def run(self) -> list[Job]:
        """Give steps until nobody waits; returns who was finished, in that order."""
        while self.step() is not None:
            pass
        return self.finished

    def _update(self, job: Job) -> None:
        self.lane.update(job.number, job.remaining, waiting=job.waits)

    # The account by which the lane's promises are measured.

    @property
    def waiting(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.waits]

    @property
    def paying_off(self) -> bool:
        """Whether the loaded model has work, and has not done as much yet as its load cost."""
        return self._done_since_swap < self._cost and any(job.group == self.loaded for job in self.waiting)

    def price(self, job: Job) -> int:
        """What puts a job behind others, its age aside."""
        return job.remaining + BACKGROUND * job.background + self._cost * (job.group != self.loaded)

    def is_overdue(self, job: Job) -> bool:
        """Whether later comers were granted all that a job has to bear, even at its highest price."""
        job.most = max(job.most, self.price(job))
        return AGING * job.aged >= job.most

    def order(self) -> list[int]:
        """All that wait, as they would be named if each left at once."""
        lane, numbers = copy.deepcopy(self.lane), []
        while (number := lane.next()) is not None:
            numbers.append(number)
            lane.leave(number)
        return numbers

    def _account(self, granted: Job) -> None:
        for job in self.waiting:
            if job.number < granted.number:
                if self.is_overdue(job):
                    job.passed.add(granted.number)
                job.aged += granted.running
        granted.aged = granted.most = 0
        granted.passed.clear()
        self._done_since_swap += granted.running


# --- examples ---


def test_an_empty_lane_names_nobody() -> None:
    lane: Lane[str] = Lane()
    assert (lane.next(), lane.waiting) == (None, 0)
    lane.enter("has nothing yet")
    assert (lane.next(), lane.waiting) == (None, 0)


def test_the_least_remaining_audio_is_served_first() -> None:
    machine = Machine()
    podcast, dictation, meeting = machine.come(7200), machine.come(2), machine.come(1800)
    assert machine.run() == [dictation, meeting, podcast]


def test_a_dictation_overtakes_a_recording_that_is_being_worked_on() -> None:
    machine = Machine()
    podcast = machine.come(600)
    assert [machine.step(), machine.step()] == [podcast, podcast]
    dictation = machine.come(5)
    assert [machine.step(), machine.step()] == [dictation, podcast]


def test_of_equal_recordings_the_first_is_finished_before_the_second_begins() -> None:
    machine = Machine()
    first, second, third = machine.come(90), machine.come(90), machine.come(90)
    machine.run()
    assert machine.served == [first] * 3 + [second] * 3 + [third] * 3


def test_the_order_among_equals_is_that_of_their_coming_not_of_their_first_window() -> None:
    lane: Lane[str] = Lane()
    lane.enter("first")
    lane.enter("second")
    lane.update("second", 30, waiting=True)
    lane.update("first", 30, waiting=True)
    assert lane.next() == "first"


def test_to_enter_again_changes_nothing() -> None:
    lane: Lane[str] = Lane()
    lane.enter("first")
    lane.enter("second")
    lane.update("first", 30, waiting=True)
    lane.update("second", 30, waiting=True)
    lane.enter("first", group="another", background=True)
    assert (lane.next(), lane.waiting) == ("first", 2)
    assert lane.ahead("first") == []


def test_who_is_not_here_may_leave_be_granted_and_be_promoted_without_harm() -> None:
    lane: Lane[str] = Lane()
    lane.enter("here")
    lane.update("here", 30, waiting=True)
    lane.leave("never here")
    lane.granted("never here", 30)
    lane.promote("never here")
    assert (lane.next(), lane.waiting) == ("here", 1)


def test_who_comes_back_is_the_last_among_equals() -> None:
    lane: Lane[str] = Lane()
    for key in ("first", "second"):
        lane.enter(key)
        lane.update(key, 30, waiting=True)
    lane.leave("first")
    lane.enter("first")
    assert lane.next() == "second"
    lane.update("first", 30, waiting=True)
    assert lane.next() == "second"


def test_only_jobs_that_want_a_step_are_counted_and_named() -> None:
    machine = Machine()
    behind, podcast = machine.come(600, decoded=0), machine.come(7200)
    assert (machine.named(), machine.lane.waiting) == (podcast, 1)
    machine.decode(behind, 30)
    assert (machine.named(), machine.lane.waiting) == (behind, 2)


def test_an_hours_recording_among_dictations_gets_a_step_after_six_minutes_of_theirs() -> None:
    machine = Machine()
    recording = machine.come(3600)
    for _ in range(36):
        dictation = machine.come(10)
        assert machine.step() is dictation
    machine.come(10)
    assert machine.step() is recording


def test_a_step_makes_a_recording_young_again() -> None:
    machine = Machine()
    recording = machine.come(600)
    for _ in range(6):
        machine.come(10)
        machine.step()
    last = machine.come(10)
    assert [machine.step(), machine.step(), machine.step()] == [recording, last, recording]
    dictations = [machine.come(10) for _ in range(5)]
    assert [machine.step() for _ in dictations] == dictations


def test_what_those_are_granted_who_came_before_makes_nobody_older() -> None:
    machine = Machine()
    first, second = machine.come(3600), machine.come(3660)
    machine.run()
    assert machine.served == [first] * 120 + [second] * 122


def test_a_job_does_not_age_while_it_does_not_wait() -> None:
    machine = Machine()
    behind = machine.come(600, decoded=0)
    for _ in range(60):
        machine.come(10)
        machine.step()
    machine.decode(behind, 600)
    dictation = machine.come(10)
    assert machine.step() is dictation


def test_background_work_stands_back_behind_a_recording_of_an_hour() -> None:
    machine = Machine()
    recording, background = machine.come(3600), machine.come(1, background=True)
    assert machine.run() == [recording, background]


def test_background_work_is_done_at_once_where_nobody_else_waits() -> None:
    machine = Machine()
    background = machine.come(60, background=True)
    assert machine.run() == [background]


def test_background_work_does_not_stand_back_for_ever() -> None:
    machine = Machine()
    background = machine.come(400, background=True)
    for _ in range(40):
        dictation = machine.come(10)
        assert machine.step() is dictation
    machine.come(10)
    assert machine.step() is background


def test_background_work_that_somebody_waits_for_goes_like_any_other() -> None:
    machine = Machine()
    background, recording = machine.come(60, background=True), machine.come(600)
    assert machine.named() is recording
    machine.promote(background)
    assert machine.run() == [background, recording]


def test_ahead_are_those_who_would_be_named_before() -> None:
    lane: Lane[str] = Lane()
    for key, remaining in (("long", 600), ("short", 2), ("middle", 60), ("equal", 60)):
        lane.enter(key)
        lane.update(key, remaining, waiting=True)
    lane.enter("still being opened")
    assert lane.ahead("long") == ["short", "middle", "equal"]
    assert lane.ahead("middle") == ["short"]
    assert lane.ahead("equal") == ["short", "middle"]
    assert lane.ahead("short") == []
    assert lane.ahead("not here") == ["long", "short", "middle", "equal"]


# --- examples with several models ---


@pytest.mark.parametrize(("seconds", "worth"), [(39, True), (41, False)])
def test_another_models_job_is_worth_the_swap_once_it_is_better_by_what_the_swap_costs(
    seconds: int, worth: bool
) -> None:
    machine = Machine(costs=(60,))
    machine.load("loaded")
    machine.come(60, group="loaded")
    machine.run()
    recording, other = machine.come(100, group="loaded"), machine.come(seconds, group="other")
    assert machine.named() is (other if worth else recording)


def test_a_load_is_paid_off_before_the_next_swap() -> None:
    machine = Machine(costs=(60,))
    machine.load("loaded")
    recording, dictation = machine.come(600, group="loaded"), machine.come(1, group="other")
    assert [machine.step(), machine.step(), machine.step()] == [recording, recording, dictation]


def test_a_load_after_the_workers_death_is_paid_off_too() -> None:
    machine = Machine(costs=(60,))
    machine.load("loaded")
    recording, dictation = machine.come(600, group="loaded"), machine.come(1, group="other")
    assert machine.step() is recording
    machine.load("loaded")
    assert [machine.step(), machine.step(), machine.step()] == [recording, recording, dictation]


def test_what_a_load_must_pay_off_follows_the_pace_as_it_is_measured() -> None:
    machine = Machine(costs=(0, 60))
    machine.load("loaded")
    recording, dictation = machine.come(600, group="loaded"), machine.come(1, group="other")
    assert machine.named() is dictation, "nothing is to be paid off yet"
    machine.lane.swap_cost = 90
    assert machine.named() is recording


def test_a_load_is_not_paid_off_while_the_model_has_no_work() -> None:
    machine = Machine(costs=(600,))
    machine.load("loaded")
    machine.come(30, group="loaded", decoded=0)
    other = machine.come(600, group="other")
    assert machine.step() is other


def test_requests_for_two_models_in_turn_swap_once_a_load_is_paid_off_not_each_time() -> None:
    machine = Machine(costs=(120,))
    for _ in range(24):
        machine.come(10, group="one")
        machine.come(10, group="two")
    runs = [len(list(jobs)) for _, jobs in groupby(machine.run(), lambda job: job.group)]
    assert sum(runs) == 48
    assert min(runs[:-1]) >= 12, "a model's run pays its load off"


def test_a_device_keeps_up_with_requests_for_two_models_in_turn_however_much_a_swap_costs() -> None:
    machine = Machine(costs=(100,))
    for came in range(400):
        while machine.clock < 10 * came and machine.step() is not None:
            pass
        machine.clock = max(machine.clock, 10 * came)
        machine.come(5, group="one" if came % 2 else "two")
        assert len(machine.jobs) < 45, "they pile up"
    assert machine.swaps < 400 / 10


def test_another_models_job_gets_its_turn_in_a_stream_for_the_loaded_one() -> None:
    machine = Machine(costs=(90,))
    machine.load("loaded")
    other = machine.come(60, group="other")
    for _ in range(9):
        dictation = machine.come(10, group="loaded")
        assert machine.step() is dictation
    machine.come(10, group="loaded")
    assert machine.step() is other


def test_while_a_load_pays_off_the_loaded_models_jobs_are_ahead_of_the_others() -> None:
    machine = Machine(costs=(60,))
    machine.load("loaded")
    recording, dictation = machine.come(600, group="loaded"), machine.come(2, group="other")
    assert machine.named() is recording
    assert machine.lane.ahead(recording.number) == []
    assert machine.lane.ahead(dictation.number) == [recording.number]


# --- the simulation ---


@dataclass(frozen=True)
class Stream:
    """``jobs`` of ``amount`` seconds each, one every ``every`` steps from ``begin`` on. A job's decoder does ``piece``
    seconds at once, every ``pause`` steps. Of ``nth`` jobs one is cancelled after ``patience`` steps, in the midst of a
    step or between two.
    """

    begin: int
    every: int
    jobs: int
    amount: int
    declared: bool
    piece: int
    pause: int
    group: str
    background: bool
    promoted_after: int | None
    patience: int | None
    nth: int
    in_step: bool

    @property
    def arrivals(self) -> range:
        return range(self.begin, self.begin + self.every * self.jobs, self.every)


@dataclass(frozen=True)
class Case:
    streams: list[Stream]
    steps: tuple[int, ...]
    costs: tuple[int, ...]


def streams(groups: str) -> st.SearchStrategy[Stream]:
    dictations = st.tuples(st.integers(1, 30), st.integers(1, 30))
    recordings = st.tuples(st.integers(1, 6), st.integers(1, 200))
    long_recordings = st.tuples(st.integers(1, 2), st.integers(100, 2000))
    decoders = st.sampled_from([(10_000, 1), (10_000, 15), (100, 25), (30, 4), (20, 1)])
    return st.tuples(st.one_of(dictations, recordings, long_recordings), decoders).flatmap(
        lambda drawn: st.builds(
            Stream,
            begin=st.integers(0, 40),
            every=st.integers(1, 3),
            jobs=st.just(drawn[0][0]),
            amount=st.just(drawn[0][1]),
            declared=st.booleans(),
            piece=st.just(drawn[1][0]),
            pause=st.just(drawn[1][1]),
            group=st.sampled_from(groups),
            background=st.sampled_from([False, False, True]),
            promoted_after=st.none() | st.integers(0, 30),
            patience=st.none() | st.integers(0, 30),
            nth=st.integers(1, 3),
            in_step=st.booleans(),
        )
    )


cases = st.sampled_from(["a", "ab", "abc"]).flatmap(
    lambda groups: st.builds(
        Case,
        streams=st.lists(streams(groups), min_size=2, max_size=5),
        steps=st.lists(st.integers(5, 30), min_size=1, max_size=4).map(tuple),
        costs=st.lists(st.integers(0, 200), min_size=1, max_size=3).map(tuple),
    )
)


class Simulation:
    """Plays a case to its end. ``decided`` is asked at each decision of the lane, ``left`` after each cancel."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.machine = Machine(steps=case.steps, costs=case.costs)
        self.now = 0
        self.kept: list[Job] = []
        self._came: dict[Job, tuple[int, Stream]] = {}

    def decided(self, named: Job | None) -> None: ...

    def left(self, job: Job, before: list[int]) -> None: ...

    def play(self) -> None:
        last = max(stream.arrivals[-1] for stream in self.case.streams)
        for self.now in count():
            self._cancel(in_step=False)
            self.decided(self.machine.named())
            self.machine.step(self._meanwhile)
            if self.now >= last and not self.machine.jobs:
                return
            assert self.now < 10_000, "it does not end"

    def _meanwhile(self) -> None:
        for job in list(self.machine.jobs.values()):
            came, stream = self._came[job]
            if (self.now - came) % stream.pause == 0:
                self.machine.decode(job, stream.piece)
            if stream.promoted_after is not None and self.now - came == stream.promoted_after:
                self.machine.promote(job)
        for stream in self.case.streams:
            if self.now in stream.arrivals:
                self._arrive(stream)
        self._cancel(in_step=True)

    def _arrive(self, stream: Stream) -> None:
        job = self.machine.come(
            stream.amount, group=stream.group, background=stream.background, declared=stream.declared, decoded=0
        )
        self._came[job] = self.now, stream
        if stream.patience is None or stream.arrivals.index(self.now) % stream.nth:
            self.kept.append(job)

    def _cancel(self, *, in_step: bool) -> None:
        for job in list(self.machine.jobs.values()):
            came, stream = self._came[job]
            if job not in self.kept and stream.in_step == in_step and self.now - came >= (stream.patience or 0):
                before = self.machine.order()
                self.machine.leave(job)
                self.left(job, before)


@settings(deadline=None)
@given(case=cases)
def test_whenever_somebody_waits_somebody_is_named_who_waits(case: Case) -> None:
    class Watched(Simulation):
        def decided(self, named: Job | None) -> None:
            waiting = self.machine.waiting
            assert named in waiting if waiting else named is None
            assert self.machine.lane.waiting == len(waiting)

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_nobody_waits_longer_than_the_stated_bound(case: Case) -> None:
    """Once later comers were granted a job's price / AGING while it waited, it is overdue. Before it go then only: who
    came before it; later comers that are overdue too, once each; and the loaded model's jobs until that is paid off.
    """

    class Watched(Simulation):
        def decided(self, named: Job | None) -> None:
            machine = self.machine
            for job in machine.waiting:
                if not machine.is_overdue(job):
                    job.passed.clear()
                if named is None or named.number <= job.number or machine.paying_off:
                    continue
                if AGING * job.aged >= machine.price(job):
                    assert AGING * named.aged >= machine.price(named), "a later comer passed that was not overdue"
                if machine.is_overdue(job):
                    assert named.number not in job.passed, "a later comer passed twice"

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_nobody_is_named_before_a_job_with_less_to_go_unless_age_makes_up_for_it(case: Case) -> None:
    class Watched(Simulation):
        def decided(self, named: Job | None) -> None:
            machine = self.machine
            for job in machine.waiting:
                if named is not None and (not machine.paying_off or job.group == named.group):
                    assert machine.price(named) <= machine.price(job) + AGING * named.aged

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_a_model_keeps_the_device_until_its_load_is_paid_off_or_nobody_wants_it(case: Case) -> None:
    class Watched(Simulation):
        def decided(self, named: Job | None) -> None:
            if named is not None and self.machine.paying_off:
                assert named.group == self.machine.loaded

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_a_cancel_at_any_moment_leaves_the_order_of_the_others_as_it_was(case: Case) -> None:
    class Watched(Simulation):
        def left(self, job: Job, before: list[int]) -> None:
            assert self.machine.order() == [number for number in before if number != job.number]

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_ahead_of_a_job_are_those_who_would_be_named_before_it(case: Case) -> None:
    class Watched(Simulation):
        def decided(self, named: Job | None) -> None:
            if self.now % 8 == 0:
                order = self.machine.order()
                assert [sorted(self.machine.lane.ahead(number)) for number in order] == [
                    sorted(order[:place]) for place in range(len(order))
                ]

    Watched(case).play()


@settings(deadline=None)
@given(case=cases)
def test_once_nothing_comes_any_more_everything_ends(case: Case) -> None:
    simulation = Simulation(case)
    simulation.play()
    assert set(simulation.kept) <= set(simulation.machine.finished)
    assert (simulation.machine.lane.next(), simulation.machine.lane.waiting) == (None, 0)


@settings(deadline=None)
@given(
    amount=st.integers(1, 300),
    gaps=st.lists(st.integers(0, 20), min_size=2, max_size=8),
    cancels=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 60))),
    steps=st.lists(st.integers(5, 30), min_size=1, max_size=4),
)
def test_equal_recordings_are_finished_one_after_the_other_whenever_they_come_and_go(
    amount: int, gaps: list[int], cancels: set[tuple[int, int]], steps: list[int]
) -> None:
    machine = Machine(steps=tuple(steps))
    arrivals = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    for now in range(arrivals[-1] + 1 + len(gaps) * (amount // min(steps) + 1)):
        for _ in range(arrivals.count(now)):
            machine.come(amount)
        first = next(iter(machine.jobs.values()), None)

        def cancel(now: int = now) -> None:
            for number, when in cancels:
                if when == now and number in machine.jobs:
                    machine.leave(machine.jobs[number])

        assert machine.step(cancel) is first
    assert not machine.jobs
