"""What every backend promises.

A backend adapts one library. It is stateless between steps except for the loaded model: what a job still has to do
lives in the engine, as windows, so that a worker may die, or another job may take the next step, at any moment.

* The library is imported inside ``load``, never at the top of the module.
* Only plain types of ``app.transcript`` leave a backend: no numpy scalars, no library exceptions.
* ``transcribe`` does one bounded piece of work: one pass over the windows it was given.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.transcript import Options, Segment, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: More CPU threads than this gain nothing for one window and starve the rest of the machine.
MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load: ``device`` is ``auto``, ``cpu`` or ``cuda``; ``precision`` the library's own name or ``default``;
    ``threads`` CPU threads, 0 for the library's choice."""

    device: str = "auto"
    precision: str = "default"
    threads: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded; ``device`` and ``precision`` as they came out. ``at_once`` windows take about as long as one."""

    device: str
    precision: str
    multilingual: bool
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class WindowResult:
    """A window's outcome: its ``segments`` (times in seconds of the recording) and what must go back to the queue.

    ``again`` holds the part of the window behind its last timestamp where that still holds speech; or the window
    itself, with ``retry`` set, where its greedy text failed the guards and it was fitted (to be encoded longer), or not
    alone in the step (its segments are then empty).
    """

    window: Window
    segments: tuple[Segment, ...] = ()
    again: tuple[Window, ...] = ()

    @property
    def rerun(self) -> bool:
        """Whether the window was fitted, and must be encoded longer."""
        return any(window.retry and window.encoded > self.window.encoded for window in self.again)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step's outcome, a result for each window in the order given.

    ``language`` is the code the step was decoded in: the one asked for, or the one detected from the step's first
    window. ``prompt_tokens`` and ``decoded_tokens`` count over the windows that are done, not over those that come back
    with ``retry``: what the decoder was given for each (the prompt's tokens as far as Whisper sees them, start,
    language and task), and what it decoded in the attempt that was used, timestamps included, the end of text not.
    ``backend`` is the name of who did it, which the engine fills in.
    """

    windows: tuple[WindowResult, ...]
    language: str
    prompt_tokens: int = 0
    decoded_tokens: int = 0
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by the library's own account, 0 where it keeps none: ``active`` in use (weights included), ``cached`` kept
    for speed alone, ``peak`` the most that was ``active`` at once since the rest before, or since the process began."""

    active: int = 0
    cached: int = 0
    peak: int = 0


class Backend(ABC):
    @abstractmethod
    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        """Import the library and load the weights in ``model_path`` (already in this backend's format).

        Raises ``BackendUnavailable`` with a sentence where either cannot be had.
        """

    @abstractmethod
    def transcribe(self, pcm: NDArray[np.int16], windows: Sequence[Window], options: Options) -> StepResult:
        """One pass over ``windows`` of the recording ``pcm`` (mono s16 at 16 kHz, memory-mapped; only the windows'
        samples may be read).

        Windows are at least one, none with ``retry`` unless it is alone. Where there is one, it is taken through
        the whole temperature ladder; of several, those that fail the guards at the first temperature go back
        with ``retry`` set. ``options.language`` None detects the language from the first window: the likeliest of all,
        or of ``options.languages`` where there are any; a model that knows English only has nothing to detect. With
        ``options.logprobs`` segments carry the figures of their text tokens, decoded without beams; that costs.
        Raises ``InferenceFailed``; ``InvalidRequest`` for a language that the model does not know (of
        ``options.languages`` one is enough), and for a translation by a model that knows English only.
        """

    def warm_up(self) -> None:  # noqa: B027 - a backend may have nothing to warm
        """Run once what the first request would otherwise wait for. Called after ``load``, before ready."""

    def rest(self) -> Memory:
        """Give back what the library keeps for speed alone, and say what it still holds.

        Called between jobs, after ``load``, on the thread that loaded. It must be quick, and no text may change by it.
        """
        return Memory()


def openblas_preload() -> str | None:
    """The path for ``LD_PRELOAD`` that makes MLX on Linux's CPU several times faster, None where it is not there.

    MLX's Linux wheel links the reference BLAS; Debian's ``libopenblas0-pthread`` has the same symbols. Whoever spawns a
    child that runs MLX on a CPU sets it in the child's environment: it is too late once Python runs.
    """
    if sys.platform != "linux":
        return None
    found = sorted(Path("/usr/lib").glob("*/openblas-pthread/libopenblas.so.0"))
    return str(found[0]) if found else None
