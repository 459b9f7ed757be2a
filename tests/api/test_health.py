from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Server, StartServer, clips


def test_health_says_what_the_server_works_with(server: Server) -> None:
    body = httpx.get(f"{server.url}/health").json()
    assert body.pop("precision")
    assert body == {
        "status": "ok",
        "state": "ready",
        "model": "micro",
        "backend": "faster-whisper",
        "device": "cpu",
        "backends": [{"name": "faster-whisper", "state": "ready", "reason": None}],
        "picked": "faster-whisper is configured; micro is configured",
    }


def test_ready_is_503_until_the_model_is_warm(start_server: StartServer, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"load_seconds": 1.5}')
    server = start_server(ready=False, backend="fake", model=script)
    response = httpx.get(f"{server.url}/ready")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "loading" in response.json()["error"]["message"]
    server.wait_until_ready()
    assert server.stop() == 0


def test_a_request_while_the_model_loads_waits_and_is_answered(start_server: StartServer, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"load_seconds": 1.0}')
    server = start_server(ready=False, backend="fake", model=script)
    assert server.transcribe(clips("en000")[0].path).status_code == 200
    server.stop()


def test_a_model_that_cannot_be_loaded_is_a_503_and_never_ready(start_server: StartServer, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"load": "unavailable"}')
    server = start_server(ready=False, backend="fake", model=script)
    response = server.transcribe(clips("en000")[0].path)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "backend_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert httpx.get(f"{server.url}/ready").status_code == 503
    assert httpx.get(f"{server.url}/health").status_code == 200
    server.stop()


def test_metrics_count_what_happened(server: Server) -> None:
    def figures() -> dict[str, float]:
        text = httpx.get(f"{server.url}/metrics").text
        return {
            sample.name + "".join(sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = figures()
    clip = clips("en000")[0]
    server.transcribe(clip.path)
    server.transcribe(clip.path, language="klingon")
    after = figures()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("whisperd_jobs_totalok") == 1
    assert grown("whisperd_jobs_totalinvalid_request") == 1
    assert abs(grown("whisperd_audio_seconds_total") - clip.duration) < 0.05
    for name in ("queue_wait_seconds", "decode_seconds", "inference_seconds", "real_time_factor"):
        assert grown(f"whisperd_{name}_count") == 1
    assert after["whisperd_queue_jobs"] == 0
    assert after["whisperd_ready"] == 1
    assert after["whisperd_model_load_seconds"] > 0
    assert after["whisperd_worker_memory_bytesworker"] > 20e6
    assert after["whisperd_worker_memory_bytesdecoder"] > 20e6
