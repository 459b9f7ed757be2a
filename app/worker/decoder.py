"""The decoder's main: an upload to PCM on disk and windows, a bounded piece a request.

Started as ``python -m app.worker.decoder FD``; the paths it is sent must be absolute.
The process is made to be lost: it holds at most one file, and whoever started it may kill it at any moment. Its working
directory is a folder that is already gone, because libav resolves names in hostile files against that, and what it
writes only its user can read.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from app.audio.decode import Sound
from app.audio.mix import Pcm
from app.audio.vad import SpeechDetector, make_detector
from app.audio.windows import WindowCutter
from app.errors import AudioTooShort, InvalidRequest, StorageFull, UndecodableAudio
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
    while rest:
        rest = rest[file.write(rest) :]


def main() -> None:
    """Prepare the process and what is slow (the libraries, the detector's session), then serve the pipe."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the user's voice
    decoder = Decoder()
    with tempfile.TemporaryDirectory(prefix="whisperd-decoder-") as gone:
        os.chdir(gone)
    run(decoder.handle)


if __name__ == "__main__":
    main()
