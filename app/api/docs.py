"""``/docs``: Swagger UI, from files on this machine alone; FastAPI's own page loads it from a CDN.

Everything here is open without a key, the document too: it is the one that is committed with the source, and says
nothing of this server but its version. (``/openapi.json`` wants the key, as every other route does.) What the page
then sends needs the key: its "Authorize" button takes it.
"""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

_PAGE = "/docs"
_DOCUMENT = "/docs/openapi.json"
#: Path -> file of fastapi-offline (of which only these are used: Swagger UI's own build) and its media type.
_FILES = {
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css"),
    "/docs/favicon.png": ("favicon.png", "image/png"),
}
#: Answered without a key.
OPEN_PATHS = frozenset({_PAGE, _DOCUMENT, *_FILES})

#: The browser refuses whatever would leave this server, whoever wrote it into a document or a script. Swagger UI is
#: started by an inline script, styles its own elements and shows its icons from ``data:``.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: A day: the files change only with a new version of whisperd.
_CACHE = "public, max-age=86400"


def install(app: FastAPI) -> None:
    """Serve the page and its files; they are no part of the OpenAPI document."""
    app.add_api_route(_PAGE, _page, methods=["GET"], include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route(_DOCUMENT, _document, methods=["GET"], include_in_schema=False, response_class=JSONResponse)
    for path in _FILES:
        app.add_api_route(path, _file, methods=["GET"], include_in_schema=False, response_class=Response)


async def _page(request: Request) -> HTMLResponse:
    # Behind a proxy that serves us under a prefix, the browser needs the prefix too.
    root = request.scope.get("root_path", "").rstrip("/")
    page = get_swagger_ui_html(
        openapi_url=root + _DOCUMENT,
        title="whisperd: the API",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
        swagger_ui_parameters={
            "tryItOutEnabled": True,
            "displayRequestDuration": True,
            # The online validator, to which the page would send the document's address.
            "validatorUrl": None,
        },
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


async def _document(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


def _file(request: Request) -> Response:
    name, media_type = _FILES[request.scope["route"].path]
    content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": _CACHE})
