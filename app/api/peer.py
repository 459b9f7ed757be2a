"""What a client says, read by h11 and stricter; a fault is kept, for uvicorn would answer it in plain text."""

from __future__ import annotations

import h11

#: Chunks of a body, and the bytes that they must hold on average where there are more: each costs as much as a big one.
_MANY_CHUNKS, _CHUNK_BYTES = 10_000, 16


class Peer(h11.Connection):
    """h11's connection; after a ``fault`` nothing more comes of it."""

    fault = False
    _chunks = _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.fault:
            return h11.NEED_DATA
        try:
            event = super().next_event()
        except h11.RemoteProtocolError:
            self.fault = True
            return h11.NEED_DATA
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            self.fault = self._chunks > _MANY_CHUNKS and self._bytes < self._chunks * _CHUNK_BYTES
        elif isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            self.fault = _is_ambiguous(event)
        return h11.NEED_DATA if self.fault else event


def _is_ambiguous(request: h11.Request) -> bool:
    """Whether another server on the way may have seen another end of the body (RFC 9112, 6.1): h11 takes the chunks."""
    names = {name for name, _ in request.headers}
    return b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1")
