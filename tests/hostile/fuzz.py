"""Mutated files through real decoder children: ``python -m tests.hostile.fuzz --files 100000``.

A file is its number: ``--first N --files 1`` makes and sends the one file N again, ``--keep PATH`` writes it.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import anyio
from tqdm import tqdm

from app.engine.decoders import MEMORY_LIMIT, Decoders
from app.errors import WhisperdError
from app.metrics import Metrics
from app.worker.messages import Limits
from tests.hostile.media import CLIP, chunk, encode, speech, wav

#: A fifth of a second of sound: a file is a few kilobytes and a few milliseconds.
_SAMPLES = 3_200
#: (container, codec, rate, codec's options): one of each kind that people send.
KINDS: tuple[tuple[str, str, int, dict[str, str]], ...] = (
    ("wav", "pcm_s16le", 16_000, {}),
    ("wav", "adpcm_ms", 16_000, {}),
    ("wav", "pcm_f32le", 48_000, {}),
    ("w64", "pcm_s16le", 16_000, {}),
    ("mp3", "libmp3lame", 16_000, {}),
    ("mp2", "mp2", 44_100, {}),
    ("flac", "flac", 16_000, {}),
    ("ogg", "libopus", 48_000, {}),
    ("ogg", "libopus", 24_000, {}),
    ("ipod", "aac", 44_100, {}),
    ("ipod", "alac", 16_000, {}),
    ("mov", "pcm_s16be", 16_000, {}),
    ("adts", "aac", 16_000, {}),
    ("latm", "aac", 44_100, {}),
    ("webm", "libopus", 48_000, {}),
    ("matroska", "ac3", 48_000, {}),
    ("avi", "libmp3lame", 44_100, {}),
    ("mpegts", "aac", 48_000, {}),
    ("mpeg", "mp2", 44_100, {}),
    ("flv", "libmp3lame", 44_100, {}),
    ("asf", "wmav2", 44_100, {"b": "64000"}),
    ("aiff", "pcm_s16be", 16_000, {}),
    ("caf", "pcm_s16le", 16_000, {}),
    ("au", "pcm_mulaw", 8_000, {}),
    ("amr", "libopencore_amrnb", 8_000, {"b": "12200"}),
    ("ac3", "ac3", 48_000, {}),
    ("eac3", "eac3", 48_000, {}),
    ("wv", "wavpack", 44_100, {}),
    ("tta", "tta", 44_100, {}),
    ("voc", "pcm_u8", 16_000, {}),
)
#: Sizes that readers of headers have believed.
LIES = (
    0,
    1,
    7,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x10000,
    0xFFFFFF,
    0x7FFFFFF0,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFF,
)
#: A decoder that takes longer for such a file hangs.
HANGS_S = 30
LIMITS = Limits(audio_s=600, wall_s=10)


@cache
def seeds() -> tuple[bytes, ...]:
    """A small sound file of each kind."""
    made = [
        encode(speech()[8_000 : 8_000 + _SAMPLES], container, codec, rate=rate, encoding=options)
        for container, codec, rate, options in KINDS
    ]
    tags = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a name") + chunk(b"ISFT", b"software"))
    return (*made, wav(bytes(_SAMPLES), before=tags, after=chunk(b"bext", bytes(700))))


def mutant(number: int) -> bytes:
    """File ``number``: a seed with one to four things done to it."""
    rng = random.Random(number)
    content = bytearray(rng.choice(seeds()))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(MUTATIONS)(rng, content)
        if not content:
            break
    return bytes(content)


def _flip(rng: random.Random, content: bytearray) -> None:
    """Bytes of the head, where sizes and kinds are, or of anywhere."""
    reach = rng.choice((64, 512, len(content)))
    for _ in range(rng.randint(1, 24)):
        content[rng.randrange(min(reach, len(content)))] = rng.choice((0, 0xFF, 0x80, rng.randrange(256)))


def _cut(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def _repeat(rng: random.Random, content: bytearray) -> None:
    start, size = rng.randrange(len(content)), rng.randint(1, 600)
    content[start:start] = content[start : start + size] * rng.randint(1, 20)


def _remove(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 600)]


def _lie(rng: random.Random, content: bytearray) -> None:
    """A number of two, four or eight bytes, of either order."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(rng.choice((128, 1024, len(content))), len(content)))
        form = rng.choice(("<H", ">H", "<I", ">I", "<I", ">I", "<Q", ">Q"))
        size = struct.calcsize(form)
        lie = struct.pack(form, rng.choice(LIES) & (1 << 8 * size) - 1)
        content[at : at + size] = lie[: max(0, len(content) - at)]


def _splice(rng: random.Random, content: bytearray) -> None:
    """The start of one format and the end of another."""
    other = rng.choice(seeds())
    content[rng.randrange(len(content)) :] = other[rng.randrange(len(other)) :]


def _fill(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    content[start : start + rng.randint(1, 300)] = rng.randbytes(rng.randint(1, 300))


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip,
    _flip,
    _cut,
    _repeat,
    _remove,
    _lie,
    _lie,
    _splice,
    _fill,
)


@dataclass
class Findings:
    """What came of the files: answers by code, and the numbers of the files that were more trouble than that."""

    answers: Counter[str] = field(default_factory=Counter)
    replaced: list[int] = field(default_factory=list)
    hung: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    most_memory: int = 0
    slowest_s: float = 0.0
    slowest: int = 0

    def __str__(self) -> str:
        return (
            f"answers {dict(self.answers)}\nchildren replaced {len(self.replaced)} {self.replaced[:20]}\n"
            f"hangs over {HANGS_S} s {len(self.hung)} {self.hung[:20]}\n"
            f"failures {len(self.failed)} {self.failed[:20]}\n"
            f"largest decoder {self.most_memory / 2**20:.0f} MiB\nslowest file {self.slowest_s:.2f} s ({self.slowest})"
        )


#: Codes that a bad file may have.
REFUSALS = frozenset({"undecodable_audio", "unsupported_audio", "audio_too_long", "audio_too_short"})


async def send(numbers: range, folder: Path, findings: Findings, done: Callable[[], object]) -> None:
    """Files ``numbers`` through one pool of decoders, one at a time; after a replacement a good file must pass."""
    metrics = Metrics()
    decoders = Decoders(folder, LIMITS, metrics)
    restarts = metrics.worker_restarts.labels("decoder")
    source, pcm = folder / "source", folder / "pcm"
    try:
        for number in numbers:
            source.write_bytes(mutant(number))
            before, begun = restarts._value.get(), time.monotonic()
            answer = await _answer(decoders, source, pcm)
            took = time.monotonic() - begun
            findings.answers[answer] += 1
            findings.most_memory = max(findings.most_memory, decoders.memory)
            if took > findings.slowest_s:
                findings.slowest_s, findings.slowest = took, number
            if took > HANGS_S:
                findings.hung.append(number)
            if answer not in {"sound", *REFUSALS}:
                findings.failed.append(number)
            if restarts._value.get() > before:
                findings.replaced.append(number)
                if await _answer(decoders, CLIP.path, pcm) != "sound":
                    findings.failed.append(number)
            done()
    finally:
        await decoders.aclose()


async def _answer(decoders: Decoders, source: Path, pcm: Path) -> str:
    try:
        async with aclosing(decoders.decode(source, pcm)) as parts:
            async for _ in parts:
                pass
    except WhisperdError as error:
        return error.code
    return "sound"


async def fuzz(
    first: int, files: int, jobs: int, findings: Findings, done: Callable[[], object] = lambda: None
) -> None:
    """Files ``first`` … by ``jobs`` pools at once, into ``findings``."""
    with tempfile.TemporaryDirectory(prefix="whisperd-fuzz-") as name:
        async with anyio.create_task_group() as group:
            for job in range(jobs):
                folder = Path(name) / str(job)
                folder.mkdir()
                group.start_soon(send, range(first + job, first + files, jobs), folder, findings, done)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0, help="the first file's number")
    parser.add_argument("--jobs", type=int, default=2, help="decoders at once")
    parser.add_argument("--keep", type=Path, help="write the first file here, and send nothing")
    given = parser.parse_args()
    if given.keep:
        given.keep.write_bytes(mutant(given.first))
        return 0
    findings = Findings()
    with tqdm(total=given.files, unit="file", mininterval=1) as bar, suppress(KeyboardInterrupt):
        anyio.run(fuzz, given.first, given.files, given.jobs, findings, bar.update)
    print(findings)
    return 1 if findings.hung or findings.failed or findings.most_memory > MEMORY_LIMIT * 9 // 8 else 0


if __name__ == "__main__":
    sys.exit(main())
