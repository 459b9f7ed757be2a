"""CTranslate2: model.bin, config.json and vocabulary.json, as faster-whisper loads them, without torch or transformers.

Source: ``WhisperLoader`` in ``ctranslate2/converters/transformers.py``, whose output this is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.convert.checkpoint import Checkpoint
from app.errors import BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write(checkpoint: Checkpoint, dest: Path) -> None:
    """Write the model into the folder ``dest``, float16 (CTranslate2 makes int8 or float32 of it while loading).

    Raises ``BackendUnavailable`` where CTranslate2 is missing, ``InvalidRequest`` where it refuses the checkpoint.
    """
    try:
        from ctranslate2.specs import WhisperSpec
    except ImportError:
        raise BackendUnavailable(
            "Converting for faster-whisper needs CTranslate2: pip install 'whisperd[faster-whisper]'."
        ) from None

    dims = checkpoint.dims
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    _Filler(checkpoint).fill(spec)
    spec.register_vocabulary(checkpoint.tokenizer.tokens())
    spec.config.suppress_ids = checkpoint.setting("suppress_tokens")
    spec.config.suppress_ids_begin = checkpoint.setting("begin_suppress_tokens")
    named = checkpoint.generation.get("lang_to_id") or {}
    spec.config.lang_ids = sorted(named.values()) or checkpoint.tokenizer.language_ids
    spec.config.alignment_heads = checkpoint.alignment_heads
    try:
        spec.validate()
        spec.optimize(quantization="float16")
    except ValueError as error:
        raise InvalidRequest(f"CTranslate2 refuses {checkpoint.folder.name}: {error}") from None
    checkpoint.write_companions(dest)
    spec.save(str(dest))


class _Filler:
    """Puts the checkpoint's weights where a ``WhisperSpec`` wants them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.array = checkpoint.array

    def fill(self, spec: Any) -> None:
        for name in ("conv1", "conv2"):
            self.linear(getattr(spec.encoder, name), f"encoder.{name}")
        spec.decoder.embeddings.weight = self.array("decoder.embed_tokens.weight")
        projection = self.checkpoint.projection()
        spec.decoder.projection.weight = spec.decoder.embeddings.weight if projection is None else projection
        for name, side in (("encoder", spec.encoder), ("decoder", spec.decoder)):
            side.position_encodings.encodings = self.array(f"{name}.embed_positions.weight")
            self.norm(side.layer_norm, f"{name}.layer_norm")
            for i, layer in enumerate(side.layer):
                self.layer(layer, f"{name}.layers.{i}", crossed=name == "decoder")

    def layer(self, spec: Any, name: str, *, crossed: bool) -> None:
        self.fuse(spec.self_attention.linear[0], f"{name}.self_attn", "qkv")
        self.linear(spec.self_attention.linear[1], f"{name}.self_attn.out_proj")
        self.norm(spec.self_attention.layer_norm, f"{name}.self_attn_layer_norm")
        if crossed:
            self.fuse(spec.attention.linear[0], f"{name}.encoder_attn", "q")
            self.fuse(spec.attention.linear[1], f"{name}.encoder_attn", "kv")
            self.linear(spec.attention.linear[2], f"{name}.encoder_attn.out_proj")
            self.norm(spec.attention.layer_norm, f"{name}.encoder_attn_layer_norm")
        self.linear(spec.ffn.linear_0, f"{name}.fc1")
        self.linear(spec.ffn.linear_1, f"{name}.fc2")
        self.norm(spec.ffn.layer_norm, f"{name}.final_layer_norm")

    def linear(self, spec: Any, name: str) -> None:
        spec.weight = self.array(f"{name}.weight")
        spec.bias = self.array(f"{name}.bias")

    def norm(self, spec: Any, name: str) -> None:
        spec.gamma = self.array(f"{name}.weight")
        spec.beta = self.array(f"{name}.bias")

    def fuse(self, spec: Any, name: str, parts: str) -> None:
        """Set one matrix for several projections; keys have no bias, so theirs is zero."""
        import numpy as np

        def bias(part: str) -> NDArray[np.float16]:
            if part == "k":
                return np.zeros(self.checkpoint.dims.n_text_state, np.float16)
            return self.array(f"{name}.{part}_proj.bias")

        spec.weight = np.concatenate([self.array(f"{name}.{part}_proj.weight") for part in parts])
        spec.bias = np.concatenate([bias(part) for part in parts])
