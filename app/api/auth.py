"""The key check: a middleware in front of every route but the few that are open."""

from __future__ import annotations

import hashlib
import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import docs
from app.api.errors import error_response
from app.errors import Forbidden, Unauthorized
from app.settings import Settings

#: Answered without a key: they say nothing but that the server lives, and what its API is.
OPEN_PATHS = frozenset({"/health", "/ready"}) | docs.OPEN_PATHS


class KeyMiddleware:
    """Lets a request pass that carries ``key`` or ``admin_key`` as a Bearer token, ``api-key`` or ``x-api-key``.

    Without a ``key`` every request passes, and the admin key only says who may manage models.
    """

    def __init__(self, app: ASGIApp, key: SecretStr | None, admin_key: SecretStr | None) -> None:
        self._app = app
        self._key = _digest(key.get_secret_value().encode()) if key else None
        self._admin_key = _digest(admin_key.get_secret_value().encode()) if admin_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            offered = _offered(Headers(scope=scope))
            # Digests of equal length: the time to compare says nothing, and a non-ASCII byte is no error.
            admin = self._admin_key is not None and hmac.compare_digest(offered, self._admin_key)
            user = self._key is not None and hmac.compare_digest(offered, self._key)
            is_open = self._key is None or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"
            if not (admin or user or is_open):
                await error_response(Unauthorized("The API key is missing or wrong."))(scope, receive, send)
                return
            owner = offered if admin else self._key or b""
            has_key = admin or user or self._key is None
            scope = {**scope, "owner": owner.hex()[:16], "admin": admin, "has_key": has_key}
        await self._app(scope, receive, send)


def require_admin(request: Request, settings: Settings) -> None:
    """Raises ``Forbidden`` unless the request came with the admin key."""
    if settings.admin_key is None:
        raise Forbidden(
            "Models cannot be managed over HTTP here: set WHISPERD_ADMIN_KEY on the server, and send that key."
        )
    if not request.scope.get("admin"):
        raise Forbidden("Only the admin key may manage models: send what WHISPERD_ADMIN_KEY is on the server.")


def owner_of(request: Request) -> str:
    """Whose key the request came with, as a mark that says nothing of the key; "" where none is wanted."""
    return str(request.scope.get("owner", ""))


def has_key(request: Request) -> bool:
    """Whether the request may know what the server holds: it came with the key, or none is wanted."""
    return bool(request.scope.get("has_key", True))


def _offered(headers: Headers) -> bytes:
    """The digest of the key that a request carries."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = token if scheme.lower() == "bearer" else headers.get("api-key", headers.get("x-api-key", ""))
    return _digest(offered.strip().encode("latin-1", "replace"))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
