"""A multipart form, as all SDKs send it, read with python-multipart's streaming parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.form import MAX_FIELD_BYTES, MAX_FIELDS, Form, Sink
from app.errors import InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: Bytes of a part's headers; a file's name can be long, but not that long.
_MAX_HEADER_BYTES = 16 * 1024


class MultipartBody:
    """The part named ``file`` is the file, whatever its file name and content type; every other part is a field."""

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        self.form = Form()
        self._sink = sink
        self._complete = False
        self._field_bytes = 0
        self._parts = 0
        self._header_bytes = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        try:
            self._parser = MultipartParser(boundary, self._callbacks(), max_header_size=_MAX_HEADER_BYTES)
        except FormParserError as error:
            raise InvalidRequest("The form's boundary cannot be used.") from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The body is not well-formed multipart/form-data.") from error

    def finish(self) -> None:
        # An end that is missing is no error to the parser.
        if not self._complete:
            raise InvalidRequest("The body ends before the form does.")

    def _callbacks(self) -> MultipartCallbacks:
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
        if self._parts > MAX_FIELDS:
            raise InvalidRequest(f"The form has more than {MAX_FIELDS} parts.")
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
        if self._is_file:
            self.form.begin_file()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._sink.add(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > MAX_FIELD_BYTES:
            raise InvalidRequest("The form's fields are too long.", param=self._name[:64] or None)
        self._value += data[start:end]

    def _part_end(self) -> None:
        if not self._is_file:
            self.form.add(self._name, self._value.decode("utf-8", "replace"))

    def _end(self) -> None:
        self._complete = True
