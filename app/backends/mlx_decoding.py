"""Whisper's decoding loop on MLX, in place of mlx-whisper's own.

mlx-whisper's ``DecodingTask`` cannot sample several candidates of a batch, encodes 30 s always, and its
``ApplyTimestampRules`` takes positions for timestamps, so that times may run backwards. This loop follows OpenAI's
``whisper/decoding.py`` on arrays, without leaving the device between tokens. MLX is imported in the functions: nothing
here may be called before the backend's ``load``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.backends import rules
from app.backends.tokens import suppressed_tokens


def encode(encoder: Any, mel: Any) -> Any:
    """The encoder's output for ``mel`` (rows, frames, mels), of any even number of frames up to 3000.

    The library's ``AudioEncoder.__call__`` insists on 3000; this is the same with the positions cut to length.
    Returns (rows, frames / 2, width).
    """
    from mlx import nn

    x = nn.gelu(encoder.conv1(mel))
    x = nn.gelu(encoder.conv2(x))
    x = x + encoder._positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x, _, _ = block(x)
    return encoder.ln_post(x)


def probabilities(decoder: Any, features: Any, sot: int, tokens: Sequence[int]) -> list[float]:
    """How likely each of ``tokens`` is behind the start token, were there no others, for the first row of
    ``features``."""
    mx = _mx()
    logits, _, _ = decoder(mx.array([[sot]]), features[:1])
    values: list[float] = mx.softmax(logits[0, -1][mx.array(list(tokens))].astype(mx.float32)).tolist()
    return values


class TokenFilter:
    """OpenAI's filters in one: suppressed tokens, no blank at the start, timestamps in order and in pairs.

    It follows ``rows`` sequences: ``apply`` bans what may not come next, ``update`` is told what came.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, suppressed: Sequence[int], rows: int) -> None:
        mx = self._mx = _mx()
        self._begin = int(tokenizer.timestamp_begin)
        ids = mx.arange(vocabulary)
        self._ids = ids[None]
        self._is_time = self._ids >= self._begin
        self._is_text = self._ids < int(tokenizer.eot)
        never = {*suppressed, int(tokenizer.no_timestamps)}
        self._never = mx.array([token in never for token in range(vocabulary)])[None]
        # The first token is a timestamp within the first second, which rules out a blank and the end of text too.
        self._never_first = (self._ids < self._begin) | (self._ids > self._begin + rules.MAX_INITIAL_TIMESTAMP)
        self._first = True
        self._last_timed = mx.zeros((rows, 1), dtype=mx.bool_)
        self._before_timed = mx.ones((rows, 1), dtype=mx.bool_)
        self._time = mx.full((rows, 1), self._begin - 1)

    def apply(self, logits: Any) -> Any:
        """The logits (rows, vocabulary) with minus infinity for every token that may not come next."""
        mx = self._mx
        banned = self._never
        if self._first:
            banned = banned | self._never_first
        else:
            last, before = self._last_timed, self._before_timed
            # A timestamp behind text closes a segment: another or the end must follow. A pair is followed by text.
            banned = banned | mx.where(before, last & self._is_time, last & self._is_text)
            # Time never runs back, and a segment's end lies behind its start; the next start may equal the end.
            lowest = self._time + mx.where(last & ~before, 0, 1)
            banned = banned | (self._is_time & (self._ids < lowest))
        logits = mx.where(banned, -mx.inf, logits)
        # Where all timestamps together are likelier than any one text token, a timestamp it is.
        times = mx.logsumexp(logits[:, self._begin :], axis=-1, keepdims=True)
        text = mx.max(logits[:, : self._begin], axis=-1, keepdims=True)
        return mx.where((times > text) & ~self._is_time, -mx.inf, logits)

    def update(self, tokens: Any) -> None:
        """``tokens`` (rows,) were chosen."""
        mx = self._mx
        timed = (tokens >= self._begin)[:, None]
        self._before_timed = mx.ones_like(timed) if self._first else self._last_timed
        self._last_timed = timed
        self._time = mx.where(timed, tokens[:, None], self._time)
        self._first = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sequence without prompt and end; ``logprob`` sums its tokens' log-probabilities and the end's,
    as filtered; ``raw_logprobs``, where asked for, are each token's before the filter."""

    tokens: tuple[int, ...]
    logprob: float
    no_speech_prob: float
    raw_logprobs: tuple[float, ...] = ()


def decode(
    model: Any, features: Any, tokenizer: Any, prompt: Sequence[int], temperature: float, rows: int, raw: bool = False
) -> list[Decoded]:
    """Decode ``rows`` sequences on ``features`` (rows, positions, width; or one row, which all then share).

    Greedy at temperature 0, else sampled with MLX's random state. ``raw`` asks for ``raw_logprobs``.
    """
    mx = _mx()
    token_filter = TokenFilter(tokenizer, model.dims.n_vocab, suppressed_tokens(tokenizer), rows)
    start = mx.broadcast_to(mx.array(list(prompt))[None], (rows, len(prompt)))
    logits, cache, _ = model.decoder(start, features)
    at_start = mx.softmax(logits[:, prompt.index(tokenizer.sot)].astype(mx.float32), axis=-1)
    no_speech = at_start[:, tokenizer.no_speech]
    total, done = mx.zeros((rows,)), mx.zeros((rows,), dtype=mx.bool_)
    chosen: list[Any] = []
    raws: list[Any] = []
    finished: Any = None
    for _ in range(min(rules.MAX_DECODED, model.dims.n_text_ctx - len(prompt))):
        if chosen:
            logits, cache, _ = model.decoder(chosen[-1][:, None], features, kv_cache=cache)
        unfiltered = logits[:, -1].astype(mx.float32)
        scores = token_filter.apply(unfiltered)
        token = mx.random.categorical(scores / temperature) if temperature else mx.argmax(scores, axis=-1)
        total = total + mx.where(done, 0.0, _logprob(scores, token))
        raws += [_logprob(unfiltered, token)] if raw else []
        token = mx.where(done, tokenizer.eot, token)
        done = done | (token == tokenizer.eot)
        token_filter.update(token)
        chosen.append(token)
        # Ask about the token before this one, so that the device already works on the next while Python waits.
        previous, finished = finished, mx.all(done)
        mx.async_eval(token, total, finished, *raws[-1:])
        if previous is not None and previous.item():
            break
    sequences: list[list[int]] = mx.stack(chosen, axis=1).tolist()
    sums: list[float] = total.tolist()
    silences: list[float] = no_speech.tolist()
    figures: list[list[float]] = mx.stack(raws, axis=1).tolist() if raw else [[]] * rows
    return [
        Decoded(tokens, logprob, silence, tuple(figures[row][: len(tokens)]))
        for row, (sequence, logprob, silence) in enumerate(zip(sequences, sums, silences, strict=True))
        for tokens in [_until(sequence, tokenizer.eot)]
    ]


def _logprob(scores: Any, tokens: Any) -> Any:
    """The log-probability (rows,) that ``scores`` (rows, vocabulary) give to ``tokens`` (rows,)."""
    mx = _mx()
    return mx.take_along_axis(scores, tokens[:, None], axis=-1)[:, 0] - mx.logsumexp(scores, axis=-1)


def _until(sequence: list[int], end: int) -> tuple[int, ...]:
    return tuple(sequence[: sequence.index(end)] if end in sequence else sequence)


def _mx() -> Any:
    import mlx.core as mx

    return mx
