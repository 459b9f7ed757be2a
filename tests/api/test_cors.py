from __future__ import annotations

import httpx
import pytest

from tests.conftest import Server, StartServer


def preflight(server: Server, origin: str) -> httpx.Response:
    return httpx.options(
        f"{server.url}/v1/audio/transcriptions",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
            "Access-Control-Request-Private-Network": "true",
        },
    )


@pytest.mark.parametrize("origin", ["app://obsidian.md", "capacitor://localhost"])
def test_apps_may_call_from_their_own_origin(server: Server, origin: str) -> None:
    response = preflight(server, origin)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "x-stainless-os" in response.headers["access-control-allow-headers"]
    assert response.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("origin", ["https://example.com", "http://localhost:3000", "null"])
def test_no_web_page_may_call_by_default(server: Server, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(server, origin).headers
    answer = httpx.get(f"{server.url}/health", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_listed_web_origin_may_call_and_needs_no_key_to_ask(start_server: StartServer, tmp_path) -> None:
    (tmp_path / "script.json").write_text("{}")
    server = start_server(
        backend="fake",
        model=tmp_path / "script.json",
        cors_origins="https://notes.example, http://localhost:3000",
        env={"WHISPERD_API_KEY": "long enough"},
    )
    for origin in ("https://notes.example", "http://localhost:3000"):
        assert preflight(server, origin).headers["access-control-allow-origin"] == origin
        refused = httpx.get(f"{server.url}/v1/models", headers={"Origin": origin})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == origin, "the page can read why"
    server.stop()
