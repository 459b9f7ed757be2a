"""The decoders' turns: with real children on real files, and, where it matters who comes when, with children that the
test holds the reins of.
"""

from __future__ import annotations

import math
import os
import random
import wave
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import av
import numpy as np
import psutil
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from app.engine import decoders as decoders_module
from app.engine.decoders import LONG_S, MAX_DECODERS, Decoders
from app.errors import UndecodableAudio, UnsupportedAudio, WhisperdError, WorkerDied
from app.metrics import Metrics
from app.transcript import SAMPLE_RATE, Window
from app.worker.decoder import Decoder
from app.worker.messages import Decode, Decoded, DecodeMore, Limits
from tests.conftest import children_of, clips, join_clips

pytestmark = pytest.mark.anyio
CLIP = clips("en000")[0].path
HOUR = 3600.0
#: Nothing here takes a tenth of it; what takes longer hangs.
HANGS_S = 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(eq=False)
class File:
    """A file of ``minutes`` pieces for fake children, each with one window; ``let`` them give so many."""

    name: str
    minutes: int
    declared_s: float | None = None
    deaths: int = 0
    refused: bool = False
    starts: int = 0
    allowed: float = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    def let(self, pieces: float = math.inf) -> None:
        self.allowed += pieces
        self.changed.set()
        self.changed = anyio.Event()

    async def turnstile(self) -> None:
        while not self.allowed:
            await self.changed.wait()
        self.allowed -= 1

    def piece(self, number: int) -> Decoded:
        start, end = number * 60 * SAMPLE_RATE, (number + 1) * 60 * SAMPLE_RATE
        done = number + 1 == self.minutes
        return Decoded((Window(start, end, ((start, end),)),), end, self.declared_s, done)

    @property
    def pieces(self) -> list[Decoded]:
        """All of them, as one child gives them."""
        return [self.piece(number) for number in range(self.minutes)]


class Nursery:
    """Makes fake children, counts them, and notes whose pieces they give."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.living: set[FakeChild] = set()
        self.most = 0
        self.begun = 0
        self.given: list[str] = []
        self.stillborn = 0

    def file(self, name: str, minutes: int, declared_s: float | None = None) -> File:
        self.files[name] = File(name, minutes, declared_s)
        return self.files[name]

    @property
    def in_hand(self) -> list[str]:
        """The files that children work at now."""
        return sorted(child.file.name for child in self.living if child.working and child.file)

    def child(self, module: str, *, cwd: Path, memory_limit: int) -> FakeChild:
        return FakeChild(self)


class FakeChild:
    """A ``ChildProcess`` that gives the pieces of a ``File`` and keeps the real one's promises."""

    memory = 1

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.alive = False
        self.working = False
        self.file: File | None = None
        self.number = 0

    async def start(self) -> None:
        self.nursery.begun += 1
        self.nursery.living.add(self)
        self.nursery.most = max(self.nursery.most, len(self.nursery.living))
        await checkpoint()
        if self.nursery.stillborn:
            self.nursery.stillborn -= 1
            raise WorkerDied("stillborn")
        self.alive = True

    async def call(self, request: Decode | DecodeMore, seconds: float) -> Decoded:
        assert self.alive
        assert not self.working
        self.working, fine = True, False
        try:
            if isinstance(request, Decode):
                self.file, self.number = self.nursery.files[Path(request.source).name], 0
                self.file.starts += 1
            assert self.file is not None, "no file in hand"
            await self.file.turnstile()
            if self.file.deaths:
                self.file.deaths -= 1
                raise WorkerDied("dead")
            fine = True
            if self.file.refused:
                raise UnsupportedAudio("no")
            self.nursery.given.append(self.file.name)
            self.number += 1
            piece = self.file.piece(self.number - 1)
            if piece.done:
                self.file = None
            return piece
        finally:
            self.working = False
            self.alive = fine

    async def aclose(self) -> None:
        self.alive = False
        with anyio.CancelScope(shield=True):
            await checkpoint()
        self.nursery.living.discard(self)


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Nursery:
    nursery = Nursery()
    monkeypatch.setattr(decoders_module, "ChildProcess", nursery.child)
    return nursery


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def decoders(anyio_backend: str, tmp_path: Path, metrics: Metrics) -> AsyncIterator[Decoders]:
    """With whatever children there are: the fixture ``nursery`` makes them fake."""
    (tmp_path / "empty").mkdir()
    decoders = Decoders(tmp_path / "empty", Limits(), metrics)
    yield decoders
    await decoders.aclose()


class Reader:
    """Reads a file to its end; ``parts`` are what has come, ``error`` is how it failed."""

    def __init__(self, decoders: Decoders, source: Path, pcm: Path | None = None) -> None:
        self.decoders = decoders
        self.source = source
        self.pcm = pcm or source.with_name(f"{source.name}.pcm")
        self.parts: list[Decoded] = []
        self.error: WhisperdError | None = None
        self.scope = anyio.CancelScope()

    async def read(self) -> None:
        try:
            with self.scope:
                async with aclosing(self.decoders.decode(self.source, self.pcm)) as parts:
                    async for part in parts:
                        self.parts.append(part)
        except WhisperdError as error:
            self.error = error

    @property
    def done(self) -> bool:
        return bool(self.parts) and self.parts[-1].done


def readers(decoders: Decoders, *files: File) -> list[Reader]:
    return [Reader(decoders, Path("/job") / file.name) for file in files]


async def all_turns_are_free(nursery: Nursery, decoders: Decoders) -> None:
    """A long file and as many short ones as there are turns can be in hand at once, one more cannot, and no child is
    lost over it."""
    long, shorts = nursery.file("last-long", 2, HOUR), [nursery.file(f"last-{i}", 1) for i in range(MAX_DECODERS)]
    more = nursery.file("last-one-more", 1)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readers(decoders, long)[0].read)
            long.let(1)
            await wait_all_tasks_blocked()
            for reader in readers(decoders, *shorts, more):
                tasks.start_soon(reader.read)
            await wait_all_tasks_blocked()
            assert nursery.in_hand == ["last-0", "last-1", "last-long"]
            for file in (long, *shorts, more):
                file.let()
    assert nursery.in_hand == []
    assert nursery.most <= MAX_DECODERS + 1
    assert decoders.memory == len(nursery.living)
    assert decoders._busy == set()
    assert all(child.alive for child in nursery.living)


@pytest.mark.parametrize(("declared_s", "first"), [(HOUR, 1), (None, 6)], ids=["says so", "shows it"])
async def test_a_short_file_gets_through_while_long_ones_are_in_hand_and_wait(
    nursery: Nursery, decoders: Decoders, declared_s: float | None, first: int
) -> None:
    longs = [nursery.file(name, 60, declared_s) for name in "abc"]
    short = nursery.file("short", 2, 120.0)
    short.let()
    reading = readers(decoders, *longs)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            for reader, file in zip(reading, longs, strict=True):
                tasks.start_soon(reader.read)
                file.let(first)
            await wait_all_tasks_blocked()
            assert nursery.in_hand == ["a"]
            (reader,) = readers(decoders, short)
            await reader.read()
            assert reader.parts == short.pieces
            # What is known of the long ones is there already, also of those that wait.
            assert [reader.parts for reader in reading] == [file.pieces[:first] for file in longs]
            tasks.cancel_scope.cancel()
    assert nursery.most <= MAX_DECODERS + 1
    await all_turns_are_free(nursery, decoders)


async def begin_in_turn(tasks: TaskGroup, reading: Sequence[Reader], files: Sequence[File], *, pieces: int) -> None:
    """Have the files read one after the other, each as far as so many pieces let it."""
    for reader, file in zip(reading, files, strict=True):
        tasks.start_soon(reader.read)
        file.let(pieces)
        await wait_all_tasks_blocked()


async def test_long_files_are_decoded_one_at_a_time_in_order_and_whole(nursery: Nursery, decoders: Decoders) -> None:
    longs = [nursery.file(name, 10, HOUR) for name in "abcd"]
    reading = readers(decoders, *longs)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            await begin_in_turn(tasks, reading, longs, pieces=1)
            for file in reversed(longs):
                file.let()
    assert "".join(nursery.given) == "abcd" + 9 * "a" + 10 * "b" + 10 * "c" + 10 * "d"
    assert [file.starts for file in longs] == [1, 2, 2, 2]
    assert reading[0].parts == longs[0].pieces
    for reader, file in zip(reading[1:], longs[1:], strict=True):
        assert reader.parts == [file.piece(0), *file.pieces]
    await all_turns_are_free(nursery, decoders)


@pytest.mark.parametrize("declared_s", [HOUR, None], ids=["says so", "shows it"])
async def test_a_long_file_alone_is_decoded_once_and_its_short_turn_is_free(
    nursery: Nursery, decoders: Decoders, declared_s: float | None
) -> None:
    long, shorts = nursery.file("long", 60, declared_s), [nursery.file(f"short-{i}", 1) for i in range(MAX_DECODERS)]
    (reader,) = readers(decoders, long)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.read)
            long.let(6)
            await wait_all_tasks_blocked()
            for short in readers(decoders, *shorts):
                tasks.start_soon(short.read)
            await wait_all_tasks_blocked()
            assert nursery.in_hand == ["long", "short-0", "short-1"]
            for file in (long, *shorts):
                file.let()
    assert long.starts == 1
    assert reader.parts == long.pieces


@pytest.mark.parametrize(
    ("minutes", "declared_s", "starts"),
    [(5, None, 1), (5, float(LONG_S), 1), (6, None, 1), (7, None, 2), (2, LONG_S + 1.0, 2), (1, HOUR, 1)],
)
async def test_a_file_is_long_once_that_is_known_and_it_is_not_done(
    nursery: Nursery, decoders: Decoders, minutes: int, declared_s: float | None, starts: int
) -> None:
    other, file = nursery.file("other", 10, HOUR), nursery.file("file", minutes, declared_s)
    other.let(1)
    file.let()
    (reader,) = readers(decoders, file)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readers(decoders, other)[0].read)
            await wait_all_tasks_blocked()
            tasks.start_soon(reader.read)
            await wait_all_tasks_blocked()
            assert reader.done == (starts == 1)
            other.let()
    assert file.starts == starts
    assert reader.parts[-minutes:] == file.pieces


async def test_a_death_in_the_long_turn_costs_neither_the_turn_nor_the_file(
    nursery: Nursery, decoders: Decoders, metrics: Metrics
) -> None:
    longs = [nursery.file(name, 10, HOUR) for name in "ab"]
    reading = readers(decoders, *longs)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            await begin_in_turn(tasks, reading, longs, pieces=1)
            longs[0].deaths = 1
            for file in longs:
                file.let()
    assert "".join(nursery.given) == "ab" + 10 * "a" + 10 * "b"
    assert [reader.parts for reader in reading] == [[file.piece(0), *file.pieces] for file in longs]
    assert restarts(metrics) == 1
    await all_turns_are_free(nursery, decoders)


async def test_the_second_death_is_the_files_fault_wherever_it_waited_between_them(
    nursery: Nursery, decoders: Decoders, metrics: Metrics
) -> None:
    longs = [nursery.file(name, 10, HOUR) for name in "ab"]
    reading = readers(decoders, *longs)
    longs[1].deaths = 1
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            await begin_in_turn(tasks, reading, longs, pieces=2)
            assert reading[1].parts == [longs[1].piece(0)]
            longs[1].deaths = 1
            for file in longs:
                file.let()
    assert reading[0].done
    assert isinstance(reading[1].error, UndecodableAudio)
    assert restarts(metrics) == 2
    await all_turns_are_free(nursery, decoders)


async def test_a_child_that_cannot_start_leaves_its_turn(nursery: Nursery, decoders: Decoders) -> None:
    nursery.stillborn = 2
    (reader,) = readers(decoders, nursery.file("file", 1))
    await reader.read()
    assert isinstance(reader.error, UndecodableAudio)
    await all_turns_are_free(nursery, decoders)


async def test_a_refusal_costs_neither_turn_nor_child(nursery: Nursery, decoders: Decoders) -> None:
    file = nursery.file("file", 1)
    file.refused = True
    file.let()
    for _ in range(3):
        (reader,) = readers(decoders, file)
        await reader.read()
        assert isinstance(reader.error, UnsupportedAudio)
    assert nursery.begun == 1
    await all_turns_are_free(nursery, decoders)


async def test_a_child_is_replaced_after_so_many_files(
    nursery: Nursery, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders_module, "FILES_PER_CHILD", 2)
    file = nursery.file("file", 1)
    file.let()
    for begun in (1, 1, 2, 2, 3):
        await readers(decoders, file)[0].read()
        assert nursery.begun == begun
    assert len(nursery.living) == 1


async def test_warming_up_while_files_come_makes_no_child_too_many(nursery: Nursery, decoders: Decoders) -> None:
    long, shorts = nursery.file("long", 10, HOUR), [nursery.file(f"short-{i}", 1) for i in range(MAX_DECODERS)]
    long.let(1)
    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readers(decoders, long)[0].read)
            await wait_all_tasks_blocked()
            for reader in readers(decoders, *shorts):
                tasks.start_soon(reader.read)
            await wait_all_tasks_blocked()
            tasks.start_soon(decoders.warm_up)
            await wait_all_tasks_blocked()
            assert nursery.begun == MAX_DECODERS + 1
            for file in (long, *shorts):
                file.let()
    await all_turns_are_free(nursery, decoders)


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_whatever_is_cancelled_dies_or_is_refused(
    nursery: Nursery, decoders: Decoders, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(decoders_module, "FILES_PER_CHILD", 5)
    made: list[tuple[File, Reader]] = []

    def one_more() -> Reader:
        file = nursery.file(f"file-{len(made)}", dice.choice([1, 2, 8]), dice.choice([None, HOUR]))
        file.deaths = dice.choice([0, 0, 0, 1, 2])
        file.refused = dice.random() < 0.1
        (reader,) = readers(decoders, file)
        made.append((file, reader))
        return reader

    with anyio.fail_after(HANGS_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                what = dice.random()
                if what < 0.3:
                    tasks.start_soon(one_more().read)
                elif what < 0.5 and made:
                    dice.choice(made)[1].scope.cancel()
                elif made:
                    dice.choice(made)[0].let(dice.choice([1, 2, 20]))
                for _ in range(dice.randrange(5)):
                    await checkpoint()
            for file, _ in made:
                file.let()
    for file, reader in made:
        if reader.error is None and not reader.scope.cancel_called:
            assert reader.parts[-file.minutes :] == file.pieces
    assert any(reader.done for _, reader in made)
    await all_turns_are_free(nursery, decoders)


async def test_who_waits_holds_no_turn_and_whoever_stops_reading_gives_it_back(
    nursery: Nursery, decoders: Decoders
) -> None:
    """In a short turn, in the long one, and where the file's child is freed already."""
    another = nursery.file("another", 1)
    another.let()
    files = [nursery.file("short", 2), nursery.file("long", 8, HOUR), nursery.file("waits", 8, HOUR)]
    with anyio.fail_after(HANGS_S):
        async with AsyncExitStack() as stack:
            for file in files:
                file.let()
                parts = await stack.enter_async_context(aclosing(decoders.decode(Path(file.name), Path("pcm"))))
                assert await anext(parts) == file.piece(0)
            (reader,) = readers(decoders, another)
            await reader.read()
            assert reader.done
    await all_turns_are_free(nursery, decoders)


# From here on the children are real.


@dataclass(frozen=True)
class Decoding:
    """What a decoder makes of a file that it has for itself."""

    source: Path
    windows: list[Window]
    pcm: bytes


def write_flac(source: Path, path: Path) -> None:
    """``source``, a WAV, as FLAC that does not say how long it is, as one written to a pipe."""
    with wave.open(str(source)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    with av.open(str(path), "w", format="flac") as output:
        stream = output.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        for start in range(0, len(samples), SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + SAMPLE_RATE], format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def long_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three recordings of eight minutes, all different; the last does not say how long it is."""
    folder, sentences = tmp_path_factory.mktemp("long"), clips("en")
    paths = [folder / "a.wav", folder / "b.wav", folder / "c.wav"]
    for i, path in enumerate(paths):
        recording = join_clips(sentences[i * 20 :] + sentences + sentences[: i * 20], path)
        assert recording.duration > LONG_S + 120
    write_flac(paths[2], folder / "c.flac")
    return [*paths[:2], folder / "c.flac"]


@pytest.fixture(scope="module")
def alone(long_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Decoding]:
    decoder, pcm = Decoder(), tmp_path_factory.mktemp("alone") / "pcm"
    found = []
    for source in long_files:
        parts = [decoder.handle(Decode(str(source), str(pcm), Limits()))]
        while not parts[-1].done:
            parts.append(decoder.handle(DecodeMore()))
        windows = [window for part in parts for window in part.windows]
        assert len(windows) > 10
        found.append(Decoding(source, windows, pcm.read_bytes()))
        pcm.unlink()
    return found


def windows_known(parts: list[Decoded]) -> list[Window]:
    """The windows as a job takes them in: those that come again are left out."""
    known: list[Window] = []
    for part in parts:
        known += [window for window in part.windows if not known or window.end > known[-1].end]
    return known


def last_run(parts: list[Decoded]) -> list[Window]:
    """The windows since the file was last started over."""
    windows = [window for part in parts for window in part.windows]
    return windows[max(i for i, window in enumerate(windows) if window == windows[0]) :]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - real processes
        await anyio.sleep(0.01)


def decoder_processes() -> list[psutil.Process]:
    return children_of(os.getpid(), "app.worker.decoder")


def restarts(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("whisperd_worker_restarts_total", {"role": "decoder"}) or 0.0


async def test_real_files_started_over_are_what_one_child_alone_makes_of_them(
    decoders: Decoders, alone: list[Decoding], metrics: Metrics, tmp_path: Path
) -> None:
    reading = [Reader(decoders, decoding.source, tmp_path / decoding.source.name) for decoding in alone]
    short = Reader(decoders, CLIP, tmp_path / "short")
    with anyio.fail_after(HANGS_S):
        async with aclosing(decoders.decode(alone[0].source, tmp_path / "first")) as parts:
            await anext(parts)  # the long turn is taken until the context is left
            async with anyio.create_task_group() as tasks:
                for reader in reading:
                    tasks.start_soon(reader.read)
                await until(lambda: all(reader.parts for reader in reading))
                await short.read()
                assert short.done
                await until(lambda: reading[2].parts[-1].samples > LONG_S * SAMPLE_RATE)
                assert not any(reader.done for reader in reading)
                assert len(decoder_processes()) <= MAX_DECODERS + 1
                await parts.aclose()
    for reader, decoding in zip(reading, alone, strict=True):
        assert windows_known(reader.parts) == last_run(reader.parts) == decoding.windows
        assert reader.pcm.read_bytes() == decoding.pcm
    assert len(last_run(reading[2].parts)) < sum(len(part.windows) for part in reading[2].parts)
    assert len(decoder_processes()) <= MAX_DECODERS + 1
    assert restarts(metrics) == 0


async def test_a_real_child_killed_in_the_long_turn_is_replaced(
    decoders: Decoders, alone: list[Decoding], metrics: Metrics, tmp_path: Path
) -> None:
    await decoders.warm_up()
    (child,) = decoder_processes()
    got: list[Decoded] = []
    with anyio.fail_after(HANGS_S):
        async with aclosing(decoders.decode(alone[0].source, tmp_path / "pcm")) as parts:
            async for part in parts:
                got.append(part)
                if len(got) == 5:
                    child.kill()
    assert windows_known(got) == last_run(got) == alone[0].windows
    assert (tmp_path / "pcm").read_bytes() == alone[0].pcm
    assert restarts(metrics) == 1
    (replaced,) = decoder_processes()
    assert replaced.pid != child.pid


async def test_real_files_given_up_at_any_moment_leave_turns_and_children(
    decoders: Decoders, long_files: list[Path], tmp_path: Path
) -> None:
    dice = random.Random(1)
    with anyio.fail_after(2 * HANGS_S):
        for _ in range(8):
            reading = [Reader(decoders, path, tmp_path / path.name) for path in (*long_files, CLIP)]
            async with anyio.create_task_group() as tasks:
                for reader in reading:
                    reader.scope.deadline = anyio.current_time() + dice.uniform(0, 0.8)
                    tasks.start_soon(reader.read)
            assert decoders._busy == set()
            assert len(decoder_processes()) <= MAX_DECODERS + 1
        async with AsyncExitStack() as stack:
            for i, source in enumerate((long_files[0], CLIP, CLIP)):
                parts = await stack.enter_async_context(aclosing(decoders.decode(source, tmp_path / f"{i}")))
                await anext(parts)
            assert len(decoder_processes()) == MAX_DECODERS + 1
    assert decoders._busy == set()
    assert len(decoder_processes()) == MAX_DECODERS + 1
    await decoders.aclose()
    assert decoder_processes() == []
