"""The documentation page: everything it loads is on this server, and open."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.conftest import Server, StartServer


@pytest.fixture(scope="module")
def locked(start_server: StartServer) -> Server:
    return start_server(backend="fake", model="{}", env={"WHISPERD_API_KEY": "open-sesame"})


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r"""(?:src|href)="([^"]*)"|url: '([^']*)'""", page.text)
    addresses = ["".join(each) for each in loaded]
    assert len(addresses) >= 4
    assert all(address.startswith("/docs/") for address in addresses)


def test_what_the_page_loads_is_there_without_a_key(locked: Server) -> None:
    kinds = {
        "/docs": "text/html",
        "/docs/openapi.json": "application/json",
        "/docs/swagger-ui-bundle.js": "text/javascript",
        "/docs/swagger-ui.css": "text/css",
        "/docs/favicon.png": "image/png",
    }
    for path, kind in kinds.items():
        response = httpx.get(locked.url + path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
    assert httpx.get(f"{locked.url}/openapi.json").status_code == 401


def test_the_pages_document_is_the_servers_and_takes_files(server: Server) -> None:
    document = httpx.get(f"{server.url}/docs/openapi.json").json()
    assert document == httpx.get(f"{server.url}/openapi.json").json()
    form = document["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["file"]["format"] == "binary"
    # The page's Authorize button.
    assert document["components"]["securitySchemes"]


def test_nothing_else_lies_beside_the_pages_files(server: Server) -> None:
    for path in ("/docs/redoc.standalone.js", "/docs/../pyproject.toml", "/docs/%2e%2e/core.py"):
        assert httpx.get(server.url + path).status_code == 404
