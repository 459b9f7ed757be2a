"""The step that all Whisper libraries share: encode, detect the language, decode, fall back, cut, align.

A library's adapter derives from ``WhisperBackend`` and fills in a few small methods; what is done with what they give
is the same for all, by ``app.backends.rules``. One step is one pass:

* All windows are encoded together, padded with silence to the largest ``encoded`` among them.
* At temperature 0 they are decoded together. Above 0 each window is sampled alone, seeded by its own start where the
  library can be seeded (MLX, torch), so that a job gives the same text however its windows were grouped.
* A window alone goes through the whole ladder on its one encoding, unless that was fitted: then what fails the guards
  comes back, to be encoded longer. A window that comes back with ``retry`` starts at the bottom again: the greedy
  pass costs little beside the encoder's, it is a candidate where all attempts fail, and the result is the one that
  the window would have had alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from app.backends import rules, takes
from app.backends.base import Backend, StepResult, WindowResult
from app.backends.rules import Attempt, Piece, TimedPiece, TimedWord
from app.backends.tokens import prompt_tokens, spell, text_of
from app.errors import InferenceFailed, InvalidRequest, WhisperdError
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Options, Segment, TokenLogprob, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Level of the noise that a model is warmed up with: loud enough not to be digital silence, far under any voice.
WARM_UP_NOISE = 30
#: A language less likely than this is detected again in the whole window: fitted, some models take one for another.
#: Measured with `base` on 86 clips: those that only the whole window got right were under 0.8 fitted.
SURE_LANGUAGE = 0.8
#: What a model is warmed up with, in frames of 10 ms: a dictation.
WARM_UP_FRAMES = 500
#: Frames of 10 ms of a window that is encoded whole.
MAX_FRAMES = MAX_WINDOW // rules.SAMPLES_PER_FRAME


@dataclass(frozen=True, slots=True)
class Pass:
    """One step's common ground: the library's encoded ``features`` (a row for each window), its ``tokenizer`` for the
    language and task, the decoder's ``prompt`` tokens, the ``beam_size`` asked for, whether ``logprobs`` are, and
    whether the windows are ``fitted``."""

    features: Any
    tokenizer: Any
    prompt: tuple[int, ...]
    beam_size: int = 1
    logprobs: bool = False
    fitted: bool = False


class WhisperBackend(Backend):
    #: The library's name in a sentence.
    library: ClassVar[str]

    #: Windows that the library works on at once, each by a part of it that wants to be warm.
    _at_once = 1

    def __init__(self) -> None:
        self._tokenizers: dict[tuple[str, str], Any] = {}
        self._multilingual = True

    # What a library brings. Exceptions may be its own.

    @abstractmethod
    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        """Encode each of ``audio`` (float32 mono 16 kHz), padded with silence to ``frames`` of 10 ms."""

    @abstractmethod
    def _detect(self, features: Any) -> Mapping[str, float]:
        """The probability of each language that the model knows, by its code, for the first row."""

    @abstractmethod
    def _make_tokenizer(self, language: str, task: str) -> Any:
        """The library's tokenizer. ValueError or KeyError for a language that the model does not know."""

    @abstractmethod
    def _greedy(self, work: Pass) -> list[Attempt]:
        """Decode all rows at temperature 0 in one pass.

        With ``work.logprobs`` without beams, and each attempt with the ``logprobs`` of its tokens.
        """

    @abstractmethod
    def _sample(self, work: Pass, row: int, temperature: float) -> Attempt:
        """Draw ``rules.BEST_OF`` candidates of one row and give the likeliest."""

    @abstractmethod
    def _seed(self, seed: int) -> None:
        """Seed the library's random numbers, where it lets one."""

    @abstractmethod
    def _add_words(self, work: Pass, row: int, segments: list[dict[str, Any]], frames: int) -> None:
        """The library's ``add_word_timestamps`` on one row.

        Gives each of ``segments`` (``seek`` 0, seconds of the window's sound) its ``words`` and moves its ``start``
        and ``end`` to them. ``frames`` is the sound's own length.
        """

    # What is the same for all.

    def transcribe(self, pcm: NDArray[np.int16], windows: Sequence[Window], options: Options) -> StepResult:
        try:
            return self._step(pcm, windows, options)
        except (WhisperdError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises; its words may quote the user's
            raise InferenceFailed(f"{self.library} failed with {type(error).__name__}.") from None

    def warm_up(self) -> None:
        import numpy as np

        noise = np.random.default_rng(0).normal(0, WARM_UP_NOISE / 32768, SAMPLE_RATE).astype(np.float32)
        features = self._encode([noise] * self._at_once, WARM_UP_FRAMES)
        tokenizer = self._tokenizer("en", "transcribe")
        self._greedy(Pass(features, tokenizer, prompt_tokens(tokenizer, "")))

    def _step(self, pcm: NDArray[np.int16], windows: Sequence[Window], options: Options) -> StepResult:
        if options.task == "translate" and not self._multilingual:
            raise InvalidRequest("This model cannot translate: it knows English only.", param="model")
        sound, frames = [takes.join(pcm, window) for window in windows], encoded_frames(windows)
        features = self._encode(sound, frames)
        language, sure = self._language(features, options)
        if not sure and frames < MAX_FRAMES:
            windows, frames = [replace(window, encoded=MAX_WINDOW) for window in windows], MAX_FRAMES
            features = self._encode(sound, frames)
            language, _ = self._language(features, options)
        tokenizer = self._tokenizer(language, options.task)
        prompt = prompt_tokens(tokenizer, options.prompt)
        work = Pass(features, tokenizer, prompt, options.beam_size, options.logprobs, fitted=frames < MAX_FRAMES)
        decoded = self._decode(work, windows, options.temperatures)
        used = [attempt for attempt in decoded if isinstance(attempt, Attempt)]
        return StepResult(
            windows=tuple(
                self._result(work, row, window, decoded[row], options.words) for row, window in enumerate(windows)
            ),
            language=language,
            prompt_tokens=len(prompt) * len(used),
            decoded_tokens=sum(len(attempt.tokens) for attempt in used),
        )

    def _language(self, features: Any, options: Options) -> tuple[str, bool]:
        """The language's code, and whether it is sure enough to be heard from a fitted window."""
        if not self._multilingual:
            return "en", True
        if options.language:
            return options.language, True
        found = self._detect(features)
        likely = {code: found[code] for code in found if not options.languages or code in options.languages}
        if not likely:
            asked = ", ".join(options.languages)
            raise InvalidRequest(f"This model knows none of the languages {asked}.", param="languages")
        best = max(likely, key=lambda code: likely[code])
        return best, likely[best] >= SURE_LANGUAGE * sum(likely.values())

    def _tokenizer(self, language: str, task: str) -> Any:
        key = (language, task) if self._multilingual else ("en", "transcribe")
        if key not in self._tokenizers:
            try:
                self._tokenizers[key] = self._make_tokenizer(*key)
            except (KeyError, ValueError):
                raise InvalidRequest(f"This model does not know the language {language!r}.", param="language") from None
        return self._tokenizers[key]

    def _decode(self, work: Pass, windows: Sequence[Window], temperatures: Sequence[float]) -> list[Attempt | Window]:
        """An attempt for each window, or the window as it must come back, alone."""
        greedy = self._greedy(work) if temperatures[0] == 0 else []
        return [
            self._climb(work, row, window, greedy, temperatures, len(windows) == 1)
            for row, window in enumerate(windows)
        ]

    def _climb(
        self,
        work: Pass,
        row: int,
        window: Window,
        greedy: Sequence[Attempt],
        temperatures: Sequence[float],
        alone: bool,
    ) -> Attempt | Window:
        def decode(temperature: float) -> Attempt:
            return greedy[row] if temperature == 0 else self._sample(work, row, temperature)

        self._seed(window.start)
        if not work.fitted and (alone or len(temperatures) == 1):
            return rules.climb(decode, temperatures)
        first = decode(temperatures[0])
        alone_again = MAX_WINDOW if rules.needs_fallback(first) else 0
        encoded = rules.encode_again(first, window) if work.fitted else alone_again
        return replace(window, encoded=encoded, retry=True) if encoded else first

    def _result(self, work: Pass, row: int, window: Window, decoded: Attempt | Window, words: bool) -> WindowResult:
        if isinstance(decoded, Window):
            return WindowResult(window, again=(decoded,))
        if rules.is_silence(decoded):
            return WindowResult(window)
        pieces, rest = rules.read(window, decoded.tokens, work.tokenizer.timestamp_begin)
        texts = [text_of(work.tokenizer, piece.tokens) for piece in pieces]
        spoken = [(piece, text) for piece, text in zip(pieces, texts, strict=True) if text.strip()]
        timed = self._timed(work, row, window, [piece for piece, _ in spoken]) if words else [None] * len(spoken)
        segments: list[Segment] = [
            rules.make_segment(window, decoded, piece, text, times, _logprobs(work, decoded, piece))
            for (piece, text), times in zip(spoken, timed, strict=True)
        ]
        return WindowResult(window, tuple(segments), (rest,) if rest else ())

    def _timed(self, work: Pass, row: int, window: Window, pieces: Sequence[Piece]) -> Sequence[TimedPiece | None]:
        """The pieces' words; None for each where the library's alignment stumbles, as it does on odd windows."""
        segments: list[dict[str, Any]] = [
            {"seek": 0, "start": p.start / SAMPLE_RATE, "end": p.end / SAMPLE_RATE, "tokens": list(p.tokens)}
            for p in pieces
        ]
        try:
            if segments:
                self._add_words(work, row, segments, window.sound // rules.SAMPLES_PER_FRAME)
        except (IndexError, ValueError):
            return [None] * len(pieces)
        return [_timed_piece(segment) for segment in segments]


def encoded_frames(windows: Sequence[Window]) -> int:
    """Frames of 10 ms that the encoder sees: an even number (it halves them) that holds every window, at most 30 s."""
    longest = max(max(window.encoded, window.sound) for window in windows)
    return min(2 * -(-longest // rules.SAMPLES_PER_TIMESTAMP), MAX_FRAMES)


def _logprobs(work: Pass, decoded: Attempt, piece: Piece) -> tuple[TokenLogprob, ...]:
    if not work.logprobs:
        return ()
    return spell(work.tokenizer, piece.tokens, decoded.logprobs[piece.first : piece.first + len(piece.tokens)])


def _timed_piece(segment: dict[str, Any]) -> TimedPiece:
    def words() -> Iterator[TimedWord]:
        for word in segment.get("words", ()):
            yield TimedWord(str(word["word"]), float(word["start"]), float(word["end"]), float(word["probability"]))

    return TimedPiece(float(segment["start"]), float(segment["end"]), tuple(words()))
