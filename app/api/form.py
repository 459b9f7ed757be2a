"""What any body becomes: text fields by name, and a file whose bytes are counted on their way to the disk."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from app.errors import InvalidRequest, UploadTooLarge

#: Text fields of a request, each value of a list counted; OpenAI's have at most 16 names.
MAX_FIELDS = 64
#: Bytes of all text fields together; a prompt is a few hundred.
MAX_FIELD_BYTES = 256 * 1024


@dataclass(slots=True)
class Form:
    """What came besides the file: text fields by name (``[]`` taken off), in order; and whether a file came."""

    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    has_file: bool = False

    def last(self, name: str) -> str:
        """The field's last value, stripped; "" where there is none."""
        values = self.fields.get(name)
        return values[-1].strip() if values else ""

    def add(self, name: str, value: str) -> None:
        self.fields[name.removesuffix("[]")].append(value)

    def begin_file(self, param: str = "file") -> None:
        """Note that the file begins. Raises ``InvalidRequest`` for a second one."""
        if self.has_file:
            raise InvalidRequest("Send one file a request.", param=param)
        self.has_file = True


class Sink:
    """Bytes of the file between the parser and the disk. ``add`` raises ``UploadTooLarge`` past ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.pending = bytearray()
        self._max_bytes = max_bytes
        self._taken = 0

    def add(self, data: bytes) -> None:
        self.pending += data
        if self._taken + len(self.pending) > self._max_bytes:
            raise too_large(self._max_bytes)

    def take(self) -> bytes:
        taken, self.pending = bytes(self.pending), bytearray()
        self._taken += len(taken)
        return taken


class Body(Protocol):
    """A parser of one kind of body: file bytes go to its sink, all else into ``form``, whole after ``finish``.

    Both raise ``InvalidRequest`` for what cannot be understood, ``UploadTooLarge`` for a file over the limit.
    """

    @property
    def form(self) -> Form: ...

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


def too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"The file is larger than this server's limit of {max_bytes // 2**20} MiB.", param="file")
