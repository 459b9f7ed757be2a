"""The key check: a middleware in front of every route but the few that are open."""

from __future__ import annotations

from typing import cast

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import docs, page
from app.api.errors import error_response
from app.errors import Forbidden, Unauthorized
from app.keys import Key, Keyring

#: Answered without a key: they say nothing but that the server lives, what its API is, and how its page looks.
OPEN_PATHS = frozenset({"/health", "/ready"}) | docs.OPEN_PATHS | page.OPEN_PATHS


class KeyMiddleware:
    """Lets a request pass that carries one of the keys as a Bearer token, ``api-key`` or ``x-api-key``.

    Where the keyring has none but admins' and none is ``wanted``, every request passes, and an admin key only says who
    may manage models.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, *, wanted: bool) -> None:
        self._app = app
        self._keyring = keyring
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            key = self._keyring.find(_offered(Headers(scope=scope)))
            wanted = self._wanted or any(not each.admin for each in self._keyring.keys)
            if key is None and wanted and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
                await error_response(Unauthorized("The API key is missing or wrong."))(scope, receive, send)
                return
            scope = {**scope, "key": key, "has_key": key is not None or not wanted}
        await self._app(scope, receive, send)


def require_admin(request: Request, keyring: Keyring) -> None:
    """Raises ``Forbidden`` unless the request came with an admin key."""
    if not any(key.admin for key in keyring.keys):
        raise Forbidden(
            "Models cannot be managed over HTTP here: make an admin key with `whisperd keys add NAME --admin`, or set "
            "WHISPERD_ADMIN_KEY on the server, and send that key."
        )
    key = key_of(request)
    if key is None or not key.admin:
        raise Forbidden("Only an admin key may manage models: send one.")


def key_of(request: Request) -> Key | None:
    """The key that the request came with; None where it came without a right one, and none is wanted."""
    return cast("Key | None", request.scope.get("key"))


def owner_of(request: Request) -> str:
    """Whose key the request came with, as a mark that says nothing of the key; "" where none is wanted."""
    key = key_of(request)
    return key.owner if key else ""


def has_key(request: Request) -> bool:
    """Whether the request may know what the server holds: it came with the key, or none is wanted."""
    return bool(request.scope.get("has_key", True))


def _offered(headers: Headers) -> bytes:
    """The bytes that a request offers as its key, b"" for none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = token if scheme.lower() == "bearer" else headers.get("api-key", headers.get("x-api-key", ""))
    return offered.strip().encode("latin-1", "replace")
