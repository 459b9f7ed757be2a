"""The upload: a body of any kind streamed into its folder, its bytes counted as they come.

Read from the request's stream rather than with ``request.form()`` or ``request.json()``, so that the file goes
straight to where the decoder reads it, an over-long body is refused while it arrives, memory stays flat, and no error
is turned into FastAPI's bare 400.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from typing import IO, TYPE_CHECKING

import anyio
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.api.form import MAX_FIELD_BYTES, MAX_FIELDS, Body, Form, Sink, too_large
from app.api.json_body import JsonBody
from app.api.multipart import MultipartBody
from app.engine.admission import Upload
from app.errors import InvalidRequest, StorageFull

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

#: Room in the body for all that is not the file: fields, headers, boundaries.
_OVERHEAD = MAX_FIELD_BYTES + 1024 * 1024
#: Bytes gathered before they are written, so that the event loop hands the disk a few large writes.
_WRITE_BYTES = 1024 * 1024
#: Bytes after which a body without a telling content type is known for audio or text: every container's magic is
#: in them, and no sound is all letters for so long.
_HEAD_BYTES = 512
#: Content types of bodies that are the audio itself.
_AUDIO_TYPES = re.compile(rb"(audio|video)/.+|application/(octet-stream|ogg|mp4|x-matroska)")
_JSON_TYPES = re.compile(rb"(application|text)/(.+\+)?json")
#: Fields of our own that may come as headers, ``X-Priority: background``, from clients whose form is fixed.
_HEADER_FIELDS = ("x_priority", "x_heartbeat")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]*")
_WHAT_TO_SEND = "Send the audio as multipart/form-data with a part named 'file'"


def announced(request: Request) -> int:
    """Bytes of the body as its head says; 0 where it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


async def receive(request: Request, upload: Upload, max_bytes: int) -> Form:
    """Read the body: its audio into the upload, with its digest, its other fields into the form returned.

    The body is a multipart form with a part ``file``; or JSON with ``input_audio``; or the audio itself. Fields may
    also stand in the query string, a few in headers; those of the body win. Raises ``UploadTooLarge`` once more than
    ``max_bytes`` of audio have come (or are announced), ``InvalidRequest`` for a body that cannot be understood,
    ``QueueFull`` or ``StorageFull`` where there is no room for it.
    """
    sink = Sink(max_bytes)
    body = _body(request.headers.get("content-type", ""), sink)
    # Base64 makes four bytes of three, escapes and line ends a few more.
    most = max_bytes + _OVERHEAD if isinstance(body, MultipartBody | RawBody) else max_bytes * 3 // 2 + _OVERHEAD
    if announced(request) > most:
        raise too_large(max_bytes)
    arrived, digest = 0, sha256()
    try:
        async with await anyio.open_file(upload.source, "wb", opener=_private) as file:
            async for chunk in request.stream():
                arrived += len(chunk)
                if arrived > most:
                    raise too_large(max_bytes)
                upload.grow(arrived)
                body.write(chunk)
                if len(sink.pending) >= _WRITE_BYTES:
                    await anyio.to_thread.run_sync(_store, file.wrapped, digest, sink.take())
            body.finish()
            await anyio.to_thread.run_sync(_store, file.wrapped, digest, sink.take())
            upload.resize(file.wrapped.tell())
    except OSError as error:
        raise StorageFull.of(error) from error
    upload.digest = digest.hexdigest()
    _add_fields(body.form, request)
    return body.form


def _store(file: IO[bytes], digest: Hash, data: bytes) -> None:
    file.write(data)
    digest.update(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _add_fields(form: Form, request: Request) -> None:
    """Take fields from the query string and the headers that the body does not have."""
    given = request.query_params.multi_items()
    if len(given) > MAX_FIELDS:
        raise InvalidRequest(f"The query string has more than {MAX_FIELDS} fields.")
    given += [(name, value) for name in _HEADER_FIELDS if (value := request.headers.get(name.replace("_", "-")))]
    in_body = frozenset(form.fields)
    for name, value in given:
        if name.removesuffix("[]") not in in_body:
            form.add(name, value)


def _body(content_type: str, sink: Sink) -> Body:
    kind, parameters = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        if not parameters.get(b"boundary"):
            message = "The Content-Type names no boundary; leave that header to your HTTP library."
            raise InvalidRequest(message, param="file")
        return MultipartBody(parameters[b"boundary"], sink)
    if kind.startswith(b"multipart/"):
        raise InvalidRequest(f"{_WHAT_TO_SEND}.", param="file")
    if _JSON_TYPES.fullmatch(kind):
        return JsonBody(sink)
    if _AUDIO_TYPES.fullmatch(kind):
        return RawBody(sink)
    return UntypedBody(sink)


class RawBody:
    """The audio itself, as ``curl --data-binary`` sends it."""

    def __init__(self, sink: Sink) -> None:
        self.form = Form(has_file=True)
        self._sink = sink

    def write(self, chunk: bytes) -> None:
        self._sink.add(chunk)

    def finish(self) -> None:
        pass


class UntypedBody:
    """A body whose content type says nothing (curl calls anything a form): its first bytes choose the parser."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head = b""
        self._chosen: Body | None = None

    @property
    def form(self) -> Form:
        return self._chosen.form if self._chosen else Form()

    def write(self, chunk: bytes) -> None:
        if self._chosen is None:
            self._head += chunk
            if len(self._head) < _HEAD_BYTES:
                return
            chunk = self._head
            self._chosen = self._choose()
        self._chosen.write(chunk)

    def finish(self) -> None:
        if self._chosen is None:
            self._chosen = self._choose()
            self._chosen.write(self._head)
        self._chosen.finish()

    def _choose(self) -> Body:
        head = self._head[:_HEAD_BYTES]
        if head.lstrip().startswith(b"{"):
            return JsonBody(self._sink)
        if _TEXT.fullmatch(head):
            message = f"{_WHAT_TO_SEND}, as JSON with input_audio, or as the whole body with its own Content-Type."
            raise InvalidRequest(message, param="file")
        return RawBody(self._sink)
