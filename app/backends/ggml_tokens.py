"""The tokens of a ggml model, which brings its vocabulary but not the merges of its text: the tokenizer that
``app.backends.tokens`` expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from app.backends.tokens import APPENDED, PREPENDED

#: How GPT-2 cuts text before it is made into tokens.
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
#: Languages written without spaces: each character is a word.
UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}


class Vocabulary:
    """The text tokens of the model that ``context`` holds, and the numbers of the special ones."""

    def __init__(self, cpp: Any, context: Any) -> None:
        self.cpp, self.context = cpp, context
        self.eot = int(cpp.whisper_token_eot(context))
        self.bytes = [bytes(cpp.whisper_token_to_bytes(context, token)) for token in range(self.eot)]
        self.numbers = {spelled: token for token, spelled in enumerate(self.bytes)}
        self.longest = max(map(len, self.bytes))


class GgmlTokenizer:
    """One language and task over a ``Vocabulary``; ``number`` is the language's, None for a model of English only."""

    #: The library suppresses them itself.
    non_speech_tokens: tuple[int, ...] = ()

    def __init__(self, vocabulary: Vocabulary, language: str, number: int | None, task: str) -> None:
        cpp, context = vocabulary.cpp, vocabulary.context
        self.language, self.task, self.eot = language, task, vocabulary.eot
        self._vocabulary = vocabulary
        self.sot = int(cpp.whisper_token_sot(context))
        self.sot_prev = int(cpp.whisper_token_prev(context))
        self.timestamp_begin = int(cpp.whisper_token_beg(context))
        self.sot_sequence: tuple[int, ...] = (self.sot,)
        if number is not None:
            of_task = cpp.whisper_token_translate if task == "translate" else cpp.whisper_token_transcribe
            self.sot_sequence = (self.sot, int(cpp.whisper_token_lang(context, number)), int(of_task(context)))

    def encode(self, text: str) -> list[int]:
        """Each piece of the text as the longest tokens that spell it, as whisper.cpp does."""
        numbers, tokens = self._vocabulary.numbers, list[int]()
        for piece in _PIECES.findall(text):
            raw = piece.encode()
            while raw:
                length = next(n for n in range(min(len(raw), self._vocabulary.longest), 0, -1) if raw[:n] in numbers)
                tokens.append(numbers[raw[:length]])
                raw = raw[length:]
        return tokens

    def bytes_of(self, token: int) -> bytes:
        return self._vocabulary.bytes[token]

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self.bytes_of, tokens)).decode(errors="replace")

    def words(self, tokens: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words that text tokens among ``tokens`` spell, each with the span of its places there."""
        words: list[tuple[str, int, int]] = []
        for text, first, last in self._characters(tokens):
            if words and self._belongs(text, words[-1][0]):
                words[-1] = (words[-1][0] + text, words[-1][1], last)
            else:
                words.append((text, first, last))
        return words

    def _belongs(self, text: str, word: str) -> bool:
        """Whether ``text`` goes on with ``word``."""
        if text.startswith(" "):
            return _all_in(word, PREPENDED)
        return self.language not in UNSPACED or _all_in(text, APPENDED) or _all_in(word, PREPENDED)

    def _characters(self, tokens: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        """Whole characters: tokens that spell parts of one are taken together."""
        raw, first = b"", 0
        for place, token in enumerate(tokens):
            if token >= self.eot:
                continue
            first = first if raw else place
            raw += self.bytes_of(token)
            text = raw.decode(errors="replace")
            if not text.endswith("\ufffd"):
                yield text, first, place + 1
                raw = b""
        if raw:
            yield raw.decode(errors="replace"), first, len(tokens)


def _all_in(text: str, signs: str) -> bool:
    return bool(text.strip()) and all(sign in signs for sign in text.strip())
