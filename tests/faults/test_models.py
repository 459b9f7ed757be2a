"""Several models on one server: each request gets its own, and the device holds one at a time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, StartServer, clips, wait_for
from tests.steps import overlap, processes_of, steps_of

CLIPS = [clip.path for clip in clips("en")[:12]]


@pytest.fixture
def serve(start_server: StartServer, tmp_path: Path):
    """Start a server with models by these names, each with its script; the first is the default. Each writes its name
    as its text, and its steps to a log of that name.
    """
    running: list[Server] = []

    def start(models: dict[str, dict[str, object]], **flags: object) -> Server:
        table = ["[models]"]
        for name, script in models.items():
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps({"text": f" {name}", "log": str(tmp_path / name), **script}))
            table.append(f"{name} = {json.dumps(str(path))}")
        (tmp_path / "config.toml").write_text("\n".join(table))
        env = {"WHISPERD_CONFIG": str(tmp_path / "config.toml")}
        running.append(start_server(backend="fake", model=next(iter(models)), env=env, **flags))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def test_each_request_is_answered_by_the_model_that_it_names(serve) -> None:
    server = serve({"anna": {}, "bert": {}})
    for model, text in (("bert", "bert"), ("anna", "anna"), ("whisper-1", "anna"), ("bert", "bert")):
        assert server.transcribe(CLIPS[0], model=model).json()["text"] == text
    assert [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]] == ["anna", "bert"]
    response = server.transcribe(CLIPS[0], model="carl")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_requests_that_take_turns_cause_few_loads_and_no_two_steps_at_once(serve, tmp_path: Path) -> None:
    script = {"load_seconds": 0.5, "seconds_per_step": 0.05}
    server, logs = serve({"anna": script, "bert": script}), [tmp_path / "anna", tmp_path / "bert"]
    for name in ("bert", "anna"):  # so that it is known how much could be done in the time of a load
        server.transcribe(CLIPS[0], model=name)
    before = processes_of(*logs)
    names = ["anna", "bert"] * 6
    with ThreadPoolExecutor(len(names)) as pool:
        asked = [pool.submit(server.transcribe, path, model=name) for path, name in zip(CLIPS, names, strict=True)]
    assert [future.result().json()["text"] for future in asked] == names
    assert len(steps_of(*logs)) == 14
    assert len(processes_of(*logs) - before) <= 3, "one after the other they would be loaded eleven times"
    assert not overlap(steps_of(*logs))
    assert len(server.children("app.worker.child")) == 1


def test_a_model_that_nobody_uses_is_unloaded_and_the_next_request_loads_it_again(serve, tmp_path: Path) -> None:
    server = serve({"anna": {}}, keep_alive=1)
    assert server.transcribe(CLIPS[0]).json()["text"] == "anna"
    wait_for(lambda: server.children("app.worker.child") == [], 15, server.log)
    ready = httpx.get(f"{server.url}/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "unloaded")
    assert server.transcribe(CLIPS[1]).json()["text"] == "anna"
    assert httpx.get(f"{server.url}/ready").json()["status"] == "ready"
    assert len({step.pid for step in steps_of(tmp_path / "anna")}) == 2


def test_a_model_that_cannot_be_loaded_fails_those_who_ask_for_it_alone(serve) -> None:
    server = serve({"anna": {}, "broken": {"load": "unavailable"}, "dying": {"load": "kill"}})
    for model, failure in (("broken", (503, "backend_unavailable")), ("dying", (503, "backend_unavailable"))):
        response = server.transcribe(CLIPS[0], model=model)
        assert (response.status_code, response.json()["error"]["code"]) == failure
        server.wait_until_ready(15)
        assert server.transcribe(CLIPS[0], model="anna").json()["text"] == "anna"
