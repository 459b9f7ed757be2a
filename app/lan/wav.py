"""Chunks of samples into an upload, as the WAV file that a client of HTTP would have sent."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from io import BufferedRandom
from typing import Any

import anyio
from wyoming.event import Event

from app.engine.admission import Upload
from app.errors import AudioTooLong, InvalidRequest, StorageFull, UploadTooLarge

#: Bytes gathered before they are written.
_WRITE_BYTES = 256 * 1024
#: A WAV file's header; and its lengths are 32 bits.
_HEADER, _MOST = 44, 2**32 - 1024
#: Hertz, bytes a sample, channels.
_RATES, _WIDTHS, _CHANNELS = range(4_000, 384_001), range(1, 5), range(1, 65)
Format = tuple[int, int, int]


def samples_of(event: Event) -> tuple[Format, bytes]:
    """Rate, width and channels that the event names, and its samples, if any. Raises ``InvalidRequest``."""
    fields = ((name, event.data.get(name)) for name in ("rate", "width", "channels"))
    found = [_number(name, value, allowed) for (name, value), allowed in zip(fields, _ALLOWED, strict=True)]
    return (found[0], found[1], found[2]), event.payload or b""


_ALLOWED = (_RATES, _WIDTHS, _CHANNELS)


def _number(name: str, value: Any, allowed: range) -> int:
    if type(value) is not int or value not in allowed:
        raise InvalidRequest(f"The sound's {name} must be a number from {allowed[0]} to {allowed[-1]}.", param=name)
    return value


class WavUpload:
    """Writes ``upload.source``; ``finish`` makes it whole, and says its digest. ``close`` in any case.

    At most ``max_bytes``, and ``max_s`` seconds of sound.
    """

    def __init__(self, upload: Upload, max_bytes: int, max_s: int) -> None:
        self._upload = upload
        self._max_bytes = min(max_bytes, _MOST)
        self._max_s = max_s
        self._format: Format | None = None
        self._file: BufferedRandom | None = None
        self._pending = bytearray()
        self._bytes = 0

    async def add(self, form: Format, samples: bytes) -> None:
        """Take in samples of that format. Raises ``InvalidRequest`` where it is another than before,
        ``UploadTooLarge``, ``AudioTooLong``, ``QueueFull`` or ``StorageFull``.
        """
        self._format = self._format or form
        if form != self._format:
            raise InvalidRequest("The sound changes its rate, width or channels in the middle; send it in one format.")
        self._bytes += len(samples)
        if _HEADER + self._bytes > self._max_bytes:
            raise UploadTooLarge(f"The recording is larger than this server's limit of {self._max_bytes // 2**20} MiB.")
        rate, width, channels = form
        if self._bytes > self._max_s * rate * width * channels:
            raise AudioTooLong(f"The recording is longer than {self._max_s / 3600:.1f} hours.")
        self._upload.grow(_HEADER + self._bytes)
        self._pending += samples
        if len(self._pending) >= _WRITE_BYTES:
            await self._run(self._store)

    async def finish(self) -> None:
        """Write what is left. Raises ``StorageFull``."""
        await self._run(self._end)
        self._upload.resize(_HEADER + self._bytes)

    async def _run(self, step: Callable[[], object]) -> None:
        try:
            await anyio.to_thread.run_sync(step)
        except OSError as error:
            raise StorageFull.of(error) from error

    def _store(self) -> BufferedRandom:
        if self._file is None:
            self._file = os.fdopen(os.open(self._upload.source, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600), "w+b")
            self._file.write(bytes(_HEADER))
        pending, self._pending = self._pending, bytearray()
        self._file.write(pending)
        return self._file

    def _end(self) -> None:
        file = self._store()
        file.seek(0)
        file.write(self._header())
        file.seek(0)
        self._upload.digest = hashlib.file_digest(file, "sha256").hexdigest()

    def _header(self) -> bytes:
        """RIFF's and PCM's, now that the lengths are known."""
        assert self._format is not None
        rate, width, channels = self._format
        frame, size = width * channels, self._bytes
        parts = (b"RIFF", _HEADER - 8 + size, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * frame, frame, 8 * width)
        return struct.pack("<4sI4s4sIHHIIHH4sI", *parts, b"data", size)

    def close(self) -> None:
        """Let go of the file, whole or not. Raises ``StorageFull`` where the last bytes find no room."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise StorageFull.of(error) from error
