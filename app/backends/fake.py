"""A backend without a library: it does what its script says. The double that tests of faults, timing and races run on.

``load``'s ``model_path`` is the script: a JSON object, as text, in a file, or in the file ``script`` of a folder that
may hold a real model besides (``{}`` or any other path: all defaults).

=====================  =================================================================================================
``text``               text of each segment; ``{start}`` is the window's start in ms, ``{pid}`` the process
                       (default ``" w{start}"``)
``language``           what detection finds (default ``"en"``; of candidates without it, the first)
``multilingual``       whether the model knows more than English (default true)
``seconds_per_step``   how long a step takes
``seconds_per_audio``  seconds that a second of audio takes besides
``load``, ``warm_up``  a fault (below) at that moment; ``load_seconds``, ``warm_up_seconds`` make either slow
``on_warm_up``         ``{"2": fault}``: faults at the second warm-up of this process's life
``on_step``            ``{"3": fault}``: faults at the third step of this process's life
``on_window``          ``{"48000": fault}``: faults when the window that starts there (samples) is in the step
``once``               a path: faults of steps and ``on_warm_up`` happen only while no file is there, and make it
``log``                a path: each step adds a JSON line when it begins (``event`` ``"begin"``) and one when it ends
                       (``"end"``), each rest and warm-up one (``"rest"``, ``"warm up"``, with no windows)
``memory``             ``{"active": 3, "cached": 1, "peak": 4}``: what ``rest`` reports, bytes (default 0 each)
``max_audio``          windows longer than this (samples) are heard only so far: the rest comes back
=====================  =================================================================================================

A fault is ``raise`` (a library's exception), ``memory``, ``nan``, ``hang`` (asleep), ``spin`` (busy in Python),
``freeze`` (asleep in native code that keeps the interpreter's lock), ``exit``, ``kill``, ``abort``, ``segv``, ``stop``
(SIGSTOP), ``retry`` (the windows come back with ``retry``) or ``unavailable`` (``load`` only).

A token is a word with the space before it; its log-probability is ``LOGPROB``.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import rules
from app.backends.base import Backend, LoadOptions, Memory, ModelInfo, StepResult, WindowResult
from app.backends.rules import Attempt, Piece, TimedPiece, TimedWord
from app.errors import BackendUnavailable, InferenceFailed, InvalidRequest, WhisperdError
from app.languages import LANGUAGES
from app.transcript import SAMPLE_RATE, Options, Segment, TokenLogprob, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Longer than any test waits: a hang ends when somebody kills it.
FOR_EVER = 3600.0
#: Every token's log-probability, where they are asked for.
LOGPROB = -0.5


class Fake(Backend):
    def __init__(self) -> None:
        self._script: dict[str, Any] = {}
        self._steps = 0
        self._warm_ups = 0

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        self._script = _read_script(model_path)
        time.sleep(float(self._script.get("load_seconds", 0)))
        self._fault(self._script.get("load"))
        return ModelInfo(
            "cpu" if options.device == "auto" else options.device,
            "none" if options.precision == "default" else options.precision,
            multilingual=self._multilingual,
        )

    @property
    def _multilingual(self) -> bool:
        return bool(self._script.get("multilingual", True))

    def warm_up(self) -> None:
        self._warm_ups += 1
        self._note("warm up", ())
        time.sleep(float(self._script.get("warm_up_seconds", 0)))
        self._fault(self._script.get("warm_up"))
        self._fault(self._unless_it_was(self._script.get("on_warm_up", {}).get(str(self._warm_ups))))

    def rest(self) -> Memory:
        self._note("rest", ())
        return Memory(**self._script.get("memory", {}))

    def transcribe(self, pcm: NDArray[np.int16], windows: Sequence[Window], options: Options) -> StepResult:
        self._steps += 1
        self._note("begin", windows)
        try:
            return self._step(pcm, windows, options)
        except (WhisperdError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - as the real ones do
            raise InferenceFailed(f"fake failed with {type(error).__name__}.") from None
        finally:
            self._note("end", windows)

    def _step(self, pcm: NDArray[np.int16], windows: Sequence[Window], options: Options) -> StepResult:
        if any(window.end > len(pcm) for window in windows):
            raise InferenceFailed("The recording is shorter than the window asked for.")
        language = self._language(options)
        audio = sum(window.sound for window in windows) / SAMPLE_RATE
        time.sleep(
            float(self._script.get("seconds_per_step", 0)) + audio * float(self._script.get("seconds_per_audio", 0))
        )
        fault = self._fault_of(windows)
        if fault == "retry" and not any(window.retry for window in windows):
            results = [WindowResult(window, again=(replace(window, retry=True),)) for window in windows]
        else:
            self._fault(fault)
            results = [self._result(window, options, broken=fault == "nan") for window in windows]
        done = [result for result in results if not any(again.retry for again in result.again)]
        return StepResult(
            windows=tuple(results),
            language=language,
            prompt_tokens=(len(options.prompt.split()) + 1) * len(done),
            decoded_tokens=sum(len(segment.tokens) for result in results for segment in result.segments),
        )

    def _language(self, options: Options) -> str:
        if not self._multilingual:
            if options.task == "translate":
                raise InvalidRequest("This model cannot translate: it knows English only.", param="model")
            return "en"
        found = options.language or str(self._script.get("language", "en"))
        candidates = [code for code in options.languages if code in LANGUAGES]
        if options.languages and not candidates:
            raise InvalidRequest("This model knows none of these languages.", param="languages")
        return found if options.language or not candidates or found in candidates else candidates[0]

    def _result(self, window: Window, options: Options, broken: bool) -> WindowResult:
        """One segment over the window, or over its first ``max_audio`` samples with the rest to come back."""
        figure = float("nan") if broken else -0.1
        text = str(self._script.get("text", " w{start}"))
        text = text.replace("{start}", str(window.start * 1000 // SAMPLE_RATE)).replace("{pid}", str(os.getpid()))
        spelled = re.findall(r"\s*\S+", text)
        tokens = tuple(range(1, len(spelled) + 1))
        decoded = rules.climb(
            lambda temperature: Attempt(tokens, text.strip(), figure, 0.0, temperature), options.temperatures[:1]
        )
        length = window.sound
        heard = min(length, int(self._script.get("max_audio", length)))
        rest = rules.remainder(window, heard) if heard < length else None
        piece = Piece(0, heard if rest else length, decoded.tokens)
        timed = _spread(piece, text) if options.words else None
        segments: tuple[Segment, ...] = ()
        if text.strip():
            logprobs = tuple(TokenLogprob(token, LOGPROB, tuple(token.encode())) for token in spelled)
            segments = (rules.make_segment(window, decoded, piece, text, timed, logprobs if options.logprobs else ()),)
        return WindowResult(window, segments, (rest,) if rest else ())

    def _fault_of(self, windows: Sequence[Window]) -> str | None:
        """The fault that the script has for this step, unless it happened before (``once``)."""
        by_window = self._script.get("on_window", {})
        named = [self._script.get("on_step", {}).get(str(self._steps))]
        named += [by_window.get(str(window.start)) for window in windows]
        return self._unless_it_was(next((str(name) for name in named if name), None))

    def _unless_it_was(self, fault: str | None) -> str | None:
        once = self._script.get("once")
        if fault is None or once is None:
            return fault
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return None
        return fault

    def _fault(self, name: str | None) -> None:
        if name is not None and name not in {"nan", "retry"}:
            FAULTS[name]()

    def _note(self, event: str, windows: Sequence[Window]) -> None:
        if "log" in self._script:
            line = {
                "event": event,
                "pid": os.getpid(),
                "step": self._steps,
                "time": time.monotonic(),
                "windows": [[window.start, window.end] for window in windows],
            }
            with Path(self._script["log"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _raise(error: Exception) -> None:
    raise error


def _spin() -> None:
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        pass


FAULTS: dict[str, Callable[[], None]] = {
    "raise": lambda: _raise(RuntimeError("a library's own words, which may quote the user's")),
    "memory": lambda: _raise(MemoryError()),
    "hang": lambda: time.sleep(FOR_EVER),
    "spin": _spin,
    "freeze": lambda: ctypes.PyDLL(None).sleep(int(FOR_EVER)),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "unavailable": lambda: _raise(BackendUnavailable("The script says that this model cannot be loaded.")),
}


def _read_script(model_path: str) -> dict[str, Any]:
    """The script in ``model_path``; BackendUnavailable where it looks like one and is not."""
    try:
        text = model_path
        if not model_path.lstrip().startswith("{"):
            path = Path(model_path)
            path = path / "script" if path.is_dir() else path
            text = path.read_text(encoding="utf-8") if path.is_file() else "{}"
        script = json.loads(text)
    except (OSError, ValueError):
        raise BackendUnavailable("The fake backend's script is not JSON.") from None
    if not isinstance(script, dict):
        raise BackendUnavailable("The fake backend's script is not a JSON object.")
    return script


def _spread(piece: Piece, text: str) -> TimedPiece:
    """The piece's words, spread evenly."""
    start, end = piece.start / SAMPLE_RATE, piece.end / SAMPLE_RATE
    spoken = text.split()
    each = (end - start) / max(1, len(spoken))
    words = tuple(TimedWord(word, start + i * each, start + (i + 1) * each, 1.0) for i, word in enumerate(spoken))
    return TimedPiece(start, end, words)
