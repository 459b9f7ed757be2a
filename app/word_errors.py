"""Word errors: how many words must be changed, left out or added to make one text of another.

Texts that are compared with each other are split plainly; against a reference they are written first as OpenAI's own
normaliser spells them, where it is installed, so that "press 1" is no error for "press one".
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

#: A word, or a character of a script that has no spaces.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]|[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001
#: Languages written without spaces: their characters are counted, as OpenAI does.
_NO_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})

#: What ``normaliser_name`` says.
OPENAI, PLAIN = "OpenAI's normaliser", "case and punctuation aside"


def words_of(text: str) -> list[str]:
    """The words of a text as two transcripts are compared: without case and punctuation."""
    return _WORD.findall(text.casefold())


def differing(words: Sequence[str], others: Sequence[str]) -> int:
    """Words changed, left out and added from one to the other."""
    return Levenshtein.distance(words, others)


def normaliser_name() -> str:
    """How ``normalised`` spells texts on this machine: ``OPENAI`` where whisper-normalizer is installed."""
    return PLAIN if importlib.util.find_spec("whisper_normalizer") is None else OPENAI


def normalised(text: str, language: str | None) -> list[str]:
    """The words of a text as they are compared with a reference's; ``language`` is Whisper's code."""
    if normaliser_name() == PLAIN:
        return words_of(text)
    return _openai(language)(text).split()


def _openai(language: str | None) -> Callable[[str], str]:
    return _english() if language == "en" else _basic(split_letters=language in _NO_SPACES)


@functools.cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()  # type: ignore[no-any-return]


@functools.cache
def _basic(*, split_letters: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer(split_letters=split_letters)  # type: ignore[no-any-return]
