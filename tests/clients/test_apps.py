"""Applications that cannot be run here: their requests, written as their sources write them, and what they read from
the answer.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import httpx
import jsonschema
import pytest

from tests.clients import shapes
from tests.conftest import Clip, Recording, Server, word_error_rate


@dataclass(frozen=True)
class Part:
    """A part of a form as it is put on the wire."""

    name: str
    content: str | bytes
    filename: str | None = None
    content_type: str | None = None

    def encode(self) -> bytes:
        disposition = f'form-data; name="{self.name}"'
        if self.filename is not None:
            disposition += f'; filename="{self.filename}"'
        lines = [f"Content-Disposition: {disposition}"]
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        content = self.content if isinstance(self.content, bytes) else self.content.encode()
        return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


def post(
    server: Server, *parts: Part, path: str = "/v1/audio/transcriptions", headers: dict[str, str] | None = None
) -> httpx.Response:
    boundary = "----FormBoundaryOfAnApplication"
    body = b"".join(f"--{boundary}\r\n".encode() + part.encode() for part in parts) + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", **(headers or {})}
    return httpx.post(server.url + path, content=body, headers=headers, timeout=120)


def check(response: httpx.Response, clip: Clip, allowed: float = 0.1) -> None:
    """200, JSON of OpenAI's shape, and the clip's words."""
    assert response.status_code == 200, response.text
    body = response.json()
    jsonschema.validate(body, shapes.JSON)
    assert word_error_rate([clip.text], [body["text"]]) <= allowed


OPEN_WEBUI = pytest.mark.client("Open WebUI", replayed="routers/audio.py")


@OPEN_WEBUI
@pytest.mark.parametrize("model", ["", "whisper-1"], ids=["no model", "a model"])
def test_open_webui_labels_text_fields_and_sends_octet_streams(
    server: Server, clip: Clip, webm: Path, model: str
) -> None:
    plain = "text/plain; charset=utf-8"
    file = Part("file", webm.read_bytes(), "recording.webm", "application/octet-stream")
    check(post(server, Part("model", model, None, plain), Part("language", "en", None, plain), file), clip)


@OPEN_WEBUI
def test_older_open_webui_sends_a_file_without_a_content_type(server: Server, clip: Clip, webm: Path) -> None:
    check(post(server, Part("model", "whisper-1"), Part("file", webm.read_bytes(), "recording.webm")), clip)


@OPEN_WEBUI
def test_open_webui_in_json_mode_sends_base64(server: Server, clip: Clip, webm: Path) -> None:
    encoded = base64.b64encode(webm.read_bytes()).decode()
    request = {"model": "whisper-1", "language": "en", "input_audio": {"data": encoded, "format": "webm"}}
    check(httpx.post(f"{server.url}/v1/audio/transcriptions", json=request, timeout=120), clip)


@OPEN_WEBUI
def test_open_webui_can_show_the_errors_message(server: Server) -> None:
    response = post(server, Part("model", "whisper-1"), Part("file", b"nothing", "recording.webm"))
    jsonschema.validate(response.json(), shapes.ERROR)
    assert len(response.json()["error"]["message"]) > 10


OBSIDIAN = pytest.mark.client("Obsidian Whisper", replayed="src/AudioHandler.ts")


@OBSIDIAN
@pytest.mark.parametrize("origin", ["app://obsidian.md", "capacitor://localhost"])
def test_obsidians_preflight_is_allowed(server: Server, origin: str) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    response = httpx.options(f"{server.url}/v1/audio/transcriptions", headers=asked)
    assert response.is_success
    assert response.headers["access-control-allow-origin"] == origin
    allowed = response.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed
    assert "content-type" in allowed


@OBSIDIAN
def test_obsidian_sends_a_recording_and_may_read_the_answer(server: Server, clip: Clip, webm: Path) -> None:
    file = Part("file", webm.read_bytes(), "recording.webm", "audio/webm;codecs=opus")
    fields = Part("model", "whisper-1"), Part("language", "en"), Part("prompt", "A story.")
    response = post(server, file, *fields, headers={"Origin": "app://obsidian.md"})
    check(response, clip)
    assert response.headers["access-control-allow-origin"] == "app://obsidian.md"


@OBSIDIAN
def test_other_web_pages_may_not_read_the_answer(server: Server, wav: Path) -> None:
    response = post(server, Part("file", wav.read_bytes(), "a.wav"), headers={"Origin": "https://example.com"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.client("VoiceInk", replayed="OpenAICompatibleTranscriptionService.swift")
def test_voiceink_decodes_strictly_and_sends_an_empty_bearer(server: Server, clip: Clip, wav: Path) -> None:
    response = post(
        server,
        Part("file", wav.read_bytes(), "recording.wav", "audio/wav"),
        Part("model", "whisper-1"),
        Part("prompt", ""),
        Part("response_format", "json"),
        Part("temperature", "0"),
        headers={"Authorization": "Bearer"},
    )
    check(response, clip)
    body = response.json()
    assert isinstance(body["text"], str)
    assert isinstance(body.get("duration", 0.0), int | float)
    assert isinstance(body.get("language", ""), str)


@pytest.mark.client("OpenWhispr", replayed="src/helpers/audioManager.js")
def test_openwhispr_reads_events_where_it_asks_for_them(server: Server, clip: Clip, webm: Path) -> None:
    response = post(
        server,
        Part("file", webm.read_bytes(), "audio.webm", "audio/webm"),
        Part("model", "gpt-4o-mini-transcribe"),
        Part("language", "en"),
        Part("prompt", "gentleman, fire"),
        Part("stream", "true"),
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "transcript.text.done"
    assert word_error_rate([clip.text], [events[-1]["text"]]) <= 0.1


HOME_ASSISTANT = pytest.mark.client("Home Assistant, openai_conversation", replayed="stt.py")


@HOME_ASSISTANT
@pytest.mark.parametrize("language", ["en", "no", "fil", "zh", "jv", "iw"])
def test_home_assistant_sends_the_first_part_of_its_language_tags(server: Server, wav: Path, language: str) -> None:
    file = Part("file", wav.read_bytes(), "a.wav", "audio/x-wav")
    response = post(server, file, Part("model", "gpt-4o-mini-transcribe"), Part("language", language))
    assert response.status_code == 200, response.text
    assert isinstance(response.json()["text"], str)


HOME_ASSISTANT_CUSTOM = pytest.mark.client("Home Assistant, openai-whisper-stt-api", replayed="stt.py")


@HOME_ASSISTANT_CUSTOM
@pytest.mark.parametrize("language", ["en", "en-US", "pt-BR", "zh"])
def test_the_custom_home_assistant_component_sends_regions_and_empty_prompts(
    server: Server, wav: Path, language: str
) -> None:
    response = post(
        server,
        Part("file", wav.read_bytes(), "audio.wav", "audio/wav"),
        *(Part("language", language), Part("model", "whisper-1"), Part("temperature", "0")),
        *(Part("prompt", ""), Part("response_format", "json")),
        headers={"Authorization": "Bearer"},
    )
    assert response.status_code == 200, response.text
    assert response.json().get("text")


@HOME_ASSISTANT_CUSTOM
def test_the_custom_home_assistant_component_can_parse_every_error(server: Server) -> None:
    # It reads .json() before it looks at the status.
    for response in (post(server, path="/v1"), post(server), httpx.get(f"{server.url}/v1/audio/transcriptions")):
        assert response.is_client_error
        assert response.json().get("text") is None


WYOMING = pytest.mark.client("wyoming_openai", replayed="handler.py")


@WYOMING
def test_wyoming_openai_gets_all_text_from_the_deltas_alone(
    stepwise: Server, long_recording: Recording, answer_to_long: str
) -> None:
    response = post(
        stepwise,
        Part("file", long_recording.path.read_bytes(), "audio.wav", "audio/wav"),
        Part("model", "whisper-1"),
        Part("language", "en"),
        Part("response_format", "json"),
        Part("stream", "true"),
        Part("vad_filter", "false"),
    )
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [event["delta"] for event in events if event["type"] == "transcript.text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == events[-1]["text"]
    assert word_error_rate([answer_to_long], ["".join(deltas)]) <= 0.02


@WYOMING
def test_wyoming_openai_probes_health_and_models(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").is_success
    assert httpx.get(f"{server.url}/v1/models").json()["data"]


@pytest.mark.client("n8n", replayed="transcribe.operation.ts")
@pytest.mark.parametrize("name", ["data", "voice.mp3"], ids=["no extension", "a wrong extension"])
def test_n8n_hard_codes_whisper_1_and_names_files_as_it_likes(
    server: Server, clip: Clip, webm: Path, name: str
) -> None:
    file = Part("file", webm.read_bytes(), name, "video/webm")
    check(post(server, Part("model", "whisper-1"), Part("temperature", "0.3"), file), clip, allowed=0.3)


@pytest.mark.client("LibreChat", replayed="STTService.js")
def test_librechat_sends_a_two_letter_language(server: Server, clip: Clip, webm: Path) -> None:
    file = Part("file", webm.read_bytes(), "audio.webm", "audio/webm")
    check(post(server, file, Part("model", "whisper-1"), Part("language", "en")), clip)
