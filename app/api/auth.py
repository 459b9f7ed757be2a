"""The key check: a middleware in front of every route but the few that are open."""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import docs
from app.api.errors import error_response
from app.errors import Unauthorized

#: Answered without a key: they say nothing but that the server lives, and what its API is.
OPEN_PATHS = frozenset({"/health", "/ready"}) | docs.OPEN_PATHS


class KeyMiddleware:
    """Lets a request pass that carries ``key`` as a Bearer token, ``api-key`` or ``x-api-key``."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key.encode())
        self._owner = self._digest.hex()[:16]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_key = scope["type"] == "http" and self._has_key(scope)
        if scope["type"] == "http" and not has_key and not _is_open(scope):
            await error_response(Unauthorized("The API key is missing or wrong."))(scope, receive, send)
            return
        await self._app({**scope, "owner": self._owner, "has_key": has_key}, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        offered = token if scheme.lower() == "bearer" else headers.get("api-key", headers.get("x-api-key", ""))
        # Digests of equal length: the time to compare says nothing, and a non-ASCII byte is no error.
        return hmac.compare_digest(_digest(offered.strip().encode("latin-1", "replace")), self._digest)


def owner_of(request: Request) -> str:
    """Whose key the request came with, as a mark that says nothing of the key; "" where none is wanted."""
    return str(request.scope.get("owner", ""))


def has_key(request: Request) -> bool:
    """Whether the request may know what the server holds: it came with the key, or none is wanted."""
    return bool(request.scope.get("has_key", True))


def _is_open(scope: Scope) -> bool:
    return scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
