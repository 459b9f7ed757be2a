"""Whisper's decoding loop on MLX, in place of mlx-whisper's own.

mlx-whisper's ``DecodingTask`` cannot sample several candidates of a batch, and its ``ApplyTimestampRules`` takes
positions for timestamps, so that times may run backwards. This loop follows OpenAI's ``whisper/decoding.py`` on arrays,
without leaving the device between tokens. MLX is imported in the functions: nothing here may be called before the
backend's ``load``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.backends import mlx_network, rules
from app.backends.tokens import Decoded, suppressed_tokens

#: Arrays that the next token depends on; MLX takes any tree of tuples.
State = tuple[Any, ...]


def probabilities(decoder: Any, features: Any, sot: int, tokens: Sequence[int]) -> list[float]:
    """How likely each of ``tokens`` is behind the start token, were there no others, for the first row of
    ``features``."""
    mx = _mx()
    logits, _, _ = decoder(mx.array([[sot]]), features[:1])
    values: list[float] = mx.softmax(logits[0, -1][mx.array(list(tokens))].astype(mx.float32)).tolist()
    return values


class TokenFilter:
    """OpenAI's filters in one: suppressed tokens, no blank at the start, timestamps in order and in pairs.

    Pure functions of arrays, so that MLX can compile them: what came before is a ``state``, of any number of rows.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, suppressed: Sequence[int]) -> None:
        mx = self._mx = _mx()
        self._begin = int(tokenizer.timestamp_begin)
        self._ids = mx.arange(vocabulary)[None]
        self._is_time = self._ids >= self._begin
        self._is_text = self._ids < int(tokenizer.eot)
        never = {*suppressed, int(tokenizer.no_timestamps)}
        self._never = mx.array([token in never for token in range(vocabulary)])[None]
        # The first token is a timestamp within the first second, which rules out a blank and the end of text too.
        self._never_first = (self._ids < self._begin) | (self._ids > self._begin + rules.MAX_INITIAL_TIMESTAMP)

    def start(self, rows: int) -> State:
        """The state before anything came, each (rows, 1): whether nothing did, whether the last token and the one
        before it were timestamps, and the last timestamp."""
        mx = self._mx
        yes, no = mx.ones((rows, 1), dtype=mx.bool_), mx.zeros((rows, 1), dtype=mx.bool_)
        return yes, no, yes, mx.full((rows, 1), self._begin - 1)

    def apply(self, logits: Any, state: State) -> Any:
        """The logits (rows, vocabulary) with minus infinity for every token that may not come next."""
        mx = self._mx
        first, last, before, time = state
        # A timestamp behind text closes a segment: another or the end must follow. A pair is followed by text.
        banned = mx.where(before, last & self._is_time, last & self._is_text)
        # Time never runs back, and a segment's end lies behind its start; the next start may equal the end.
        lowest = time + mx.where(last & ~before, 0, 1)
        banned = banned | (self._is_time & (self._ids < lowest))
        banned = self._never | mx.where(first, self._never_first, banned)
        logits = mx.where(banned, -mx.inf, logits)
        # Where all timestamps together are likelier than any one text token, a timestamp it is.
        times = mx.logsumexp(logits[:, self._begin :], axis=-1, keepdims=True)
        text = mx.max(logits[:, : self._begin], axis=-1, keepdims=True)
        return mx.where((times > text) & ~self._is_time, -mx.inf, logits)

    def follow(self, tokens: Any, state: State) -> State:
        """The state behind ``tokens`` (rows,)."""
        mx = self._mx
        first, last, _, time = state
        timed = (tokens >= self._begin)[:, None]
        return mx.zeros_like(first), timed, first | last, mx.where(timed, tokens[:, None], time)


class Decoder:
    """A model's decoder under one tokenizer's rules."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        mx = self._mx = _mx()
        self._network, self._positions = model.decoder, int(model.dims.n_text_ctx)
        self._sot, self._eot, self._no_speech = tokenizer.sot, tokenizer.eot, tokenizer.no_speech
        self._filter = TokenFilter(tokenizer, model.dims.n_vocab, suppressed_tokens(tokenizer))
        # A GPU waits for Python and for launches: compiled, a step is traced once for all tokens, and fused.
        on_cpu = mx.default_device() == mx.Device(mx.cpu)
        self._compiled = self._step if on_cpu else mx.compile(self._step)

    def decode(
        self, features: Any, prompt: Sequence[int], temperature: float, rows: int, raw: bool = False
    ) -> list[Decoded]:
        """Decode ``rows`` sequences on ``features`` (rows, positions, width; or one row, which all then share).

        Greedy at temperature 0, else sampled with MLX's random state. ``raw`` asks for ``raw_logprobs``.
        """
        mx = self._mx
        most = min(rules.MAX_DECODED, self._positions - len(prompt))
        heard = mlx_network.hear(self._network, features, rows)
        said = mlx_network.empty(heard, len(prompt) + most)
        start = mx.broadcast_to(mx.array(list(prompt))[None], (rows, len(prompt)))
        wanted = [prompt.index(self._sot), len(prompt) - 1]
        logits, said = mlx_network.decode(self._network, start, mx.array([0]), heard, said, wanted)
        no_speech, logits = mx.softmax(logits[:, 0], axis=-1)[:, self._no_speech], logits[:, 1]
        state = (mx.zeros((rows,)), mx.zeros((rows,), dtype=mx.bool_), self._filter.start(rows))
        token, finished, state = self._choose(logits, state, temperature)
        chosen, raws = [token], [_logprob(logits, token)] if raw else []
        for position in range(len(prompt), len(prompt) + most - 1):
            previous = finished
            inputs = (token, mx.array([position]), heard, said, state)
            if temperature:
                logits, said, token, finished, state = self._step(*inputs, temperature)
            else:
                logits, said, token, finished, state = self._compiled(*inputs)
            chosen.append(token)
            raws += [_logprob(logits, token)] if raw else []
            # Ask about the token before this one, so that the device already works on the next while Python waits.
            mx.async_eval(token, finished, state[0], *raws[-1:])
            if previous.item():
                break
        sequences: list[list[int]] = mx.stack(chosen, axis=1).tolist()
        sums: list[float] = state[0].tolist()
        silences: list[float] = no_speech.tolist()
        figures: list[list[float]] = mx.stack(raws, axis=1).tolist() if raw else [[]] * rows
        return [
            Decoded(tokens, logprob, silence, tuple(figures[row][: len(tokens)]))
            for row, (sequence, logprob, silence) in enumerate(zip(sequences, sums, silences, strict=True))
            for tokens in [_until(sequence, self._eot)]
        ]

    def _step(
        self,
        token: Any,
        position: Any,
        heard: mlx_network.Cache,
        said: mlx_network.Cache,
        state: State,
        temperature: float = 0.0,
    ) -> tuple[Any, ...]:
        """Behind ``token`` (rows,) at ``position`` (1,): the logits, the cache, and what ``_choose`` gives."""
        logits, said = mlx_network.decode(self._network, token[:, None], position, heard, said, [0])
        return logits[:, 0], said, *self._choose(logits[:, 0], state, temperature)

    def _choose(self, logits: Any, state: State, temperature: float) -> tuple[Any, Any, State]:
        """The next token (rows,), whether all rows have ended, and the state: each row's sum of log-probabilities,
        whether it has ended, and the filter's state."""
        mx, (total, done, before) = self._mx, state
        scores = self._filter.apply(logits, before)
        token = mx.random.categorical(scores / temperature) if temperature else mx.argmax(scores, axis=-1)
        total = total + mx.where(done, 0.0, _logprob(scores, token))
        token = mx.where(done, self._eot, token)
        done = done | (token == self._eot)
        return token, mx.all(done), (total, done, self._filter.follow(token, before))


def _logprob(scores: Any, tokens: Any) -> Any:
    """The log-probability (rows,) that ``scores`` (rows, vocabulary) give to ``tokens`` (rows,)."""
    mx = _mx()
    return mx.take_along_axis(scores, tokens[:, None], axis=-1)[:, 0] - mx.logsumexp(scores, axis=-1)


def _until(sequence: list[int], end: int) -> tuple[int, ...]:
    return tuple(sequence[: sequence.index(end)] if end in sequence else sequence)


def _mx() -> Any:
    import mlx.core as mx

    return mx
