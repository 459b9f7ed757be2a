"""Word errors as the field counts them: both texts in the spelling of OpenAI's own normaliser first, so that "press 1"
is no error for "press one".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jiwer


def word_error_rate(references: Sequence[str], texts: Sequence[str], language: str = "en") -> float:
    """Word errors a reference word, over all pairs."""
    plain = _normaliser(english=language == "en")
    return float(jiwer.wer([plain(text) for text in references], [plain(text) for text in texts]))


@functools.cache
def _normaliser(*, english: bool) -> Callable[[str], str]:
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise SystemExit("Word errors need the extra `benchmarks`: pip install -e '.[benchmarks]'") from None
    normaliser: Callable[[str], str] = EnglishTextNormalizer() if english else BasicTextNormalizer()
    return normaliser
