"""Record the microphone, with the optional library sounddevice (extra ``microphone``), which wants PortAudio."""

from __future__ import annotations

import contextlib
import math
import select
import sys
import time
import wave
from array import array
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from app.errors import InvalidRequest
from app.transcript import SAMPLE_RATE

#: Seconds between two looks at the keyboard.
_LOOK_S = 0.1
#: Seconds without any sound after which a microphone is taken to be gone.
_SILENT_S = 10
#: The level shown: its characters, the decibels below the loudest at which it begins, the loudest.
_WIDTH, _QUIETEST_DB, _LOUDEST = 20, 60, 32768


def record(path: Path, seconds: float | None = None) -> None:
    """Record 16 kHz mono into the WAV file ``path`` until Enter or Ctrl-C, at most so many ``seconds``. Raises
    ``InvalidRequest`` where there is no library, no microphone, or none that we may use.
    """
    library = _library()
    heard: SimpleQueue[bytes] = SimpleQueue()

    def take(data: Any, *_: object) -> None:
        heard.put(bytes(data))

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        try:
            with library.RawInputStream(samplerate=SAMPLE_RATE, channels=1, dtype="int16", callback=take):
                _keep(heard, file, math.inf if seconds is None else seconds)
        except library.PortAudioError as error:
            raise InvalidRequest(f"The microphone cannot be used: {error}.") from None


def _library() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise InvalidRequest("Recording wants one more library: pip install 'whisperd[microphone]'.") from None
    except OSError as error:  # it is there, and does not find what it wraps
        raise InvalidRequest(
            f"The library sounddevice finds no PortAudio ({error}). On Debian and Ubuntu: apt install libportaudio2."
        ) from None
    return sounddevice  # type: ignore[no-any-return]


def _keep(heard: SimpleQueue[bytes], file: wave.Wave_write, seconds: float) -> None:
    """Write what is heard until somebody ends it, with a line that shows the level and the time."""
    kept, last = 0, time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while kept < seconds * SAMPLE_RATE and not _enter():
            try:
                block = heard.get(timeout=_LOOK_S)
            except Empty:
                if time.monotonic() - last > _SILENT_S:
                    raise InvalidRequest("The microphone gives no sound any more.") from None
                continue
            last = time.monotonic()
            file.writeframesraw(block)
            kept += len(block) // 2
            _show(f"Recording {kept / SAMPLE_RATE:5.1f} s  {_level(block)}  Enter ends it")
    _show("")


def _enter() -> bool:
    """Whether somebody pressed Enter; what else is typed waits for it, as the terminal has it."""
    if not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
        return False
    sys.stdin.readline()
    return True


def _level(block: bytes) -> str:
    """How loud the block is, from -60 dB to the loudest."""
    loudest = max(map(abs, array("h", block)), default=0)
    decibels = 20 * math.log10(max(loudest, 1) / _LOUDEST)
    filled = round(_WIDTH * max(0.0, 1 + decibels / _QUIETEST_DB))
    return f"[{'#' * filled:<{_WIDTH}}]"


def _show(line: str) -> None:
    """``line`` in place of the one before, on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
        sys.stderr.flush()
