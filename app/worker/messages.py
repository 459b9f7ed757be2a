"""The protocol between the HTTP process and its children: strict request and reply over one pipe.

Frozen dataclasses of plain types, sorted by direction. Each request gets exactly one reply, or ``Failed``. There is no
goodbye: the end of the pipe is one, in either direction. Audio never travels: a path does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.backends.base import LoadOptions, Memory, ModelInfo, StepResult
from app.transcript import MAX_WINDOW, Options, Vad, Window

# --- to a worker ---


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model in ``model_path``, converting it into ``cache`` first where it is a Hugging Face checkpoint.

    Answered by ``Loaded``. Sent once in a worker's life, first.
    """

    backend: str
    model_path: str
    cache: str
    options: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True, slots=True)
class Step:
    """Transcribe ``windows`` of the PCM file ``pcm`` (s16 mono 16 kHz, perhaps still growing). Answered by
    ``StepDone``.
    """

    pcm: str
    windows: tuple[Window, ...]
    options: Options


@dataclass(frozen=True, slots=True)
class Rest:
    """A job has ended: give back what is kept for speed alone. Answered by ``Rested``, with or without a model."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Use the model once, so that the system has it at hand, and rest. Answered by ``Rested``."""


# --- from a worker ---


@dataclass(frozen=True, slots=True)
class Loaded:
    info: ModelInfo
    load_seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class StepDone:
    result: StepResult
    seconds: float


@dataclass(frozen=True, slots=True)
class Rested:
    """``memory`` is what the library still holds, in bytes; 0 each where no model is loaded."""

    memory: Memory


# --- to a decoder ---


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoder accepts: ``audio_s`` seconds of sound, ``wall_s`` seconds of its own time for one file."""

    audio_s: float = 4 * 3600
    wall_s: float = 600


@dataclass(frozen=True, slots=True)
class Decode:
    """Open ``source`` and decode it into the PCM file ``pcm``, with windows of at most ``longest`` samples. Answered by
    the first ``Decoded``."""

    source: str
    pcm: str
    limits: Limits
    vad: Vad | None = None
    longest: int = MAX_WINDOW


@dataclass(frozen=True, slots=True)
class DecodeMore:
    """Go on with the file in hand for another bounded piece. Answered by ``Decoded``."""


# --- from a decoder ---


@dataclass(frozen=True, slots=True)
class Decoded:
    """A bounded piece is decoded: ``windows`` are new and final; ``samples`` counts all PCM samples written so far.

    ``declared_s`` is the container's word for the whole duration, None where it has none. With ``done`` the file in
    hand is finished; ``bad_packets`` counts those that could not be decoded, ``missing_s`` the seconds that the
    container promised for sure and did not hold, 0 until ``done``.
    """

    windows: tuple[Window, ...]
    samples: int
    declared_s: float | None
    done: bool
    bad_packets: int = 0
    missing_s: float = 0.0


# --- from either ---


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed: ``code`` is that of an error in ``app.errors``, ``message`` its sentence, ``param`` the field
    at fault."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The child's first message: its main loop has begun."""

    pid: int


WorkerRequest = Load | Step | Rest | WarmUp
DecoderRequest = Decode | DecodeMore
Reply = Ready | Loaded | StepDone | Rested | Decoded | Failed
