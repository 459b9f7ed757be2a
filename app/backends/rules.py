"""What every backend does with the tokens that Whisper decoded: guards, segments, remainders. Pure functions.

One set of rules for all libraries, so that the same tokens give the same transcript. The thresholds and the reading of
timestamps are those of OpenAI's ``whisper/transcribe.py``; the remainder is ours: a window whose last timestamp
comes before its speech ends goes back to the queue, where OpenAI's loop would seek on and batched pipelines lose it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.errors import InferenceFailed
from app.transcript import SAMPLE_RATE, Window

#: Text that compresses better than this is a repetition loop (OpenAI's figure).
COMPRESSION_RATIO_LIMIT = 2.4
#: A mean log-probability under this is not to be trusted (OpenAI's figure).
LOGPROB_LIMIT = -1.0
#: With a low log-probability, a no-speech probability over this means silence (OpenAI's figure).
NO_SPEECH_LIMIT = 0.6
#: Whisper's timestamp tokens count 20 ms each.
SAMPLES_PER_TIMESTAMP = SAMPLE_RATE // 50
#: Speech behind the last timestamp that is worth another pass: Whisper sets its last timestamp up to half a
#: second early, and a shorter rest invites invented words.
MIN_REMAINDER = SAMPLE_RATE * 6 // 10
#: A pass must get this far for its remainder to be tried, or a window could be cut for ever.
MIN_PROGRESS = SAMPLE_RATE // 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """One window's tokens (without prompt and end of text) and their figures, as a library decoded them."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def compression_ratio(self) -> float:
        return compression_ratio(self.text)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of tokens between timestamps; ``start`` and ``end`` in samples from the window's start."""

    start: int
    end: int
    tokens: tuple[int, ...]


def compression_ratio(text: str) -> float:
    """Bytes of UTF-8 over bytes of zlib; 0 for no text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def is_silence(decoded: Attempt) -> bool:
    """Whether the model itself says that nobody speaks: such a window has no segments."""
    return decoded.no_speech_prob > NO_SPEECH_LIMIT and decoded.avg_logprob < LOGPROB_LIMIT


def needs_fallback(decoded: Attempt) -> bool:
    """Whether the text must not be used while a warmer temperature is left. NaN counts as failed."""
    if decoded.compression_ratio > COMPRESSION_RATIO_LIMIT:
        return True
    return not decoded.avg_logprob >= LOGPROB_LIMIT and not is_silence(decoded)


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt to use where all failed: the likeliest of those that do not loop, else the likeliest.

    Raises ``InferenceFailed`` where no attempt has finite figures.
    """
    finite = [a for a in attempts if math.isfinite(a.avg_logprob) and math.isfinite(a.no_speech_prob)]
    if not finite:
        raise InferenceFailed("The model's figures are not numbers; its result cannot be used.")
    sound = [a for a in finite if a.compression_ratio <= COMPRESSION_RATIO_LIMIT]
    return max(sound or finite, key=lambda a: a.avg_logprob)


def split_pieces(tokens: Sequence[int], timestamp_begin: int, length: int) -> tuple[list[Piece], int]:
    """Cut a window's tokens at its timestamps.

    Returns the pieces, their times clipped to the window's ``length`` (samples), and how far the window was heard
    (samples): the last timestamp, or ``length`` where there is none. Text behind the last pair of timestamps is an
    unfinished segment: it becomes a last piece up to ``length``, but does not count as heard.
    """

    def position(token: int) -> int:
        return min((token - timestamp_begin) * SAMPLES_PER_TIMESTAMP, length)

    is_time = [token >= timestamp_begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    times = [token for token, timed in zip(tokens, is_time, strict=True) if timed]
    if not cuts:
        end = position(times[-1]) if times and times[-1] != timestamp_begin else length
        start = position(times[0]) if times and is_time[0] and position(times[0]) < end else 0
        return ([Piece(start, end, tuple(tokens))] if tokens else []), end

    closed = is_time[-1] and not is_time[-2]
    pieces: list[Piece] = []
    begin = 0
    for cut in [*cuts, len(tokens)] if closed else cuts:
        part = tuple(tokens[begin:cut])
        pieces.append(Piece(position(part[0]), position(part[-1]), part))
        begin = cut
    heard = pieces[-1].end
    if not closed and any(token < timestamp_begin for token in tokens[begin:]):
        pieces.append(Piece(position(tokens[begin]), length, tuple(tokens[begin:])))
    return pieces, heard


def remainder(window: Window, heard: int) -> Window | None:
    """The part of ``window`` behind ``heard`` (samples from its start) that goes back, or None where no speech is left."""
    if heard < MIN_PROGRESS:
        return None
    position = window.start + heard
    speech = tuple((max(start, position), end) for start, end in window.speech if end > position)
    if sum(end - start for start, end in speech) < MIN_REMAINDER:
        return None
    return replace(window, start=max(position, speech[0][0] - SAMPLE_RATE // 10), speech=speech, retry=False)
