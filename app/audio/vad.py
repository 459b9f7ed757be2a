"""Where speech is: a probability for every 32 ms of the recording, made block by block as it is decoded.

Silero VAD (the model file is that of faster-whisper 1.2.1, MIT) through onnxruntime; where that is missing, the sound's
energy over its own noise floor. Both are fed any number of samples at a time and give the same figures as over the
whole recording at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.audio.windows import FRAME

Floats = NDArray[np.float32]

#: Silero sees the last 64 samples of the frame before.
CONTEXT = 64
#: Frames Silero is given at once: larger batches are no faster and take memory (10,000 would take 500 MB).
BATCH = 128
#: Size of Silero's two recurrent states.
STATE = (1, 1, 128)
MODEL_FILE = Path(__file__).parent.parent / "data" / "silero_vad_v6.onnx"

#: The floor that the energy detector starts from: a quiet room through a laptop's microphone.
FLOOR_DB = -60.0
#: How fast its floor follows rising noise. Speech pauses several times within the 10 s that 15 dB take.
FLOOR_RISE_DB = 1.5 * FRAME / 16_000
#: Speech stands this far above the floor at least: its probability is one half there.
OVER_FLOOR_DB = 10.0
#: Width of the energy detector's step from "surely not" to "surely".
SLOPE_DB = 2.0
#: Nothing under this is speech, however quiet the room.
AUDIBLE_DB = -55.0


class SpeechDetector(ABC):
    """Feeds itself with a recording from its start; one instance may be used for many, with ``reset`` between."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the recording in hand."""
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)

    def feed(self, pcm: NDArray[np.int16]) -> tuple[Floats, Floats]:
        """Probabilities of speech and mean squares (of samples in [-1, 1)) of the frames that are now complete.

        ``pcm`` is (n,) at 16 kHz, any n; both results are (frames,) with ``FRAME`` samples a frame.
        """
        pcm = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        whole = len(pcm) // FRAME * FRAME
        self._rest = pcm[whole:].copy()
        frames = pcm[:whole].reshape(-1, FRAME).astype(np.float32) * np.float32(1 / 32768)
        if not len(frames):
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        energies: Floats = np.mean(frames * frames, axis=1, dtype=np.float32)
        return self._probabilities(frames, energies), energies

    def finish(self) -> tuple[Floats, Floats]:
        """The figures of the last, incomplete frame (padded with silence), if there is one."""
        return self.feed(np.zeros(-len(self._rest) % FRAME, np.int16))

    @abstractmethod
    def _probabilities(self, frames: Floats, energies: Floats) -> Floats:
        """(n, FRAME) samples and (n,) mean squares, n > 0, to (n,) probabilities."""


class SileroDetector(SpeechDetector):
    """Silero VAD v6. Needs onnxruntime; loading takes about 30 ms."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena keeps the largest batch's memory for ever
        options.log_severity_level = 4
        self._session: Any = onnxruntime.InferenceSession(
            str(MODEL_FILE), sess_options=options, providers=["CPUExecutionProvider"]
        )
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self._h = np.zeros(STATE, np.float32)
        self._c = np.zeros(STATE, np.float32)
        self._context = np.zeros((1, CONTEXT), np.float32)

    def _probabilities(self, frames: Floats, energies: Floats) -> Floats:  # noqa: ARG002 - the samples say more
        contexts = np.concatenate([self._context, frames[:-1, -CONTEXT:]])
        self._context = frames[-1:, -CONTEXT:].copy()
        rows = np.concatenate([contexts, frames], axis=1)
        found = []
        for begin in range(0, len(rows), BATCH):
            inputs = {"input": rows[begin : begin + BATCH], "h": self._h, "c": self._c}
            probabilities, self._h, self._c = self._session.run(None, inputs)
            found.append(probabilities.reshape(-1))
        return np.concatenate(found)


class EnergyDetector(SpeechDetector):
    """Speech is what stands out of the noise: no match for Silero, but it loses no words and needs only numpy."""

    def reset(self) -> None:
        super().reset()
        self._floor = FLOOR_DB

    def _probabilities(self, frames: Floats, energies: Floats) -> Floats:  # noqa: ARG002 - the energies are enough
        levels = 10 * np.log10(energies + 1e-10)
        floors = np.empty(len(levels))
        for i, level in enumerate(levels):
            self._floor = min(self._floor + FLOOR_RISE_DB, max(float(level), FLOOR_DB))
            floors[i] = self._floor
        over = (levels - floors - OVER_FLOOR_DB) / SLOPE_DB
        over[levels < AUDIBLE_DB] = -20
        return np.asarray(1 / (1 + np.exp(-np.clip(over, -20, 20))), np.float32)


def make_detector() -> SpeechDetector:
    """Silero where onnxruntime is installed, else the energy detector."""
    return SileroDetector() if find_spec("onnxruntime") else EnergyDetector()
