"""Wyoming's events, read with bounds: the library's own reader waits for as many bytes as an event says it has."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from wyoming.event import Event

from app.errors import InvalidRequest

#: Bytes of an event's first line, of the JSON behind it, and of its payload: a chunk is some 2 KiB of sound.
LINE, _DATA, _PAYLOAD = 64 * 1024, 64 * 1024, 2**20
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})")


class Reader(asyncio.StreamReader):
    """A stream that says when its client has left, while nobody reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, loop=asyncio.get_running_loop())
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()


@dataclass(frozen=True, slots=True)
class Incoming:
    """``version`` is that of the client's library, (0, 0) where it does not say."""

    event: Event
    version: tuple[int, int]


async def read_event(reader: asyncio.StreamReader) -> Incoming | None:
    """The next event; None where the stream ends. Raises ``InvalidRequest`` for what is none, or too large, before it
    is read, and ``EOFError`` for one that breaks off.
    """
    try:
        line = await reader.readline()
    except ValueError:
        raise _bad(f"its first line is longer than {LINE} bytes") from None
    if not line:
        return None
    header = _object(line)
    kind, data = header.get("type"), header.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise _bad("it has no type")
    if size := _length(header, "data_length", _DATA):
        data = {**data, **_object(await reader.readexactly(size))}
    payload = None
    if size := _length(header, "payload_length", _PAYLOAD):
        payload = await reader.readexactly(size)
    version = _VERSION.match(str(header.get("version")))
    return Incoming(Event(kind, data, payload), (int(version[1]), int(version[2])) if version else (0, 0))


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _bad("it is no JSON object")
    return found


def _length(header: dict[str, Any], name: str, most: int) -> int:
    size = header.get(name) or 0
    if type(size) is not int or not 0 <= size <= most:
        raise _bad(f"its {name} is not a number from 0 to {most}")
    return size


def _bad(reason: str) -> InvalidRequest:
    return InvalidRequest(f"This is no event of the Wyoming protocol: {reason}.")
