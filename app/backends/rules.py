"""What every backend does with the tokens that Whisper decoded: guards, pieces, remainders, segments. Pure functions.

One set of rules for all libraries, so that the same tokens give the same transcript. The thresholds and the reading of
timestamps are those of OpenAI's ``whisper/transcribe.py``; the remainder is ours: a window whose last timestamp
comes before its speech ends goes back to the queue, where OpenAI's loop would seek on and batched pipelines lose it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from app.backends import takes
from app.errors import InferenceFailed
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Segment, TokenLogprob, Window, Word

#: Text that compresses better than this is a repetition loop (OpenAI's figure).
COMPRESSION_RATIO_LIMIT = 2.4
#: A mean log-probability under this is not to be trusted (OpenAI's figure).
LOGPROB_LIMIT = -1.0
#: A fitted window shorter than this is also not trusted where its mean log-probability is under that: of 68 clips of
#: people, read by `base`, the few that came out worse fitted than whole were so (docs/performance.md).
SHORT, UNSURE_LIMIT = 5 * SAMPLE_RATE, -0.5
#: What such a window is encoded at again: as good as whole, by that measurement, in less than half of the time.
ROOMY = 10 * SAMPLE_RATE
#: With a low log-probability, a no-speech probability over this means silence (OpenAI's figure).
NO_SPEECH_LIMIT = 0.6
#: Candidates drawn at a temperature above 0, of which the likeliest is kept (OpenAI's figure).
BEST_OF = 5
#: Of a prompt Whisper sees its last tokens only: half its 448 positions less the mark in front (OpenAI's figure).
PROMPT_TOKENS = 223
#: Tokens that one pass may decode: half of Whisper's 448 positions (OpenAI's figure).
MAX_DECODED = 224
#: A window's first timestamp comes within its first second, in timestamps of 20 ms (OpenAI's figure).
MAX_INITIAL_TIMESTAMP = 50
#: Whisper's timestamp tokens count 20 ms each.
SAMPLES_PER_TIMESTAMP = SAMPLE_RATE // 50
#: A frame of the log-mel spectrogram is 10 ms.
SAMPLES_PER_FRAME = SAMPLE_RATE // 100
#: Whisper sets its last timestamp up to half a second early: speech this close behind it has been heard.
EARLY = SAMPLE_RATE // 2
#: Speech behind that which is worth another pass: a lone word. A shorter rest is a breath, and invites invented words.
MIN_REMAINDER = SAMPLE_RATE // 4
#: A pass must get this far for its remainder to be tried, or a window could be cut for ever.
MIN_PROGRESS = SAMPLE_RATE // 5
#: A remainder begins this much before its first speech, where it skips a pause.
REMAINDER_LEAD = SAMPLE_RATE // 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """One window's tokens (without prompt and end of text) and their figures, as a library decoded them.

    ``logprobs``, where they were asked for, has a figure for each token: the natural logarithm of the probability that
    the model gave it before any token was suppressed.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    logprobs: tuple[float, ...] = ()

    @property
    def compression_ratio(self) -> float:
        return compression_ratio(self.text)

    @property
    def finite(self) -> bool:
        """Whether the figures are numbers; an attempt whose figures are not must not be used (a GPU went wrong)."""
        return all(map(math.isfinite, (self.avg_logprob, self.no_speech_prob, *self.logprobs)))


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of tokens between timestamps; ``start`` and ``end`` in samples of the window's sound.

    ``closed`` is False for text behind the last pair of timestamps, which a remainder decodes again. ``first`` is
    where ``tokens`` begin among the window's.
    """

    start: int
    end: int
    tokens: tuple[int, ...]
    closed: bool = True
    first: int = 0


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as an alignment gave it; ``start`` and ``end`` in seconds of the window's sound."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class TimedPiece:
    """What an alignment says of a piece: its words, and its ``start`` and ``end`` moved to them.

    In seconds of the window's sound.
    """

    start: float
    end: float
    words: tuple[TimedWord, ...]


def compression_ratio(text: str) -> float:
    """Bytes of UTF-8 over bytes of zlib; 0 for no text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def is_silence(decoded: Attempt) -> bool:
    """Whether the model itself says that nobody speaks: such a window has no segments."""
    return decoded.no_speech_prob > NO_SPEECH_LIMIT and decoded.avg_logprob < LOGPROB_LIMIT


def needs_fallback(decoded: Attempt) -> bool:
    """Whether the text must not be used while a warmer temperature is left. Figures must be numbers, too."""
    if not decoded.finite or decoded.compression_ratio > COMPRESSION_RATIO_LIMIT:
        return True
    return decoded.avg_logprob < LOGPROB_LIMIT and not is_silence(decoded)


def encode_again(decoded: Attempt, window: Window) -> int:
    """Samples at which a fitted window must be encoded again, 0 where its text can be used.

    Whole where the text fails a guard, where the model says that nobody speaks, which only a whole window is trusted
    for, and where decoding went on until it was stopped; roomier where a short text is unsure.
    """
    if needs_fallback(decoded) or decoded.avg_logprob < LOGPROB_LIMIT or len(decoded.tokens) >= MAX_DECODED:
        return MAX_WINDOW
    unsure = window.sound < SHORT and decoded.avg_logprob < UNSURE_LIMIT
    return ROOMY if unsure and window.encoded < ROOMY else 0


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt to use where all failed: the likeliest of those that do not loop, else the likeliest.

    Raises ``InferenceFailed`` where no attempt has finite figures.
    """
    finite = [a for a in attempts if a.finite]
    if not finite:
        raise InferenceFailed("The model's figures are not numbers; its result cannot be used.")
    sound = [a for a in finite if a.compression_ratio <= COMPRESSION_RATIO_LIMIT]
    return max(sound or finite, key=lambda a: a.avg_logprob)


def climb(decode: Callable[[float], Attempt], temperatures: Sequence[float]) -> Attempt:
    """Decode warmer and warmer until the guards are content; the best attempt where they never are.

    Raises ``InferenceFailed`` where no attempt has finite figures.
    """
    attempts: list[Attempt] = []
    for temperature in temperatures:
        attempts.append(decode(temperature))
        if not needs_fallback(attempts[-1]):
            return attempts[-1]
    return best_of(attempts)


def split_pieces(tokens: Sequence[int], timestamp_begin: int, length: int) -> tuple[list[Piece], int]:
    """Cut a window's tokens at its timestamps.

    Returns the pieces, their times clipped to the window's ``length`` (samples) and never backwards, and how far the
    window was heard (samples): the last timestamp, or ``length`` where no piece is ``closed``. Text behind the last
    pair of timestamps is an unfinished segment: it becomes a last piece up to ``length`` and does not count as
    heard. A piece that begins at the window's end is dropped: Whisper made it up in the padding.
    """

    def position(token: int) -> int:
        return max(0, min((token - timestamp_begin) * SAMPLES_PER_TIMESTAMP, length))

    pieces: list[Piece] = []
    heard = following = 0
    for part in _parts(tokens, timestamp_begin):
        first, following = following, following + len(part)
        if all(token >= timestamp_begin for token in part):
            heard = max(heard, position(part[-1]))
            continue
        start = max(heard, position(part[0])) if part[0] >= timestamp_begin else heard
        closed = part[-1] >= timestamp_begin
        end = max(start, position(part[-1])) if closed else length
        if start < length:
            pieces.append(Piece(start, end, part, closed, first))
        heard = end if closed else heard
    return pieces, heard if any(piece.closed for piece in pieces) else length


def _parts(tokens: Sequence[int], timestamp_begin: int) -> Iterable[tuple[int, ...]]:
    """The tokens cut between each two timestamps that follow each other."""
    begin = 0
    for i in range(1, len(tokens)):
        if tokens[i - 1] >= timestamp_begin and tokens[i] >= timestamp_begin:
            yield tuple(tokens[begin:i])
            begin = i
    if begin < len(tokens):
        yield tuple(tokens[begin:])


def remainder(window: Window, heard: int) -> Window | None:
    """The part of ``window`` behind ``heard`` (samples of its sound) that goes back; None where no speech is left."""
    if heard < MIN_PROGRESS:
        return None
    position = takes.position(window, heard)
    unheard = sum(max(0, end - max(start, position + EARLY)) for start, end in window.speech)
    if unheard < MIN_REMAINDER:
        return None
    # What is left of a span that was heard is its last sound; it would keep the pause behind it in the window.
    speech = tuple((max(start, position), end) for start, end in window.speech if end > position + EARLY)
    start = max(position, speech[0][0] - REMAINDER_LEAD)
    return replace(window, start=start, speech=speech, encoded=MAX_WINDOW, retry=False)


def read(window: Window, tokens: Sequence[int], timestamp_begin: int) -> tuple[list[Piece], Window | None]:
    """A window's pieces, and the remainder that goes back, which takes over an unfinished last piece."""
    pieces, heard = split_pieces(tokens, timestamp_begin, window.sound)
    rest = remainder(window, heard)
    return [piece for piece in pieces if piece.closed or rest is None], rest


def make_segment(
    window: Window,
    decoded: Attempt,
    piece: Piece,
    text: str,
    timed: TimedPiece | None = None,
    logprobs: tuple[TokenLogprob, ...] = (),
) -> Segment:
    """A piece as a segment: seconds of the recording, in whole milliseconds and inside the window."""
    words = _words(window, timed.words) if timed else ()
    begin, until = (_samples(timed.start), _samples(timed.end)) if timed else (piece.start, piece.end)
    start, end = _seconds(window, takes.place(window, begin, until))
    if words:
        start, end = min(start, words[0].start), max(end, words[-1].end)
    return Segment(
        start=start,
        end=max(start, end),
        text=text,
        seek=window.start // SAMPLES_PER_FRAME,
        tokens=tuple(int(token) for token in piece.tokens),
        temperature=float(decoded.temperature),
        avg_logprob=float(decoded.avg_logprob),
        compression_ratio=decoded.compression_ratio,
        no_speech_prob=float(decoded.no_speech_prob),
        words=words,
        logprobs=logprobs,
    )


def _words(window: Window, timed: Sequence[TimedWord]) -> tuple[Word, ...]:
    """The words in seconds of the recording, never backwards, without those that are no text."""
    words: list[Word] = []
    for word in timed:
        text = word.word.strip()
        if text:
            placed = takes.place_word(window, _samples(word.start), _samples(word.end))
            start, end = (max(second, words[-1].end if words else 0.0) for second in _seconds(window, placed))
            words.append(Word(text, start, max(start, end), float(word.probability)))
    return tuple(words)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _seconds(window: Window, span: tuple[int, int]) -> tuple[float, float]:
    """Samples of the recording as seconds, in whole milliseconds and inside the window."""
    first, last = -(-window.start * 1000 // SAMPLE_RATE), window.end * 1000 // SAMPLE_RATE
    start, end = (max(first, min(last, round(sample * 1000 / SAMPLE_RATE))) / 1000 for sample in span)
    return start, end
