"""The words of the house: what is asked for, what is worked on, what comes out.

Plain frozen dataclasses of the standard library, so that they may cross any process. Positions inside the audio are
whole samples at 16 kHz (``SAMPLE_RATE``) until they become a transcript's seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

#: Whisper's own sampling rate; the decoder resamples everything to it.
SAMPLE_RATE = 16_000
#: What Whisper's encoder sees at once: 30 s.
MAX_WINDOW = 30 * SAMPLE_RATE
#: The longest window that is fitted: shorter ones take less time in all, longer ones had no fewer errors
#: (docs/performance.md).
MAX_FITTED = 15 * SAMPLE_RATE
#: Of a pause longer than the first, half the second is kept at either end: silence costs an encoder as much as speech,
#: and tempts Whisper to invent words.
LONG_PAUSE, KEPT_PAUSE = 2 * SAMPLE_RATE, SAMPLE_RATE
#: OpenAI's ladder: a window whose greedy text fails the guards is sampled again, warmer each time.
TEMPERATURE_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Vad:
    """How speech is found, where a request says so (OpenAI's ``server_vad``): the probability from which a frame is
    speech, the seconds kept before it, and the seconds of silence that end it."""

    threshold: float = 0.5
    padding_s: float = 0.3
    silence_s: float = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks of the model.

    ``language`` is Whisper's code ("en") or None for detection; ``prompt`` is text of the same recording or style, of
    which Whisper sees the last 223 tokens; ``temperature`` 0 means the whole ladder, another value its part from
    there on; ``words`` asks for word times; ``beam_size`` above 1 is honoured where the backend has beam search.
    ``languages`` limits the detection to these codes, where there are any. ``logprobs`` asks for every text token's
    log-probability, and implies greedy decoding without the ladder. ``vad`` overrides how speech is found.
    """

    task: str = "transcribe"
    language: str | None = None
    prompt: str = ""
    temperature: float = 0.0
    words: bool = False
    beam_size: int = 1
    languages: tuple[str, ...] = ()
    logprobs: bool = False
    vad: Vad | None = None

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures to try in order; never empty."""
        if self.logprobs:
            return (0.0,)
        return (self.temperature, *(t for t in TEMPERATURE_LADDER if t > self.temperature + 1e-6))


def left_out(pause: int) -> int:
    """Samples that are not heard of a pause of so many inside a window."""
    return pause - KEPT_PAUSE if pause > LONG_PAUSE else 0


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of the recording, ``[start, end)`` in samples, of which at most ``MAX_WINDOW`` are ``sound``.

    ``speech`` are the spans (samples of the recording) in which speech was found, inside the window, in order.
    ``encoded`` is the length in samples that the encoder sees (the sound padded with silence), at most
    ``MAX_WINDOW``, for which Whisper was trained; a shorter one is *fitted*. ``retry`` marks a window whose greedy text
    failed the guards: it goes again alone, encoded longer, and once it is whole through the temperature ladder.
    """

    start: int
    end: int
    speech: tuple[tuple[int, int], ...]
    encoded: int = MAX_WINDOW
    retry: bool = False

    @property
    def takes(self) -> tuple[tuple[int, int], ...]:
        """What the model hears of the window, joined: all but the middle of each long pause, as spans of samples."""
        takes, begin = [], self.start
        for (_, pause), (speech, _) in pairwise(self.speech):
            if left_out(speech - pause):
                takes.append((begin, pause + KEPT_PAUSE // 2))
                begin = speech - KEPT_PAUSE // 2
        return (*takes, (begin, self.end))

    @property
    def sound(self) -> int:
        """Samples that the model hears."""
        return sum(end - begin for begin, end in self.takes)

    def behind(self, position: int) -> Window:
        """What of the window lies behind ``position``, which is before its end."""
        if position <= self.start:
            return self
        speech = tuple((max(start, position), end) for start, end in self.speech if end > position)
        return replace(self, start=position, speech=speech)

    def fitted(self, margin: int) -> Window:
        """The window, to be encoded with ``margin`` samples of silence behind it, in whole seconds, so that windows
        meet others of their length."""
        seconds = -(-(self.sound + margin) // SAMPLE_RATE)
        return replace(self, encoded=min(seconds * SAMPLE_RATE, MAX_WINDOW))


@dataclass(frozen=True, slots=True)
class Word:
    """A word without its leading space; ``start`` and ``end`` in seconds of the recording."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A text token as decoded: its ``token`` text (U+FFFD for a part of a character), its ``bytes`` of UTF-8, and the
    natural logarithm of the probability that the model gave it, before any token was suppressed."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text as Whisper timed it.

    ``start`` and ``end`` in seconds of the recording; ``seek`` the window's start in frames of 10 ms; ``text`` keeps
    its leading space; ``avg_logprob`` is the mean log-probability a token over the window; all figures are finite.
    """

    start: float
    end: float
    text: str
    seek: int
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a job ends in.

    ``language`` is the text's, as a code; ``duration`` is decoded seconds; ``segments`` are in order of time;
    ``prompt_tokens`` and ``decoded_tokens`` count over all steps; ``with_logprobs`` whether they were asked for;
    ``backend`` did the last step, "" where there was nothing to do; ``warning`` says what of the file could not be
    heard, "" where all could.
    """

    language: str
    duration: float
    segments: tuple[Segment, ...]
    task: str = "transcribe"
    prompt_tokens: int = 0
    decoded_tokens: int = 0
    with_logprobs: bool = False
    backend: str = ""
    warning: str = ""

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    @property
    def text(self) -> str:
        return join_text(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)


def join_text(texts: Iterable[str]) -> str:
    """Segments' texts as one: joined as they are (each brings its own leading space) and stripped."""
    return "".join(texts).strip()
