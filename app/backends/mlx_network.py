"""Whisper's network on MLX as whisperd runs it, over mlx-whisper's loaded modules: any length of sound in, and a text
whose arrays keep one size.

The library's encoder insists on 30 s. Its decoder grows its arrays with each token, so that nothing could be compiled;
here keys and values of the text (the cache) have room for all tokens from the start. MLX is imported in the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Keys and values (rows, heads, positions, width of a head) for each layer.
Cache = list[tuple[Any, Any]]


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


def hear(decoder: Any, features: Any, rows: int) -> Cache:
    """What each layer attends to of the sound: ``features`` (rows or 1, positions, width) as keys and values."""
    mx = _mx()
    heard = []
    for block in decoder.blocks:
        attention = block.cross_attn
        pair = (_heads(attention, attention.key(features)), _heads(attention, attention.value(features)))
        heard.append(tuple(mx.broadcast_to(each, (rows, *each.shape[1:])) for each in pair))
    return heard


def empty(heard: Cache, positions: int) -> Cache:
    """Room for the keys and values of so many tokens."""
    mx = _mx()
    rows, heads, _, width = heard[0][0].shape
    room = mx.zeros((rows, heads, positions, width), dtype=heard[0][0].dtype)
    return [(room, room) for _ in heard]


def decode(
    decoder: Any, tokens: Any, position: Any, heard: Cache, said: Cache, wanted: Sequence[int]
) -> tuple[Any, Cache]:
    """The logits, float32 (rows, wanted, vocabulary), behind those of ``tokens`` (rows, n) that are ``wanted``, and the
    text's cache with them in it.

    The first of ``tokens`` stands at ``position``, an array (1,), so that a compiled call serves all positions.
    """
    mx = _mx()
    from mlx import nn

    places = position + mx.arange(tokens.shape[1])
    visible = mx.arange(said[0][0].shape[2])[None] <= places[:, None]
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[places]
    cache: Cache = []
    for block, sound, (keys, values) in zip(decoder.blocks, heard, said, strict=True):
        y, attention = block.attn_ln(x), block.attn
        keys = mx.slice_update(keys, _heads(attention, attention.key(y)), position, axes=(2,))
        values = mx.slice_update(values, _heads(attention, attention.value(y)), position, axes=(2,))
        cache.append((keys, values))
        x = x + _attend(attention, y, keys, values, visible)
        x = x + _attend(block.cross_attn, block.cross_attn_ln(x), *sound)
        x = x + block.mlp2(nn.gelu(block.mlp1(block.mlp_ln(x))))
    x = decoder.ln(x)[:, mx.array(list(wanted))]
    return decoder.token_embedding.as_linear(x).astype(mx.float32), cache


def _attend(attention: Any, x: Any, keys: Any, values: Any, visible: Any = None) -> Any:
    queries = _heads(attention, attention.query(x))
    found = _mx().fast.scaled_dot_product_attention(
        queries, keys, values, scale=queries.shape[-1] ** -0.5, mask=visible
    )
    return attention.out(found.transpose(0, 2, 1, 3).reshape(x.shape))


def _heads(attention: Any, x: Any) -> Any:
    """(rows, positions, width) as (rows, heads, positions, width of a head)."""
    return x.reshape(*x.shape[:2], attention.n_head, -1).transpose(0, 2, 1, 3)


def _mx() -> Any:
    import mlx.core as mx

    return mx
