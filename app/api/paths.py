"""The paths that people paste: with and without ``/v1``, with ``/v1`` twice, with slashes too many.

One spelling reaches what is behind: the key check, the routes and their errors all see the path as it is served.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile(r"/{2,}")
_VERSIONS = re.compile(r"^(/v1)+(?=/|$)")
#: OpenAI's paths, which some base URLs lack the version of.
_API = re.compile(r"^/(audio|jobs|models|queue)(?=/|$)")
#: A whole URL pasted where a base URL was asked for, so that the client added the rest once more.
_TWICE = re.compile(r"^/v1/audio/(?:transcriptions|translations)(?:/v1)*(?=/audio/(?:transcriptions|translations)$)")
#: whisper.cpp's server has one path for all its work.
_ALIASES = {"/inference": "/v1/audio/transcriptions", "/v1/inference": "/v1/audio/transcriptions"}


class PathMiddleware:
    """Hands the request on with its path in the one spelling that is served."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = served_path(scope["path"])
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        await self._app(scope, receive, send)


def served_path(path: str) -> str:
    """``path`` as it is served; one that nothing is served at only loses its superfluous slashes and versions.

    The result is a fixed point: it is its own served path.
    """
    path = _SLASHES.sub("/", path).rstrip("/") or "/"
    path = _VERSIONS.sub("/v1", path)
    path = _API.sub(r"/v1/\1", path)
    path = _TWICE.sub("/v1", path)
    return _ALIASES.get(path, path)
