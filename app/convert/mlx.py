"""MLX: config.json with OpenAI's sizes and weights.safetensors under OpenAI's names, as mlx-whisper loads them.

Source: ``whisper/convert.py`` and ``mlx_whisper/load_models.py`` of ml-explore/mlx-examples. The encoder's positions
are computed there, so they are written only where training has moved them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from app.convert.checkpoint import Checkpoint


def write(checkpoint: Checkpoint, dest: Path) -> None:
    """Write the model into the folder ``dest``, float16. Raises ``InvalidRequest`` for what MLX cannot hold."""
    import numpy as np
    from safetensors.numpy import save_file

    checkpoint.require_tied("mlx-whisper")
    arrays = {}
    for weight in checkpoint.weights():
        if weight.name == "encoder.positional_embedding":
            continue
        numbers = checkpoint.array(weight.source)
        if numbers.ndim == 3:  # a convolution: MLX keeps the channels last
            numbers = numbers.transpose(0, 2, 1)
        arrays[weight.name.replace(".mlp.0.", ".mlp1.").replace(".mlp.2.", ".mlp2.")] = np.ascontiguousarray(numbers)
    if checkpoint.trained_positions():
        arrays["encoder._positional_embedding"] = checkpoint.array("encoder.embed_positions.weight")
    save_file(arrays, dest / "weights.safetensors")
    config = asdict(checkpoint.dims) | {"model_type": "whisper"}
    (dest / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    checkpoint.write_companions(dest)
