"""The web page's files over plain HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from app.api import page
from app.languages import LANGUAGES
from tests.conftest import Server, StartServer

WEB = Path(page.__file__).parents[1] / "web"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASSETS = sorted(path for path in WEB.iterdir() if path.suffix in KINDS)


def test_the_page_is_html_with_strict_headers(server: Server) -> None:
    response = httpx.get(f"{server.url}/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["permissions-policy"] == "microphone=(self)"


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_each_file_is_sent_as_it_lies_there(server: Server, path: Path) -> None:
    response = httpx.get(f"{server.url}/web/{path.name}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(KINDS[path.suffix])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.content == path.read_bytes()


def test_all_that_files_refer_to_is_there(server: Server) -> None:
    text = httpx.get(f"{server.url}/").text
    wanted = set(re.findall(r'(?:src|href)="web/([^"]+)"', text))
    for path in ASSETS:
        wanted |= set(re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8")))
    assert len(wanted) > 5
    assert wanted <= {path.name for path in ASSETS}


def test_a_browser_that_has_a_file_is_told_so(server: Server) -> None:
    first = httpx.get(f"{server.url}/web/main.js")
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = httpx.get(f"{server.url}/web/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert httpx.get(f"{server.url}/web/main.js", headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_is_get_without_the_body(server: Server) -> None:
    for path in ("/", "/web/style.css"):
        head, get = httpx.head(server.url + path), httpx.get(server.url + path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag"):
            assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/web/nothing.js",
        "/web/index.html",
        "/web/",
        "/web/../settings.py",
        "/web/%2e%2e/settings.py",
        "/web/..%2fsettings.py",
        "/web/%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/web//etc/passwd",
        "/web/main.js%00",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    response = httpx.get(httpx.URL(server.url).copy_with(raw_path=path.encode()))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_all_of_the_page_is_open_without_a_key_and_nothing_more(start_server: StartServer) -> None:
    server = start_server(backend="fake", model="{}", env={"WHISPERD_API_KEY": "open-sesame"})
    for path in ("/", *(f"/web/{asset.name}" for asset in ASSETS)):
        assert httpx.get(server.url + path).status_code == 200
    for path in ("/web/nothing.js", "/v1/models", "/v1/queue", "/v1/jobs"):
        assert httpx.get(server.url + path).status_code == 401
    server.stop()


def test_the_page_lists_all_languages(server: Server) -> None:
    listed = httpx.get(f"{server.url}/").text.partition('id="language"')[2].partition("</select>")[0]
    options = re.findall(r'<option value="([a-z]{2,3})">([^<]+)</option>', listed)
    assert {code: name.lower() for code, name in options} == LANGUAGES
    assert [name for _, name in options] == sorted(name for _, name in options)


def test_the_page_is_no_part_of_the_api(server: Server) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert not {path for path in paths if path == "/" or path.startswith("/web")}


def test_metrics_count_the_files_by_their_route(server: Server) -> None:
    for path in ("/", "/web/main.js", "/web/nothing-of-this-name.js"):
        httpx.get(server.url + path)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'route="/",' in metrics
    assert 'route="/web/{name}",' in metrics
    assert "nothing-of-this-name" not in metrics
