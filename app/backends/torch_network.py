"""Whisper's network on torch as whisperd runs it, over openai-whisper's modules: a checkpoint becomes a model in one
precision, and the encoder takes any length of sound. torch is imported in the functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def checkpoint_in(path: Path) -> Path | None:
    """The checkpoint that ``path`` means: itself, ``model.pt`` in it, or the only one in it; None where there is none,
    or several."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.pt"))
    named = path / "model.pt"
    return named if named in found else found[0] if len(found) == 1 else None


def load(checkpoint: Path, device: str, dtype: Any) -> tuple[Any, Any]:
    """The model in ``checkpoint`` on ``device``, its weights in ``dtype``, and its alignment heads.

    Nothing but tensors and plain values is unpickled, and no network is asked. The heads, a sparse mask (layers, heads)
    on the CPU, are those that a ``generation_config.json`` beside the checkpoint names, else the library's guess. They
    do not stay in the model, because MPS has no sparse tensors. Raises whatever torch does over a broken file.
    """
    import torch
    from whisper.model import ModelDimensions, Whisper

    # Mapped, the file's pages are read as they are copied: a large model is not in memory twice.
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    model = Whisper(ModelDimensions(**stored["dims"]))
    model.load_state_dict(stored["model_state_dict"])
    named = _named_heads(checkpoint.parent, model)
    heads = model.alignment_heads if named is None else named
    model.register_buffer("alignment_heads", None, persistent=False)
    # The library converts weights at each call; its LayerNorm computes in float32 and must keep its own so.
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Embedding):
            module.to(dtype)
    return model.eval().to(device), heads


def _named_heads(folder: Path, model: Any) -> Any:
    """The mask of the heads that the checkpoint says follow the words; None where it names none."""
    import torch

    config = folder / "generation_config.json"
    pairs = json.loads(config.read_text(encoding="utf-8")).get("alignment_heads") if config.is_file() else None
    if not pairs:
        return None
    mask = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    mask[tuple(torch.tensor(pairs).T)] = True
    return mask.to_sparse()


def encode(encoder: Any, mel: Any) -> Any:
    """The encoder's output for ``mel`` (rows, mels, frames), of any even number of frames up to 3000.

    The library's ``AudioEncoder.forward`` insists on 3000; this is the same with the positions cut to length.
    Returns (rows, frames / 2, width).
    """
    import torch
    from torch.nn.functional import gelu

    with torch.inference_mode():
        x = gelu(encoder.conv1(mel))
        x = gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)
