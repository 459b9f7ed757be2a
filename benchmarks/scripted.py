"""Whispers of real sizes that need no download: random weights, and a text that they are bound to decode.

Their work is that of the real model, their text is not: whatever the sound, the decoder gives the tokens of a script,
surely enough for the guards, and ends where the script ends. A row of the decoder's positions is many times the
embedding of the token that is to come next; what the random blocks add stays small beside it. So a loaded model takes
another script by another table of positions.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: How far the position outweighs the token and the blocks, all of which are about 1 to 30 long.
VOICE = 64.0
#: The last layer norm's weight: at a width of 64 the logits need it to stand out of 50,000 others.
LOUDNESS = 4.0
#: Size of the blocks' matrices: their outputs have this standard deviation for inputs of 1.
SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """A Whisper's dimensions; encoder and decoder are equally wide."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mels: int = 80
    vocabulary: int = 51865


SIZES = {
    "toy": Size(64, 2, 2, 2),
    "tiny": Size(384, 6, 4, 4),
    "base": Size(512, 8, 6, 6),
    "small": Size(768, 12, 12, 12),
    "medium": Size(1024, 16, 24, 24),
    "large-v3": Size(1280, 20, 32, 32, mels=128, vocabulary=51866),
    "large-v3-turbo": Size(1280, 20, 32, 4, mels=128, vocabulary=51866),
}


@dataclass(frozen=True, slots=True)
class Script:
    """The tokens that a window is bound to be decoded to, the end of text aside, and the text that they spell."""

    tokens: tuple[int, ...]
    text: str


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Write the model ``name`` of ``SIZES`` as an MLX folder of float16, without a script yet."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_whisper.whisper import ModelDimensions, Whisper

    size = SIZES[name]
    dimensions = ModelDimensions(
        n_mels=size.mels,
        n_audio_ctx=1500,
        n_audio_state=size.width,
        n_audio_head=size.heads,
        n_audio_layer=size.encoder_layers,
        n_vocab=size.vocabulary,
        n_text_ctx=448,
        n_text_state=size.width,
        n_text_head=size.heads,
        n_text_layer=size.decoder_layers,
    )
    mx.random.seed(seed)
    weights: dict[str, Any] = {}
    for key, value in tree_flatten(Whisper(dimensions, mx.float16).parameters()):
        if key != "alignment_heads":
            weights[key] = _random(key, value.shape).astype(mx.float16)
            mx.eval(weights[key])
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "weights.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(asdict(dimensions)), encoding="utf-8")


def _random(key: str, shape: tuple[int, ...]) -> Any:
    import mlx.core as mx

    if key == "decoder.token_embedding.weight":
        rows = mx.random.normal(shape)
        return rows / mx.linalg.norm(rows, axis=1, keepdims=True)
    if key == "decoder.ln.weight":
        return mx.full(shape, LOUDNESS)
    if len(shape) == 1 and key.endswith("weight"):
        return mx.ones(shape)
    if len(shape) == 1 or key == "decoder.positional_embedding":
        return mx.zeros(shape)
    return mx.random.normal(shape) * (SPREAD / math.sqrt(math.prod(shape[1:])))


def make_script(tokenizer: Any, words: int, seconds: float) -> Script:
    """A start at 0, ``words`` English words of one token each, none twice, and an end at ``seconds``."""
    candidates = []
    for token in range(1000, 20_000):
        text = tokenizer.decode([token])
        if text[0] == " " and len(text) > 4 and text[1:].isascii() and text[1:].isalpha() and text[1:].islower():
            candidates.append(token)
    chosen = random.Random(0).sample(candidates, words)  # noqa: S311
    begin = int(tokenizer.timestamp_begin)
    tokens = (begin, *chosen, begin + int(seconds * 50))
    return Script(tokens, str(tokenizer.decode(chosen)).strip())


def install(model: Any, prompt: Sequence[int], script: Script, end: int) -> None:
    """Have the loaded ``model`` decode ``script`` behind ``prompt``, then the token ``end``."""
    import mlx.core as mx

    decoder = model.decoder
    spoken = [*prompt[1:], *script.tokens]
    positions = decoder.positional_embedding.shape[0]
    following = mx.array(spoken + [end] * (positions - len(spoken)))
    table = decoder.token_embedding.weight[following] * VOICE
    decoder.positional_embedding = table.astype(decoder.token_embedding.weight.dtype)
    mx.eval(decoder.positional_embedding)
