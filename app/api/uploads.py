"""The upload: a multipart body streamed into the job's folder, its bytes counted as they come.

Parsed with python-multipart's streaming parser rather than ``request.form()``, so that the file goes straight to
where the decoder reads it, an over-long body is refused while it arrives, and no error is turned into FastAPI's bare
400.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import InvalidRequest, StorageFull, UploadTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: Text fields of a request; OpenAI's have at most 14, arrays included.
_MAX_FIELDS = 64
#: Bytes of all text fields together; a prompt is a few hundred.
_MAX_FIELD_BYTES = 256 * 1024
#: Bytes of a part's headers; a file's name can be long, but not that long.
_MAX_HEADER_BYTES = 16 * 1024
#: Room in the body for all that is not the file: fields, headers, boundaries.
_OVERHEAD = _MAX_FIELD_BYTES + 1024 * 1024
#: Bytes gathered before they are written, so that the event loop hands the disk a few large writes.
_WRITE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Form:
    """What came besides the file: text fields by name (``[]`` taken off), in order; and whether a file came."""

    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    has_file: bool = False

    def last(self, name: str) -> str:
        """The field's last value, stripped; "" where there is none."""
        values = self.fields.get(name)
        return values[-1].strip() if values else ""


async def receive(request: Request, destination: Path, max_bytes: int) -> Form:
    """Read the body: its ``file`` part into ``destination``, its other parts into the form returned.

    Raises ``UploadTooLarge`` once more than ``max_bytes`` of file have come (or are announced), ``InvalidRequest``
    for a body that is no multipart form, ``StorageFull`` where the disk is.
    """
    content_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise InvalidRequest("Send the audio as multipart/form-data with a part named 'file'.", param="file")
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > max_bytes + _OVERHEAD:
        raise _too_large(max_bytes)
    body = _Body(max_bytes)
    try:
        parser = MultipartParser(parameters[b"boundary"], body.callbacks())
        async with await anyio.open_file(destination, "wb", opener=_private) as file:
            async for chunk in request.stream():
                parser.write(chunk)
                if len(body.pending) >= _WRITE_BYTES:
                    await file.write(body.take())
            parser.finalize()
            await file.write(body.take())
    except FormParserError as error:
        raise InvalidRequest("The body is not well-formed multipart/form-data.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("The server's disk is full.") from error
        raise StorageFull("The server cannot store the upload right now.") from error
    if not body.complete:
        raise InvalidRequest("The body ends before the form does.")
    return body.form


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"The file is larger than this server's limit of {max_bytes // 2**20} MiB.", param="file")


class _Body:
    """The parser's callbacks: file bytes gather in ``pending`` until they are taken, fields in ``form``."""

    def __init__(self, max_bytes: int) -> None:
        self.form = Form()
        self.pending = bytearray()
        self.complete = False
        self._max_bytes = max_bytes
        self._file_bytes = 0
        self._field_bytes = 0
        self._parts = 0
        self._header_bytes = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._value = bytearray()

    def take(self) -> bytes:
        taken, self.pending = bytes(self.pending), bytearray()
        return taken

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_FIELDS:
            raise InvalidRequest(f"The form has more than {_MAX_FIELDS} parts.")
        self._headers, self._header_bytes, self._value = {}, 0, bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise InvalidRequest("A part's headers are too long.")

    def _header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = parameters.get(b"name", b"").decode("utf-8", "replace").removesuffix("[]")
        # Some clients send the file without a file name; its field's name says enough.
        self._is_file = self._name == "file"
        if self._is_file and self.form.has_file:
            raise InvalidRequest("Send one file a request.", param="file")
        self.form.has_file |= self._is_file

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file_bytes += end - start
            if self._file_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            self.pending += data[start:end]
            return
        self._field_bytes += end - start
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise InvalidRequest("The form's fields are too long.")
        self._value += data[start:end]

    def _part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name].append(self._value.decode("utf-8", "replace"))

    def _end(self) -> None:
        self.complete = True
