from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from app import convert
from app.catalog import MICRO_FOLDER
from tests.conftest import Server, StartServer, clips, wait_for, word_error_rate
from tests.hub import Hub

KEY, ADMIN = "correct horse", "battery staple"
CLIP = clips("en000")[0]
TINY, BASE = "Systran/faster-whisper-tiny", "Systran/faster-whisper-base"


def test_the_default_model_is_listed_as_openai_would(server: Server) -> None:
    body = httpx.get(f"{server.url}/v1/models").json()
    assert body["object"] == "list"
    (model,) = [entry for entry in body["data"] if entry["id"] == "micro"]
    assert model["object"] == "model"
    assert isinstance(model["created"], int)
    assert model["owned_by"]


@pytest.mark.parametrize("name", ["micro", "whisper-1", "gpt-4o-transcribe"])
def test_a_model_is_described_by_name_and_by_alias(server: Server, name: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    assert client.models.retrieve(name).id == name


@pytest.mark.parametrize(
    "path", ["mlx-community/whisper-tiny", "mlx-community%2Fwhisper-tiny", "nothing", "../../etc/passwd"]
)
def test_a_model_that_is_not_here_is_a_404(server: Server, path: str) -> None:
    response = httpx.get(f"{server.url}/v1/models/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["message"]


@dataclass
class Managed:
    """A server whose models may be managed, and its hub."""

    server: Server
    hub: type[Hub]
    hub_dir: Path

    def call(self, method: str, path: str, key: str = ADMIN, **more: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **more}
        return httpx.request(method, f"{self.server.url}/v1/models/{path}", headers=headers, timeout=60)

    def pull(self, name: str) -> list[dict]:
        """The events of a pull; the last one's data is not JSON where it went well."""
        response = self.call("POST", f"{name}/pull", Accept="text/event-stream")
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
        return [{"type": line} if line == "[DONE]" else json.loads(line) for line in lines]

    def pull_in_silence(self, name: str) -> None:
        """Have a pull under way that gets no further than the first bytes of the weights; hang up."""
        self.hub.silent_after = 10
        headers = {"Authorization": f"Bearer {ADMIN}"}
        with httpx.stream("POST", f"{self.server.url}/v1/models/{name}/pull", headers=headers) as response:
            assert next(line for line in response.iter_lines() if "model.bin" in line)

    def go_on(self) -> None:
        self.hub.silent_after = None
        self.hub.release.set()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    converted = convert.convert(MICRO_FOLDER, "ctranslate2", tmp_path_factory.mktemp("made") / "micro")
    return {path.name: path.read_bytes() for path in converted.iterdir()}


@pytest.fixture
def manage(
    start_server: StartServer, hub: tuple[str, type[Hub]], tmp_path: Path, weights: dict[str, bytes]
) -> Iterator[Callable[..., Managed]]:
    """Start a server with a hub that has tiny and base; environment as keywords."""
    running: list[Server] = []

    def start(**env: str) -> Managed:
        endpoint, repositories = hub
        repositories.repositories[TINY] = repositories.repositories[BASE] = weights
        keys = {"WHISPERD_API_KEY": KEY, "WHISPERD_ADMIN_KEY": ADMIN}
        env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*", **keys, **env}
        server = start_server(backend="faster-whisper", model="micro", hub_dir=tmp_path / "hub", env=env)
        running.append(server)
        return Managed(server, repositories, tmp_path / "hub")

    yield start
    for server in running:
        hub[1].release.set()
        server.stop()


def refusal(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["message"]


def test_a_model_is_pulled_used_and_removed_with_the_admin_key(manage: Callable[..., Managed]) -> None:
    managed = manage()
    total = sum(map(len, managed.hub.repositories[TINY].values()))
    *progress, done, end = managed.pull("tiny")
    assert {event["type"] for event in progress} == {"model.pull.progress"}
    assert [event["done_bytes"] for event in progress] == sorted(event["done_bytes"] for event in progress)
    assert (progress[-1]["file"], progress[-1]["total_bytes"]) == ("model.bin", total)
    assert (done["type"], done["model"]["id"], end["type"]) == ("model.pull.done", "tiny", "[DONE]")

    client = openai.OpenAI(base_url=f"{managed.server.url}/v1", api_key=ADMIN)
    with CLIP.path.open("rb") as file:
        text = client.audio.transcriptions.create(model="tiny", file=file).text
    assert word_error_rate([CLIP.text], [text]) == 0
    assert refusal(managed.call("DELETE", "tiny")) == (
        409,
        "The model 'tiny' is in use; remove it once another is loaded.",
    )
    with CLIP.path.open("rb") as file:
        client.audio.transcriptions.create(model="micro", file=file, language="en")
    wait_for(lambda: managed.call("DELETE", "tiny").is_success, 30)
    assert "tiny" not in [model.id for model in client.models.list()]
    assert not list(managed.hub_dir.glob("models--*"))
    assert refusal(managed.call("DELETE", "tiny")) == (404, "The model 'tiny' is not downloaded.")


def test_the_answer_to_a_removal_is_openais(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull(BASE)
    client = openai.OpenAI(base_url=f"{managed.server.url}/v1", api_key=ADMIN)
    deleted = client.models.delete(BASE)
    assert (deleted.id, deleted.object, deleted.deleted) == (BASE, "model", True)


def test_who_accepts_json_alone_gets_one_answer_at_the_end(manage: Callable[..., Managed]) -> None:
    managed = manage()
    response = managed.call("POST", "tiny/pull", Accept="application/json")
    assert (response.status_code, response.json()) == (200, {"id": "tiny", "object": "model.pull", "status": "done"})
    assert managed.call("GET", "tiny").is_success
    managed.hub.status = 503
    status, message = refusal(managed.call("POST", "base/pull", Accept="application/json"))
    assert status == 503
    assert message.endswith(f"answered 503, so {BASE} was not downloaded; try it later.")


def test_only_the_admin_key_manages_models(manage: Callable[..., Managed]) -> None:
    managed = manage()
    for method, path in (("POST", "tiny/pull"), ("DELETE", "tiny")):
        status, message = refusal(managed.call(method, path, key=KEY))
        assert (status, message) == (403, "Only an admin key may manage models: send one.")
        assert managed.call(method, path, key="wrong").status_code == 401
    assert managed.hub.seen == []
    assert managed.call("GET", "micro", key=KEY).is_success
    assert ADMIN not in managed.server.log.read_text()


def test_without_an_admin_key_nobody_manages_models(server: Server) -> None:
    for method, path in (("POST", "tiny/pull"), ("DELETE", "micro")):
        response = httpx.request(method, f"{server.url}/v1/models/{path}", headers={"Authorization": "Bearer x"})
        status, message = refusal(response)
        assert status == 403
        assert "whisperd keys add NAME --admin" in message
        assert "WHISPERD_ADMIN_KEY" in message


def test_an_admin_key_alone_locks_nobody_out_of_the_rest(manage: Callable[..., Managed]) -> None:
    managed = manage(WHISPERD_API_KEY="")
    assert managed.call("GET", "micro", key="any").is_success
    assert refusal(managed.call("DELETE", "tiny", key="any"))[0] == 403
    assert refusal(managed.call("DELETE", "tiny"))[0] == 404


def test_what_is_no_download_is_left_alone(manage: Callable[..., Managed]) -> None:
    managed = manage()
    for name in ("micro", "whisper-1"):
        assert refusal(managed.call("DELETE", name))[0] == 400
    assert [event["type"] for event in managed.pull("micro")] == ["model.pull.done", "[DONE]"]


def test_the_default_model_is_not_removed(
    start_server: StartServer, hub: tuple[str, type[Hub]], tmp_path: Path, weights: dict[str, bytes]
) -> None:
    hub[1].repositories[TINY] = weights
    env = {"HF_ENDPOINT": hub[0], "HF_HOME": str(tmp_path), "NO_PROXY": "*", "WHISPERD_ADMIN_KEY": ADMIN}
    server = start_server(backend="faster-whisper", model="tiny", pull=True, hub_dir=tmp_path / "hub", env=env)
    managed = Managed(server, hub[1], tmp_path / "hub")
    for name in ("tiny", TINY, "whisper-1"):
        status, message = refusal(managed.call("DELETE", name))
        assert (status, message) == (409, f"The model {name!r} is this server's default: choose another --model first.")
    assert managed.call("GET", "tiny").is_success

    hub[1].repositories[BASE] = weights
    managed.pull("base")
    shutil.rmtree(managed.hub_dir / f"models--{TINY.replace('/', '--')}")
    assert managed.call("DELETE", "base").is_success, "a default that is gone protects nothing else"
    server.stop()


@pytest.mark.parametrize("name", ["nothing", "a--b/c"])
def test_an_unknown_model_is_a_404_at_once(manage: Callable[..., Managed], name: str) -> None:
    managed = manage()
    for method, path in (("POST", f"{name}/pull"), ("DELETE", name)):
        status, message = refusal(managed.call(method, path))
        assert (status, "choose one of tiny, " in message) == (404, True)


def test_a_pull_that_fails_ends_its_stream_with_an_error(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.hub.damaged = 2
    *_, last = managed.pull("tiny")
    assert "wrong checksum" in last["error"]["message"]
    assert last["error"]["code"] == "backend_unavailable"
    assert managed.call("GET", "tiny").status_code == 404
    assert managed.pull("tiny")[-1]["type"] == "[DONE]"


def test_a_pull_outlives_its_caller_and_the_next_one_joins_it(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull_in_silence("tiny")
    assert managed.server.children("app.worker.models")
    events: list[list[dict]] = []
    joined = threading.Thread(target=lambda: events.append(managed.pull(TINY)))
    joined.start()
    response = managed.server.transcribe(CLIP.path, timeout=60)
    assert response.status_code == 401, "the loop is free meanwhile"
    status, message = refusal(managed.call("DELETE", "tiny"))
    assert (status, "is being downloaded" in message) == (409, True)
    managed.go_on()
    joined.join(60)
    assert events[0][-1]["type"] == "[DONE]"
    assert [entry for entry in managed.hub.seen if entry[:2] == ("GET", "config.json")] == [("GET", "config.json", 0)]


def test_one_pull_runs_at_a_time(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull_in_silence("tiny")
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with httpx.stream("POST", f"{managed.server.url}/v1/models/base/pull", headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines) == ": waiting"
        assert len(managed.server.children("app.worker.models")) == 1
        managed.go_on()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert {model["id"] for model in managed.call("GET", "").json()["data"]} >= {"tiny", "base"}


def test_a_removal_waits_for_no_other_models_pull(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull("base")
    managed.pull_in_silence("tiny")
    assert managed.call("DELETE", "base").is_success
    assert managed.server.children("app.worker.models"), "the pull is still under way"


def test_ctrl_c_ends_a_pull_with_its_server_alone(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull_in_silence("tiny")
    (child,) = managed.server.children("app.worker.models")
    child.send_signal(signal.SIGINT)  # as a terminal sends it to all
    managed.go_on()
    assert managed.pull("tiny")[-1]["type"] == "[DONE]"
    assert "Traceback" not in managed.server.log.read_text()


def test_a_server_that_ends_ends_its_pull(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull_in_silence("tiny")
    (child,) = managed.server.children("app.worker.models")
    events: list[list[dict]] = []
    joined = threading.Thread(target=lambda: events.append(managed.pull("tiny")))
    joined.start()
    wait_for(lambda: len(psutil.Process(managed.server.pid).net_connections("tcp")) > 1, 30)
    assert managed.server.stop() == 0
    joined.join(30)
    assert events[0][-1]["error"]["code"] == "shutting_down"
    assert not child.is_running()


def test_the_http_process_never_holds_what_downloads(manage: Callable[..., Managed]) -> None:
    managed = manage()
    managed.pull("tiny")
    managed.call("DELETE", "tiny")
    opened = {Path(entry.path).name for entry in psutil.Process(managed.server.pid).memory_maps()}
    assert not [name for name in opened if "hf_xet" in name or "_yaml" in name]


def test_a_request_never_downloads(manage: Callable[..., Managed]) -> None:
    managed = manage()
    with CLIP.path.open("rb") as file:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        url = f"{managed.server.url}/v1/audio/transcriptions"
        response = httpx.post(url, headers=headers, files={"file": file}, data={"model": "tiny"}, timeout=60)
    assert response.status_code == 404
    assert managed.hub.seen == []
