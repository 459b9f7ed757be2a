"""The page at ``/``: files of ``app/web``, open without a key. They hold nothing of this server; what the page then
asks for needs the key.

The files are read once. Browsers keep them, and ask each time whether they are still the same.
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotFound
from app.languages import LANGUAGES

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Where the languages that Whisper knows go in index.html.
_LANGUAGES = "<!-- languages -->"

#: The browser refuses whatever would leave this server or stand in a script of somebody else. ``blob:`` is the
#: recording that the page plays, which never left the browser.
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; "
        "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


@cache
def _files() -> dict[str, _File]:
    """Path -> file."""
    found = {}
    for entry in resources.files("app").joinpath("web").iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes().replace(_LANGUAGES.encode(), _options().encode())
            path = "/" if entry.name == "index.html" else f"/web/{entry.name}"
            found[path] = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def _options() -> str:
    """The languages as ``<option>``s, by their English names."""
    named = sorted((name.title(), code) for code, name in LANGUAGES.items())
    return "".join(f'<option value="{html.escape(code)}">{html.escape(name)}</option>' for name, code in named)


#: Answered without a key.
OPEN_PATHS = frozenset(_files())


def install(app: FastAPI) -> None:
    """Serve the page and its files; they are no part of the OpenAPI document."""
    for path in ("/", "/web/{name}"):
        app.add_api_route(path, _file, methods=["GET", "HEAD"], include_in_schema=False, response_class=Response)


async def _file(request: Request) -> Response:
    name = request.path_params.get("name")
    file = _files().get(f"/web/{name}" if name else "/")
    if file is None:
        raise NotFound("There is no such file.")
    headers = {**_HEADERS, "ETag": file.etag}
    # A proxy that compresses makes the tag a weak one.
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
