"""Reading safetensors without torch and without copies: a header of JSON, then raw little-endian numbers.

The library of that name cannot hand bfloat16 to numpy, and reports a damaged file in words that help nobody; the format
is small enough to read here. Source: the format's description in huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The largest header that the format allows, in bytes.
MAX_HEADER = 100_000_000
#: numpy's word for each number format; bfloat16 is read as raw 16-bit words.
DTYPES = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a file: ``dtype`` as the format names it, ``offset`` in bytes from the file's start."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def array(self) -> NDArray[np.floating[Any]]:
        """The numbers, memory-mapped and read-only; bfloat16 widened to float32 (its upper half, so exactly).

        Raises ``InvalidRequest`` for a number format that is no float (a quantized checkpoint).
        """
        import numpy as np

        if self.dtype not in DTYPES:
            raise InvalidRequest(
                f"{self.path.name} stores its weights as {self.dtype}; whisperd converts float16, bfloat16 and float32."
            )
        raw = np.memmap(self.path, dtype=DTYPES[self.dtype], mode="r", offset=self.offset, shape=self.shape)
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name; nothing but the header is read.

    Raises ``InvalidRequest`` for a file that is missing, cut short or no safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise InvalidRequest(f"{path.name} is no safetensors file, or is cut short in its header.")
            header = json.loads(file.read(length))
        body = 8 + length
        return {
            name: _tensor(path, name, entry, body, size) for name, entry in header.items() if name != "__metadata__"
        }
    except FileNotFoundError:
        raise InvalidRequest(f"{path.name} is missing.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequest(f"{path.name} is no safetensors file: its header cannot be read.") from None


def _tensor(path: Path, name: str, entry: dict[str, Any], body: int, size: int) -> Tensor:
    dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if body + end > size:
        raise InvalidRequest(
            f"{path.name} is cut short: {name} ends {body + end - size:,} bytes behind the file's end."
        )
    width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(dtype)
    if not 0 <= begin <= end or (width is not None and end - begin != width * math.prod(shape)):
        raise InvalidRequest(f"{path.name} contradicts itself about the size of {name}.")
    return Tensor(path, dtype, shape, body + begin)
