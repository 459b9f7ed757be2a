"""Whisper's tokens and the text they spell, the same over faster-whisper's tokenizer (``tokenizers``), those of
mlx-whisper and openai-whisper (``tiktoken``) and ours for whisper.cpp's vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.backends import rules
from app.transcript import TokenLogprob

#: Punctuation that belongs to the word behind or before it (OpenAI's lists).
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sequence without prompt and end; ``logprob`` sums its tokens' log-probabilities and the end's,
    as filtered; ``raw_logprobs``, where asked for, are each token's before the filter."""

    tokens: tuple[int, ...]
    logprob: float
    no_speech_prob: float
    raw_logprobs: tuple[float, ...] = ()

    @property
    def likelihood(self) -> float:
        """OpenAI's ranking of candidates: log-probability a token."""
        return self.logprob / max(1, len(self.tokens))

    def attempt(self, tokenizer: Any, temperature: float) -> rules.Attempt:
        """The sequence with the text that it spells; Whisper's mean counts the end of text as one token more."""
        return rules.Attempt(
            tokens=self.tokens,
            text=text_of(tokenizer, self.tokens).strip(),
            avg_logprob=self.logprob / (len(self.tokens) + 1),
            no_speech_prob=self.no_speech_prob,
            temperature=temperature,
            logprobs=self.raw_logprobs,
        )


def prompt_tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The decoder's first tokens: the prompt's last ones behind their mark, then start, language and task.

    Special tokens spelled out in ``text`` are left out: a prompt must not steer the decoder.
    """
    given = [t for t in encode_text(tokenizer, f" {text.strip()}") if t < tokenizer.eot] if text.strip() else []
    before = [tokenizer.sot_prev, *given[-rules.PROMPT_TOKENS :]] if given else []
    return (*before, *tokenizer.sot_sequence)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Plain text as tokens; tiktoken would refuse text that spells out a special token."""
    if hasattr(tokenizer, "encoding"):
        return list(tokenizer.encode(text, disallowed_special=()))
    return list(tokenizer.encode(text))


def text_of(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode([token for token in tokens if token < tokenizer.eot]))


def suppressed_tokens(tokenizer: Any) -> tuple[int, ...]:
    """What must never be decoded: OpenAI's list of non-speech symbols, and the special tokens of the prompt."""
    special = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return tuple(sorted({*tokenizer.non_speech_tokens, *(token for token in special if token is not None)}))


def spell(tokenizer: Any, tokens: Sequence[int], logprobs: Sequence[float]) -> tuple[TokenLogprob, ...]:
    """The text tokens among ``tokens`` with their bytes; ``logprobs`` has a figure for each token.

    All bytes joined are the text's UTF-8, unless the model decoded what is none. A rounding error above 0 is cut off.
    """
    return tuple(_spelled(tokenizer, tokens, logprobs))


def _spelled(tokenizer: Any, tokens: Sequence[int], logprobs: Sequence[float]) -> Iterator[TokenLogprob]:
    for token, logprob in zip(tokens, logprobs, strict=True):
        if token < tokenizer.eot:
            spelled = token_bytes(tokenizer, token)
            yield TokenLogprob(spelled.decode(errors="replace"), min(0.0, float(logprob)), tuple(spelled))


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """A text token's bytes, which may be a part of a character."""
    if hasattr(tokenizer, "bytes_of"):
        return bytes(tokenizer.bytes_of(token))
    if hasattr(tokenizer, "encoding"):
        return bytes(tokenizer.encoding.decode_single_token_bytes(token))
    table = _byte_of_character()
    return bytes(table[character] for character in tokenizer.tokenizer.id_to_token(token))


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet, in which vocabularies are written: a printable byte of Latin-1 stands for itself, the others
    for the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
