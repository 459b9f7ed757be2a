"""A JSON body with the audio inside as base64: ``{"model": …, "input_audio": {"data": "…", "format": "webm"}}``.

The audio is decoded as it comes. The document is walked through only as far as to know where it stands; all of it
but the audio is kept (``MAX_FIELD_BYTES`` at most, so memory is bounded by that) and read by ``json`` at the end,
which also says whether it was JSON at all.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from app.api.form import MAX_FIELD_BYTES, MAX_FIELDS, Form, Sink
from app.errors import InvalidRequest

#: Objects and lists inside each other; a request has three. Deeper ones would only strain ``json``.
_MAX_DEPTH = 32
#: Bytes of "data:audio/webm;codecs=opus;base64," and its like.
_MAX_DATA_URL_HEAD = 256
_MARK = re.compile(rb'["{}\[\]:,]')
_END_OF_STRING = re.compile(rb'["\\]')
_AUDIO = ["input_audio", "data"]


class JsonBody:
    """Each reader takes what it can from a chunk's ``position`` on and says where it stopped."""

    def __init__(self, sink: Sink) -> None:
        self.form = Form()
        self._sink = sink
        self._kept = bytearray()
        self._base64 = Base64()
        self._read = self._between_strings
        #: The key that each open object is at; None for an open list.
        self._path: list[str | None] = []
        self._at_key = False
        self._string_start = 0
        self._escaped = False

    def write(self, chunk: bytes) -> None:
        position = 0
        while position < len(chunk):
            position = self._read(chunk, position)

    def finish(self) -> None:
        if self._read != self._between_strings:
            raise _malformed()
        try:
            document = json.loads(self._kept.decode("utf-8-sig"), parse_constant=_no_such_number)
        except (ValueError, RecursionError) as error:
            raise _malformed() from error
        if not isinstance(document, dict):
            raise InvalidRequest("The JSON body is not an object.")
        if not self.form.has_file:
            message = "The JSON body has no audio: send it in base64 as the text input_audio.data."
            raise InvalidRequest(message, param="input_audio")
        for name, value in document.items():
            if name == _AUDIO[0]:
                continue
            for text in as_fields(value):
                self.form.add(_clean(name), _clean(text))
        if sum(map(len, self.form.fields.values())) > MAX_FIELDS:
            raise InvalidRequest(f"The JSON body has more than {MAX_FIELDS} values.")

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > MAX_FIELD_BYTES:
            raise InvalidRequest("The JSON body is too long besides its audio, which belongs in input_audio.data.")

    def _between_strings(self, chunk: bytes, position: int) -> int:
        mark = _MARK.search(chunk, position)
        end = mark.end() if mark else len(chunk)
        self._keep(chunk[position:end])
        if mark:
            self._pass(mark.group())
        return end

    def _pass(self, mark: bytes) -> None:
        if mark == b'"':
            self._string_start = len(self._kept) - 1
            is_audio = not self._at_key and self._path == _AUDIO
            if is_audio:
                self.form.begin_file("input_audio")
            self._read = self._inside_audio if is_audio else self._inside_string
        elif mark in b"{[":
            self._path.append("" if mark == b"{" else None)
            self._at_key = mark == b"{"
            if len(self._path) > _MAX_DEPTH:
                raise _malformed()
        elif mark in b"}]":
            if self._path:
                self._path.pop()
            self._at_key = False
        else:
            self._at_key = mark == b"," and bool(self._path) and self._path[-1] is not None

    def _inside_string(self, chunk: bytes, position: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(chunk[position : position + 1])
            return position + 1
        mark = _END_OF_STRING.search(chunk, position)
        end = mark.end() if mark else len(chunk)
        self._keep(chunk[position:end])
        self._escaped = mark is not None and mark.group() == b"\\"
        if mark is not None and not self._escaped:
            if self._at_key and self._path:
                self._path[-1] = _as_key(self._kept[self._string_start :])
            self._read = self._between_strings
        return end

    def _inside_audio(self, chunk: bytes, position: int) -> int:
        end = chunk.find(b'"', position)
        if end < 0:
            self._sink.add(self._base64.write(chunk[position:]))
            return len(chunk)
        self._sink.add(self._base64.write(chunk[position:end]) + self._base64.finish())
        self._keep(b'"')
        self._read = self._between_strings
        return end + 1


class Base64:
    """A JSON string's inside as the bytes that its base64 stands for, a piece at a time.

    Tolerated: a data URL's head, JSON's escapes (PHP writes ``\\/``, .NET ``\\u002B``), white space, the URL-safe
    alphabet, missing padding. Anything else raises ``InvalidRequest``.
    """

    def __init__(self) -> None:
        self._escape = b""
        self._head: bytes | None = b""
        self._group = b""
        self._padded = False

    def write(self, piece: bytes) -> bytes:
        return self._decode(self._without_head(self._unescaped(piece)))

    def finish(self) -> bytes:
        if self._escape:
            raise _no_base64()
        decoded = b""
        if self._head is not None:
            head, self._head = self._head, None
            if head.lower().startswith(b"data:"):
                raise _no_base64()
            decoded = self._decode(head)
        return decoded + self._decode(b"=" * (-len(self._group) % 4))

    def _unescaped(self, piece: bytes) -> bytes:
        piece = self._escape + piece
        self._escape = b""
        if b"\\" not in piece:
            return piece
        last = piece.rfind(b"\\")
        if len(piece) - last < (6 if piece[last + 1 : last + 2] == b"u" else 2):
            piece, self._escape = piece[:last], piece[last:]
        try:
            text: str = json.loads(b'"%b"' % piece, strict=False)
        except ValueError as error:
            raise _no_base64() from error
        return text.encode("utf-8", "replace")

    def _without_head(self, text: bytes) -> bytes:
        """``text`` without a data URL's "data:…;base64,", of which the first pieces may be no more than a part."""
        if self._head is None:
            return text
        self._head += text
        start = self._head[:5].lower()
        if len(start) < 5 and b"data:".startswith(start):
            return b""
        if start == b"data:":
            head, comma, text = self._head.partition(b",")
            if not comma and len(head) <= _MAX_DATA_URL_HEAD:
                return b""
            if not head.rstrip().lower().endswith(b";base64"):
                raise _no_base64()
        else:
            text = self._head
        self._head = None
        return text

    def _decode(self, text: bytes) -> bytes:
        text = text.translate(_STANDARD_ALPHABET, _WHITE_SPACE)
        if self._padded and text:
            raise _no_base64()
        text = self._group + text
        whole = len(text) - len(text) % 4
        self._group = text[whole:]
        self._padded = text[:whole].endswith(b"=")
        try:
            return binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error as error:
            raise _no_base64() from error


_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n"


def as_fields(value: Any) -> Iterator[str]:
    """A JSON value as the texts that a multipart form would hold: lists repeat their field, objects are JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield each if isinstance(each, str) else json.dumps(each)
    elif value is not None:
        yield json.dumps(value)


def _as_key(text: bytes | bytearray) -> str:
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise _malformed() from error


def _clean(text: str) -> str:
    # JSON can escape halves of characters, which no other process could read.
    return text.encode("utf-8", "replace").decode()


def _no_such_number(_: str) -> None:
    raise ValueError


def _malformed() -> InvalidRequest:
    return InvalidRequest("The body is not well-formed JSON.")


def _no_base64() -> InvalidRequest:
    return InvalidRequest("The text input_audio.data is not base64.", param="input_audio")
