"""whisper.cpp: ggml-model.bin in its first format, float16, with the mel filters and the vocabulary inside.

Source: ``models/convert-h5-to-ggml.py`` and ``whisper_model_load`` of ggml-org/whisper.cpp. Vectors and positions are
float32 there; the convolutions' biases are columns.
"""

from __future__ import annotations

import struct
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.convert.checkpoint import Checkpoint, Dims
from app.convert.tokens import token_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: "ggml" as whisper.cpp reads it.
MAGIC = 0x67676D6C
#: What a file begins with: magic, the model's sizes, and how its weights are stored.
HEADER = struct.Struct("<i10ii")
#: Whisper's short-time Fourier transform: 400 samples of 16 kHz, so 201 bins.
N_FFT = 400
#: The upper end of the mel scale, 8 kHz in Slaney's mels.
TOP_MEL = 45.245640471924965


def write(checkpoint: Checkpoint, dest: Path) -> None:
    """Write the model into the folder ``dest``. Raises ``InvalidRequest`` for what whisper.cpp cannot hold."""
    checkpoint.require_tied("whisper.cpp")
    checkpoint.require_plain_widths("whisper.cpp")
    filters = mel_filters(checkpoint.dims.n_mels)
    # whisper.cpp makes up the names of what is no text itself.
    tokens = checkpoint.tokenizer.tokens()[: checkpoint.tokenizer.end_of_text]
    with (dest / "ggml-model.bin").open("wb") as file:
        file.write(HEADER.pack(MAGIC, *astuple(checkpoint.dims), 1))
        file.write(struct.pack("<ii", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            raw = token_bytes(token)
            file.write(struct.pack("<i", len(raw)) + raw)
        for weight in checkpoint.weights():
            _write_tensor(file, weight.name, checkpoint.array(weight.source))
    checkpoint.write_companions(dest)


def read_dims(file: Path) -> Dims | None:
    """The sizes of the model in ``file``; None where it is no ggml file. Raises OSError."""
    with file.open("rb") as opened:
        header = opened.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, *sizes, _ = HEADER.unpack(header)
    return Dims(*sizes) if magic == MAGIC else None


def _write_tensor(file: BinaryIO, name: str, numbers: NDArray[np.floating]) -> None:
    import numpy as np

    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        numbers = numbers.reshape(-1, 1)
    half = numbers.ndim > 1 and not name.endswith(("positional_embedding", ".bias"))
    numbers = np.ascontiguousarray(numbers, dtype="<f2" if half else "<f4")
    shape = numbers.shape[::-1]
    file.write(struct.pack(f"<iii{len(shape)}i", len(shape), len(name), int(half), *shape) + name.encode())
    numbers.tofile(file)


def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Slaney's triangles as librosa and Whisper have them: shape (n_mels, 201), from the bins' power to mel bands."""
    import numpy as np

    mels = np.linspace(0, TOP_MEL, n_mels + 2)
    # Linear up to 1 kHz (15 mels), logarithmic above.
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    bins = np.fft.rfftfreq(N_FFT, 1 / 16_000)
    distance = corners[:, None] - bins[None, :]
    gaps = np.diff(corners)[:, None]
    triangles = np.maximum(0, np.minimum(-distance[:-2] / gaps[:-1], distance[2:] / gaps[1:]))
    return np.ascontiguousarray(triangles * (2 / (corners[2:] - corners[:-2]))[:, None], dtype="<f4")
