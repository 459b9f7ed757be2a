"""The decoder's main: an upload to PCM on disk and windows, a bounded piece a request.

Started as ``python -m app.worker.decoder FD``; the paths it is sent must be absolute.
The process is made to be lost: it holds at most one file, and whoever started it may kill it at any moment. Its working
directory is a folder that is already gone, because libav resolves names in hostile files against that, and what it
writes only its user can read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from app.audio.decode import Sound
from app.audio.mix import Pcm
from app.audio.vad import SpeechDetector, make_detector
from app.audio.windows import WindowCutter
from app.errors import AudioTooLong, AudioTooShort, InvalidRequest, StorageFull, UndecodableAudio
from app.transcript import SAMPLE_RATE, Window
from app.worker.loop import run
from app.worker.messages import Decode, Decoded, DecodeMore

#: OpenAI refuses recordings under 0.1 s as too short.
MIN_SAMPLES = SAMPLE_RATE // 10
#: A reply comes after a minute of sound at the latest, so that silence reports progress too.
PIECE_SAMPLES = 60 * SAMPLE_RATE
#: And after this many seconds of work, so that a slow codec does.
PIECE_SECONDS = 0.4
#: Sound is looked at in pieces of 4 s: long enough for the detector's batches, short beside the 30 s of a window.
LISTEN_SAMPLES = 4 * SAMPLE_RATE
#: Descriptors: the standard three, the pipe, a file and its PCM, and a few that libraries keep.
MAX_FILES = 32
#: Bytes that one file may take besides what the libraries hold: with that, the 400 MB at which the parent kills.
MAX_MEMORY = 320 * 1024 * 1024
#: Bytes that the PCM may be over the longest recording's.
PCM_SLACK = 1024 * 1024


class Recording:
    """One file in hand: decoded, written and listened to a piece at a time."""

    def __init__(self, request: Decode, detector: SpeechDetector) -> None:
        self.done = False
        self._detector = detector
        self._detector.reset()
        self._cutter = WindowCutter(request.vad, request.longest)
        self._sound = Sound(request.source, request.limits.audio_s, request.limits.wall_s)
        try:
            self._blocks = _gather(self._sound.blocks(), LISTEN_SAMPLES)
            self._pcm = _create(request.pcm)
        except BaseException:
            self._sound.close()
            raise
        self._samples = 0

    def close(self) -> None:
        self.done = True
        self._sound.close()
        self._pcm.close()

    def piece(self) -> Decoded:
        """Go on until a window is decided, a piece's worth of sound or time is used up, or the file ends.

        Raises the errors of ``Sound``, ``AudioTooShort``, and ``StorageFull`` where the PCM file cannot be written.
        """
        windows: list[Window] = []
        last_sample, last_second = self._samples + PIECE_SAMPLES, time.monotonic() + PIECE_SECONDS
        while not windows and self._samples < last_sample and time.monotonic() < last_second:
            block = next(self._blocks, None)
            if block is None:
                windows += self._finish()
                break
            _write(self._pcm, block)
            self._samples += len(block)
            windows += self._listen(block)
        return Decoded(
            windows=tuple(windows),
            samples=self._samples,
            declared_s=self._sound.declared_s,
            done=self.done,
            bad_packets=self._sound.bad_packets,
            missing_s=self._sound.missing_s if self.done else 0.0,
        )

    def _listen(self, block: Pcm) -> list[Window]:
        probabilities, energies = self._detector.feed(block)
        return self._cutter.feed(probabilities.tolist(), energies.tolist())

    def _finish(self) -> list[Window]:
        if self._samples < MIN_SAMPLES:
            raise AudioTooShort("The recording is shorter than 0.1 seconds.")
        probabilities, energies = self._detector.finish()
        windows = self._cutter.feed(probabilities.tolist(), energies.tolist())
        windows += self._cutter.finish(self._samples)
        self.close()
        return windows


class Decoder:
    """Answers the decoder's two requests; the state between them is the recording in hand."""

    def __init__(self) -> None:
        self._detector = make_detector()
        self._detector.feed(np.zeros(SAMPLE_RATE, np.int16))  # the first run of a session allocates
        self._recording: Recording | None = None

    def handle(self, request: Decode | DecodeMore) -> Decoded:
        try:
            if isinstance(request, Decode):
                self._drop()
                self._recording = Recording(request, self._detector)
            if self._recording is None or self._recording.done:
                raise InvalidRequest("There is no file in hand to go on with.")
            return self._recording.piece()
        except MemoryError:
            self._drop()
            raise UndecodableAudio("The file asks for more memory than any sound needs.") from None
        except OSError as error:  # not the file's, which Sound keeps: the upload's or the samples', so the server's
            self._drop()
            raise StorageFull.of(error) from None
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._recording is not None:
            self._recording.close()
            self._recording = None


def _gather(arrays: Iterator[Pcm], samples: int) -> Iterator[Pcm]:
    """The same sound in arrays of at least ``samples``, but for the last."""
    held: list[Pcm] = []
    for array in arrays:
        held.append(array)
        if sum(map(len, held)) >= samples:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _create(path: str) -> BinaryIO:
    """The file for the PCM, which only this user can read; unbuffered, since the worker reads while it grows.

    A file that is there is written over, not cut: a decoder before this one died on the same upload, and a step may
    be reading what it wrote, which is what this one will write too.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)


def _write(file: BinaryIO, block: Pcm) -> None:
    rest = memoryview(block.astype("<i2").tobytes())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno == errno.EFBIG and 0 <= resource.getrlimit(resource.RLIMIT_FSIZE)[0] <= file.tell():
            raise AudioTooLong("The recording is longer than this server takes.") from None
        raise


def restrain() -> None:
    """Limit this process, once its libraries are loaded: no core file, few descriptors, little memory beside theirs.

    Memory is Linux's to limit: an allocation fails then, which libav says in words. Elsewhere, and for what is mapped
    from files, there is the parent, who kills.
    """
    _lower(resource.RLIMIT_CORE, 0)  # a core file would hold the user's voice
    _lower(resource.RLIMIT_NOFILE, MAX_FILES)
    if (held := _data_bytes()) is not None:
        _lower(resource.RLIMIT_DATA, held + MAX_MEMORY)


def restrain_pcm(audio_s: float) -> None:
    """Let no file that this process writes outgrow the PCM of ``audio_s`` seconds; it may be called again.

    ``Sound`` counts samples itself: this is for its errors. Python ignores the signal, so a write fails with EFBIG.
    """
    most, hard = round(audio_s) * 2 * SAMPLE_RATE + PCM_SLACK, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _lower(limit: int, most: int) -> None:
    hard = resource.getrlimit(limit)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))


def _data_bytes() -> int | None:
    """What counts for ``RLIMIT_DATA`` now; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)


def _go_nowhere() -> None:
    """Work in a folder that is no more, where no relative name leads anywhere; or stay in the spool's empty one where
    there is no place for such a folder, as in a container whose root is read-only.
    """
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="whisperd-decoder-") as gone:
        os.chdir(gone)


def main() -> None:
    """Prepare the process and what is slow (the libraries, the detector's session), then serve the pipe."""
    os.umask(0o077)
    decoder = Decoder()
    _go_nowhere()
    restrain()

    def handle(request: Decode | DecodeMore) -> Decoded:
        if isinstance(request, Decode):
            restrain_pcm(request.limits.audio_s)
        return decoder.handle(request)

    run(handle)


if __name__ == "__main__":
    main()
