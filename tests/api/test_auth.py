from __future__ import annotations

import httpx
import pytest

from tests.conftest import Server, StartServer

KEY = "correct horse"


@pytest.fixture(scope="module")
def locked(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    script = tmp_path_factory.mktemp("fake") / "script.json"
    script.write_text("{}")
    return start_server(backend="fake", model=script, env={"WHISPERD_API_KEY": KEY})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer \xe9"},
        {"api-key": "x" * 10_000},
    ],
    ids=["none", "empty", "wrong", "not ascii", "long"],
)
def test_without_the_key_there_is_a_401(locked: Server, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        response = httpx.get(f"{locked.url}{path}", headers=raw)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"api-key": KEY}, {"X-API-Key": KEY}])
def test_the_key_opens_by_any_of_its_headers(locked: Server, headers: dict[str, str]) -> None:
    assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 200


def test_health_and_ready_are_open(locked: Server) -> None:
    assert httpx.get(f"{locked.url}/health").status_code == 200
    assert httpx.get(f"{locked.url}/ready").status_code == 200


def test_the_key_is_in_no_log(locked: Server) -> None:
    assert KEY not in locked.log.read_text()
