"""Several keys on one server: who sees what, who may how much, and what follows when one is made or revoked."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, StartServer, clips, script_of, wait_for

CLIP = clips("en000")[0]
URL = "/v1/audio/transcriptions"


class Keys:
    """``whisperd keys`` on one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "app", "keys", *words, "--keys-file", str(self.path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


@pytest.fixture
def slow(start_server: StartServer, tmp_path: Path, keys: Keys) -> Iterator[Server]:
    """Every step takes so long that a busy machine sees a request under way."""
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=2), keys_file=keys.path)
    yield server
    server.stop()


@pytest.fixture
def quick(start_server: StartServer, keys: Keys) -> Iterator[Server]:
    server = start_server(backend="fake", model="{}", keys_file=keys.path)
    yield server
    server.stop()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def post(server: Server, key: str, **headers: str) -> httpx.Response:
    with CLIP.path.open("rb") as file:
        return httpx.post(f"{server.url}{URL}", files={"file": file}, headers=bearer(key) | headers, timeout=60)


def status(server: Server, key: str = "", path: str = "/v1/models") -> int:
    return httpx.get(f"{server.url}{path}", headers=bearer(key) if key else {}).status_code


def test_a_key_that_is_made_locks_a_running_server_and_one_that_is_revoked_opens_no_longer(
    quick: Server, keys: Keys
) -> None:
    assert status(quick) == 200, "on this machine alone none is needed"
    phone, tablet = keys("add", "phone"), keys("add", "tablet")
    assert [status(quick, key) for key in ("", "wrong", phone, tablet)] == [401, 401, 200, 200]
    keys("revoke", "phone")
    assert [status(quick, key) for key in (phone, tablet)] == [401, 200]
    assert post(quick, phone).status_code == 401
    log = quick.log.read_text()
    assert phone not in log
    assert tablet not in log


def test_a_server_for_others_stays_locked_without_any_key(
    start_server: StartServer, tmp_path: Path, keys: Keys
) -> None:
    phone = keys("add", "phone")
    server = start_server(backend="fake", model=script_of(tmp_path), keys_file=keys.path, host="0.0.0.0")
    assert [status(server, key) for key in ("", phone)] == [401, 200]
    keys("revoke", "phone")
    assert [status(server, key) for key in ("", phone)] == [401, 401]
    assert status(server, path="/health") == 200
    server.stop()


def test_jobs_results_and_the_queue_belong_to_their_key(slow: Server, keys: Keys) -> None:
    ada, bob = keys("add", "ada"), keys("add", "bob")
    job = post(slow, ada, Prefer="respond-async").json()["id"]
    wait_for(lambda: len(httpx.get(f"{slow.url}/v1/queue", headers=bearer(ada)).json()["data"]) == 1, 10, slow.log)
    assert httpx.get(f"{slow.url}/v1/queue", headers=bearer(bob)).json()["data"] == []
    assert httpx.get(f"{slow.url}/v1/jobs", headers=bearer(bob)).json()["data"] == []
    for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        assert httpx.request(method, f"{slow.url}/v1/jobs/{job}{path}", headers=bearer(bob)).status_code == 404
    (entry,) = httpx.get(f"{slow.url}/v1/queue", headers=bearer(ada)).json()["data"]
    assert httpx.delete(f"{slow.url}/v1/queue/{entry['id']}", headers=bearer(bob)).status_code == 404
    wait_for(lambda: status(slow, ada, f"/v1/jobs/{job}/result") == 200, 20, slow.log)


def test_two_keys_share_no_work_and_no_result(start_server: StartServer, tmp_path: Path, keys: Keys) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path), keys_file=keys.path, retry_keep_s=60)
    ada, bob = keys("add", "ada"), keys("add", "bob")
    for key in (ada, ada, bob, bob):
        assert post(server, key).status_code == 200
    metrics = httpx.get(f"{server.url}/metrics", headers=bearer(ada)).text
    assert 'whisperd_jobs_total{outcome="ok"} 2.0' in metrics, "each did it once"
    assert 'whisperd_jobs_joined_total{met="finished"} 2.0' in metrics
    server.stop()


def test_what_each_key_used_is_in_the_metrics_by_its_name(quick: Server, keys: Keys) -> None:
    ada, _ = keys("add", "ada"), keys("add", "bob")
    assert post(quick, ada).status_code == 200
    metrics = httpx.get(f"{quick.url}/metrics", headers=bearer(ada)).text
    (line,) = [line for line in metrics.splitlines() if line.startswith('whisperd_key_audio_seconds_total{key="ada"}')]
    assert float(line.split()[-1]) == pytest.approx(CLIP.duration, abs=0.1)
    assert "key=ada" in quick.log.read_text()
    assert ada not in metrics


def test_a_key_may_have_so_many_requests_at_once_and_no_other_is_disturbed(slow: Server, keys: Keys) -> None:
    ada, bob = keys("add", "ada", "--max-jobs", "1"), keys("add", "bob")
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(post(slow, ada)))
    first.start()

    def at_once() -> bool:
        return 'whisperd_key_requests{key="ada"} 1.0' in httpx.get(f"{slow.url}/metrics", headers=bearer(bob)).text

    wait_for(at_once, 10, slow.log)
    refused = post(slow, ada)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "1 request at once" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert post(slow, bob).status_code == 200
    first.join()
    assert answers[0].status_code == 200
    assert post(slow, ada).status_code == 200


def test_jobs_on_disk_count_with_those_at_once(slow: Server, keys: Keys) -> None:
    ada = keys("add", "ada", "--max-jobs", "1")
    assert post(slow, ada, Prefer="respond-async").status_code == 202
    with clips("en001")[0].path.open("rb") as file:
        refused = httpx.post(
            f"{slow.url}{URL}", files={"file": file}, headers=bearer(ada) | {"Prefer": "respond-async"}
        )
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_a_key_may_send_so_many_requests_a_minute(quick: Server, keys: Keys) -> None:
    ada = keys("add", "ada", "--max-rpm", "2")
    assert [post(quick, ada).status_code for _ in range(2)] == [200, 200]
    refused = post(quick, ada)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "2 requests a minute" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert status(quick, ada) == 200, "what costs nothing is not counted"


def test_an_admin_key_manages_models_and_others_do_not(quick: Server, keys: Keys) -> None:
    ada, boss = keys("add", "ada"), keys("add", "boss", "--admin")

    def remove(key: str) -> int:
        return httpx.delete(f"{quick.url}/v1/models/nothing", headers=bearer(key)).status_code

    assert [remove(ada), remove(boss)] == [403, 404]


ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/micro"),
    ("DELETE", "/v1/models/micro"),
    ("POST", "/v1/models/micro/pull"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
    ("POST", "/inference"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/x"),
    ("GET", "/v1/jobs/x/result"),
    ("DELETE", "/v1/jobs/x"),
    ("GET", "/v1/queue"),
    ("DELETE", "/v1/queue/x"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
    ("GET", "//v1//models"),
    ("GET", "/health/../v1/models"),
    ("PATCH", "/v1/models"),
]
WRONG = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "no scheme": {"Authorization": "wrong"},
    "basic": {"Authorization": "Basic d3Jvbmc6d3Jvbmc="},
    "not ascii": {"Authorization": "Bearer \xe9\xff"},
    "long": {"x-api-key": "x" * 60_000},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_route_but_the_open_ones_wants_the_key(locked: Server, wrong: str) -> None:
    raw = [(name, value.encode("latin-1")) for name, value in WRONG[wrong].items()]
    with httpx.Client(base_url=locked.url) as client:
        for method, path in ROUTES:
            response = client.request(method, path, headers=raw)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key"), (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/ready", "/docs"):
            assert client.get(path, headers=raw).status_code == 200
        assert client.get("/health", headers=raw).json() == {"status": "ok"}, "the status alone"
        assert client.options("/v1/models", headers=raw).status_code not in (401, 500)


@pytest.fixture(scope="module")
def locked(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("locked")
    return start_server(backend="fake", model=script_of(folder), env={"WHISPERD_API_KEY": "correct horse"})
