"""A Hugging Face Whisper checkpoint, checked before anything is written: sizes, weights by name, tokenizer, generation.

Source: transformers' ``modeling_whisper.py`` for names and shapes, openai/whisper's ``model.py`` for the other names,
which whisper.cpp and MLX share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.convert.tensors import Tensor, read_safetensors
from app.convert.tokens import Tokenizer, read_tokenizer
from app.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Parts of a layer: Hugging Face's name, OpenAI's, and whether it has a bias.
_ATTENTION = (("q_proj", "query", True), ("k_proj", "key", False), ("v_proj", "value", True), ("out_proj", "out", True))
#: A trained position further than this from OpenAI's sine waves is no rounding of float16 or bfloat16.
POSITION_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Dims:
    """The model's sizes under OpenAI's names (``whisper.model.ModelDimensions``), in the order of ggml's header."""

    n_vocab: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight's two names: ``source`` at Hugging Face (without ``model.``), ``name`` at OpenAI."""

    source: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """``widths`` are the feed-forward widths of encoder and decoder; ``generation`` is empty without its file."""

    folder: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    dims: Dims
    widths: tuple[int, int]
    tokenizer: Tokenizer
    tensors: dict[str, Tensor] = field(repr=False)

    def weights(self) -> Iterator[Weight]:
        """Every weight of the architecture but the output projection, which is the embedding (see ``projection``)."""
        return _weights(self.dims, self.widths)

    def array(self, source: str) -> NDArray[np.float16]:
        """A weight as float16, cut to the vocabulary. Raises ``InvalidRequest`` where it is not finite as float16."""
        import numpy as np

        with np.errstate(over="ignore"):
            numbers = self.tensors[source].array().astype(np.float16, copy=False)
        if not np.isfinite(numbers).all():
            raise InvalidRequest(f"The weight {source} holds numbers that are not finite or do not fit in float16.")
        return numbers[: self.dims.n_vocab] if source.endswith(("embed_tokens.weight", "proj_out.weight")) else numbers

    def projection(self) -> NDArray[np.float16] | None:
        """The output projection where it was trained apart from the embedding, else None."""
        import numpy as np

        if "proj_out.weight" not in self.tensors or self.config.get("tie_word_embeddings", True):
            return None
        projection = self.array("proj_out.weight")
        return None if np.array_equal(projection, self.array("decoder.embed_tokens.weight")) else projection

    def require_tied(self, library: str) -> None:
        """Refuse what ``library`` cannot hold: an output projection of its own."""
        if self.projection() is not None:
            raise InvalidRequest(
                f"{self.folder.name} has an output projection apart from its embedding, which {library} cannot hold; "
                "use faster-whisper."
            )

    def require_plain_widths(self, library: str) -> None:
        """Refuse feed-forward widths other than four times the model's, which ``library`` takes for granted."""
        if self.widths != (4 * self.dims.n_audio_state, 4 * self.dims.n_text_state):
            raise InvalidRequest(
                f"{self.folder.name} has feed-forward layers of unusual width, which {library} cannot hold."
            )

    def trained_positions(self) -> bool:
        """Whether the encoder's positions are no longer OpenAI's sine waves (early trainers did not freeze them)."""
        import numpy as np

        length, width = self.dims.n_audio_ctx, self.dims.n_audio_state
        waves = np.arange(length)[:, None] * np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))[None, :]
        expected = np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
        return bool(np.abs(self.array("encoder.embed_positions.weight") - expected).max() > POSITION_TOLERANCE)

    @property
    def alignment_heads(self) -> list[list[int]]:
        """(layer, head) of the heads that follow the words in time; the decoder's last half where none are named."""
        layers, heads = self.dims.n_text_layer, self.dims.n_text_head
        named = self.generation.get("alignment_heads") or product(range(layers // 2, layers), range(heads))
        found = [[int(layer), int(head)] for layer, head in named]
        if any(not (0 <= layer < layers and 0 <= head < heads) for layer, head in found):
            raise InvalidRequest(
                f"generation_config.json in {self.folder.name} names alignment heads that do not exist."
            )
        return found

    def setting(self, name: str) -> Any:
        """A list for generation: generation_config.json's, else config.json's (older checkpoints), else empty."""
        return self.generation.get(name) or self.config.get(name) or []

    def write_companions(self, dest: Path) -> None:
        """Write what every library wants beside the weights: tokenizer, preprocessor and generation settings."""
        _dump(dest / "tokenizer.json", self.tokenizer.data)
        preprocessor = _read_json(self.folder / "preprocessor_config.json", required=False)
        defaults = {
            "sampling_rate": 16000,
            "hop_length": 160,
            "n_fft": 400,
            "chunk_length": self.dims.n_audio_ctx // 50,
        }
        _dump(dest / "preprocessor_config.json", defaults | preprocessor | {"feature_size": self.dims.n_mels})
        _dump(dest / "generation_config.json", self.generation | {"alignment_heads": self.alignment_heads})


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open and check the checkpoint in ``folder``; no weights are read yet.

    Raises ``InvalidRequest`` with a sentence that names what is missing or does not fit.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder.name} is no folder.")
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "whisper" or "d_model" not in config:
        raise InvalidRequest(f"{folder.name} is no Hugging Face Whisper checkpoint: its config.json says otherwise.")
    if config.get("activation_function", "gelu") != "gelu":
        raise InvalidRequest(f"{folder.name} uses {config['activation_function']!r} where Whisper has gelu.")
    tensors = _read_tensors(folder)
    tokenizer = read_tokenizer(folder)
    dims, widths = _read_dims(folder, config, tensors, tokenizer)
    _check(folder, dims, widths, tensors)
    generation = _read_json(folder / "generation_config.json", required=False)
    return Checkpoint(folder, config, generation, dims, widths, tokenizer, tensors)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    elif (folder / "model.safetensors.index.json").is_file():
        shards = _read_json(folder / "model.safetensors.index.json").get("weight_map")
        files = sorted({Path(str(name)).name for name in shards.values()}) if isinstance(shards, dict) else []
    elif (folder / "pytorch_model.bin").is_file():
        raise InvalidRequest(
            f"{folder.name} holds its weights as pytorch_model.bin only; "
            "save it again with save_pretrained(…, safe_serialization=True)."
        )
    else:
        raise InvalidRequest(f"{folder.name} holds no model.safetensors.")
    found: dict[str, Tensor] = {}
    for file in files:
        found |= {name.removeprefix("model."): tensor for name, tensor in read_safetensors(folder / file).items()}
    # A tied pair may have been saved once, under either name.
    if "decoder.embed_tokens.weight" not in found and "proj_out.weight" in found:
        found["decoder.embed_tokens.weight"] = found["proj_out.weight"]
    return found


def _read_dims(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Tokenizer
) -> tuple[Dims, tuple[int, int]]:
    embedding = tensors.get("decoder.embed_tokens.weight")
    if embedding is None:
        raise InvalidRequest(f"{folder.name} lacks the weight decoder.embed_tokens.weight.")
    if embedding.shape[0] < tokenizer.vocabulary_size:
        raise InvalidRequest(
            f"{folder.name} has {embedding.shape[0]} rows in its embedding, "
            f"but its tokenizer has {tokenizer.vocabulary_size} tokens."
        )
    try:
        width = int(config["d_model"])
        dims = Dims(
            n_vocab=tokenizer.vocabulary_size,
            n_audio_ctx=int(config.get("max_source_positions", 1500)),
            n_audio_state=width,
            n_audio_head=int(config["encoder_attention_heads"]),
            n_audio_layer=int(config["encoder_layers"]),
            n_text_ctx=int(config.get("max_target_positions", 448)),
            n_text_state=width,
            n_text_head=int(config["decoder_attention_heads"]),
            n_text_layer=int(config["decoder_layers"]),
            n_mels=int(config.get("num_mel_bins", 80)),
        )
        return dims, (int(config.get("encoder_ffn_dim", 4 * width)), int(config.get("decoder_ffn_dim", 4 * width)))
    except KeyError as error:
        raise InvalidRequest(f"config.json in {folder.name} does not say {error.args[0]}.") from None
    except (TypeError, ValueError):
        raise InvalidRequest(f"config.json in {folder.name} gives a size that is no number.") from None


def _check(folder: Path, dims: Dims, widths: tuple[int, int], tensors: dict[str, Tensor]) -> None:
    for weight in _weights(dims, widths):
        tensor = tensors.get(weight.source)
        if tensor is None:
            raise InvalidRequest(f"{folder.name} lacks the weight {weight.source}.")
        # The embedding may be longer than the vocabulary: trainers pad it to a round number.
        fits = tensor.shape[1:] == weight.shape[1:] and tensor.shape[0] >= weight.shape[0]
        if not (fits if weight.source == "decoder.embed_tokens.weight" else tensor.shape == weight.shape):
            raise InvalidRequest(
                f"The weight {weight.source} in {folder.name} is {list(tensor.shape)}, "
                f"but config.json makes it {list(weight.shape)}."
            )


def _weights(dims: Dims, widths: tuple[int, int]) -> Iterator[Weight]:
    width = dims.n_audio_state
    yield Weight("encoder.embed_positions.weight", "encoder.positional_embedding", (dims.n_audio_ctx, width))
    yield Weight("encoder.conv1.weight", "encoder.conv1.weight", (width, dims.n_mels, 3))
    yield Weight("encoder.conv1.bias", "encoder.conv1.bias", (width,))
    yield Weight("encoder.conv2.weight", "encoder.conv2.weight", (width, width, 3))
    yield Weight("encoder.conv2.bias", "encoder.conv2.bias", (width,))
    yield Weight("decoder.embed_positions.weight", "decoder.positional_embedding", (dims.n_text_ctx, width))
    yield Weight("decoder.embed_tokens.weight", "decoder.token_embedding.weight", (dims.n_vocab, width))
    for side, count, inner in (("encoder", dims.n_audio_layer, widths[0]), ("decoder", dims.n_text_layer, widths[1])):
        for layer in range(count):
            yield from _layer(f"{side}.layers.{layer}", f"{side}.blocks.{layer}", width, inner, side == "decoder")
    yield from _linear("encoder.layer_norm", "encoder.ln_post", (width,))
    yield from _linear("decoder.layer_norm", "decoder.ln", (width,))


def _layer(source: str, name: str, width: int, inner: int, crossed: bool) -> Iterator[Weight]:
    attentions = [("self_attn", "attn"), *([("encoder_attn", "cross_attn")] if crossed else [])]
    for hf, openai in attentions:
        for part, other, biased in _ATTENTION:
            yield from _linear(f"{source}.{hf}.{part}", f"{name}.{openai}.{other}", (width, width), biased)
        yield from _linear(f"{source}.{hf}_layer_norm", f"{name}.{openai}_ln", (width,))
    yield from _linear(f"{source}.fc1", f"{name}.mlp.0", (inner, width))
    yield from _linear(f"{source}.fc2", f"{name}.mlp.2", (width, inner))
    yield from _linear(f"{source}.final_layer_norm", f"{name}.mlp_ln", (width,))


def _linear(source: str, name: str, shape: tuple[int, ...], biased: bool = True) -> Iterator[Weight]:
    yield Weight(f"{source}.weight", f"{name}.weight", shape)
    if biased:
        yield Weight(f"{source}.bias", f"{name}.bias", shape[:1])


def _read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise InvalidRequest(f"{path.parent.name} holds no {path.name}.") from None
    except ValueError:
        raise InvalidRequest(f"{path.name} in {path.parent.name} is no JSON.") from None
    if not isinstance(data, dict):
        raise InvalidRequest(f"{path.name} in {path.parent.name} is no JSON object.")
    return data


def _dump(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")
