"""openai-whisper: model.pt with sizes and state dictionary. Source: ``whisper/__init__.py`` of openai/whisper."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from app.convert.checkpoint import Checkpoint
from app.errors import BackendUnavailable


def write(checkpoint: Checkpoint, dest: Path) -> None:
    """Write the model into the folder ``dest``, float16.

    Raises ``BackendUnavailable`` without torch, ``InvalidRequest`` for what openai-whisper cannot hold.
    """
    import numpy as np

    try:
        import torch
    except ImportError:
        raise BackendUnavailable("Writing openai-whisper's format needs torch: pip install torch.") from None

    checkpoint.require_tied("openai-whisper")
    checkpoint.require_plain_widths("openai-whisper")
    state = {w.name: torch.from_numpy(np.array(checkpoint.array(w.source))) for w in checkpoint.weights()}
    torch.save({"dims": asdict(checkpoint.dims), "model_state_dict": state}, dest / "model.pt")
    checkpoint.write_companions(dest)
