"""Whisper's decoding loop on torch, made of openai-whisper's own parts: its cache, its filters, its searches.

The library's ``DecodingTask`` takes features of 30 s only, puts its own prompt together, cannot search with beams for
several rows, and keeps no token's log-probability; so the loop around the parts is ours. torch is imported in the
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.backends import rules
from app.backends.tokens import Decoded, suppressed_tokens


def probabilities(decoder: Any, features: Any, sot: int, tokens: Sequence[int]) -> list[float]:
    """How likely each of ``tokens`` is behind the start token, were there no others, for the first row of
    ``features``."""
    import torch

    with torch.inference_mode():
        logits = decoder(torch.tensor([[sot]], device=features.device), features[:1])[0, -1]
        values: list[float] = logits[list(tokens)].float().softmax(dim=-1).tolist()
    return values


def greedy(model: Any, tokenizer: Any, features: Any, prompt: Sequence[int], *, raw: bool = False) -> list[Decoded]:
    """The likeliest token at each step, all rows of ``features`` (rows, positions, width) together.

    ``raw`` asks for ``raw_logprobs``.
    """
    from whisper.decoding import GreedyDecoder

    loop = _Loop(model, tokenizer, features, prompt, raw=raw)
    return loop.run(GreedyDecoder(0.0, tokenizer.eot))


def sampled(
    model: Any, tokenizer: Any, features: Any, prompt: Sequence[int], temperature: float, *, raw: bool = False
) -> Decoded:
    """The likeliest of ``rules.BEST_OF`` sequences drawn with torch's random state for one row of ``features``."""
    from whisper.decoding import GreedyDecoder

    loop = _Loop(model, tokenizer, features, prompt, group=rules.BEST_OF, raw=raw)
    return loop.run(GreedyDecoder(temperature, tokenizer.eot))[0]


def searched(model: Any, tokenizer: Any, features: Any, prompt: Sequence[int], beams: int) -> Decoded:
    """The likeliest sequence that a search with so many ``beams`` finds for one row of ``features``.

    A row at a time: the library goes through beams in Python, so that rows together would gain little and take the
    memory of rows times beams.
    """
    from whisper.decoding import BeamSearchDecoder

    loop = _Loop(model, tokenizer, features, prompt, group=beams)
    return loop.run(BeamSearchDecoder(beams, tokenizer.eot, loop.inference))[0]


class _Loop:
    """One pass over ``features``, each row of which has ``group`` sequences."""

    def __init__(
        self, model: Any, tokenizer: Any, features: Any, prompt: Sequence[int], *, group: int = 1, raw: bool = False
    ) -> None:
        import torch
        from whisper.decoding import ApplyTimestampRules, PyTorchInference, SuppressTokens

        self._tokenizer, self._group, self._raw = tokenizer, group, raw
        self._begin, self._start = len(prompt), list(prompt).index(tokenizer.sot)
        self._most = min(rules.MAX_DECODED, model.dims.n_text_ctx - len(prompt))
        self._features = features.repeat_interleave(group, dim=0)
        self._tokens = torch.tensor([list(prompt)] * len(self._features), device=features.device)
        self.inference = PyTorchInference(model, len(prompt))
        self._last_layer = model.decoder.ln
        # The first token is a timestamp, which rules out a blank too.
        self._filters = [
            SuppressTokens(suppressed_tokens(tokenizer)),
            ApplyTimestampRules(tokenizer, len(prompt), rules.MAX_INITIAL_TIMESTAMP),
        ]

    def run(self, chooser: Any) -> list[Decoded]:
        """The likeliest sequence of each row, the tokens chosen by the library's ``TokenDecoder`` ``chooser``."""
        import torch

        # The library computes logits behind all of the prompt's tokens, 46 MB a row for the longest; two are wanted.
        hook = self._last_layer.register_forward_hook(self._wanted)
        with torch.inference_mode():
            try:
                tokens, sums, silences, raws = self._steps(chooser)
            finally:
                hook.remove()
                self.inference.cleanup_caching()
            rows = len(tokens) // self._group
            found, totals = chooser.finalize(tokens.view(rows, self._group, -1), sums.view(rows, self._group))
            figures = torch.stack(raws, dim=1).tolist() if raws else [[]] * len(tokens)
        return [
            self._likeliest(found[row], totals[row], silences[first], figures[first : first + self._group])
            for row, first in enumerate(range(0, len(tokens), self._group))
        ]

    def _steps(self, chooser: Any) -> tuple[Any, Any, list[float], list[Any]]:
        """All tokens (sequences, prompt and more), their sums, the first's no-speech probabilities, and a tensor
        (sequences,) of raw log-probabilities for each step."""
        import torch

        tokens, sums = self._tokens, torch.zeros(len(self._tokens), device=self._tokens.device)
        silences: list[float] = []
        raws: list[Any] = []
        for _ in range(self._most):
            logits = self.inference.logits(tokens, self._features)
            if not silences:
                silences = logits[:, 0].softmax(dim=-1)[:, self._tokenizer.no_speech].tolist()
            logits = logits[:, -1]
            before = logits.log_softmax(dim=-1) if self._raw else None  # the filters work in place
            for each in self._filters:
                each.apply(logits, tokens)
            tokens, completed = chooser.update(tokens, logits, sums)
            if before is not None:
                raws.append(before.gather(1, tokens[:, -1:])[:, 0])
            if completed:
                break
        return tokens, sums, silences, raws

    def _wanted(self, _module: Any, _inputs: Any, x: Any) -> Any:
        """What the decoder's last layer gives behind the start token and behind the prompt; later it is one token's."""
        return x[:, [self._start, -1]] if x.shape[1] > 1 else x

    def _likeliest(
        self, found: Sequence[Any], totals: Sequence[float], silence: float, figures: Sequence[list[float]]
    ) -> Decoded:
        candidates = []
        for number, (sequence, total) in enumerate(zip(found, totals, strict=True)):
            tokens = self._own(sequence.tolist())
            raws = figures[number][: len(tokens)] if self._raw else ()
            candidates.append(Decoded(tokens, float(total), float(silence), tuple(raws)))
        return max(candidates, key=lambda one: one.likelihood)

    def _own(self, sequence: list[int]) -> tuple[int, ...]:
        """What was decoded of a sequence, without prompt and end."""
        return tuple(sequence[self._begin : sequence.index(self._tokenizer.eot, self._begin)])
