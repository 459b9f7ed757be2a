"""curl, typed by hand."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.clients import shapes
from tests.conftest import Clip, Server, word_error_rate

pytestmark = [
    pytest.mark.client("curl", command="curl"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine"),
]


def curl(server: Server, *arguments: str, path: str = "/v1/audio/transcriptions") -> str:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "120", server.url + path, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_form_with_the_file_is_enough(server: Server, clip: Clip) -> None:
    body = json.loads(curl(server, "-F", f"file=@{clip.path}"))
    jsonschema.validate(body, shapes.JSON)
    assert word_error_rate([clip.text], [body["text"]]) == 0


@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions/", "/audio/transcriptions", "/audio/transcriptions/", "/inference"]
)
def test_every_spelling_of_the_path_will_do(server: Server, clip: Clip, path: str) -> None:
    body = json.loads(curl(server, "-F", f"file=@{clip.path}", "-F", "model=whisper-1", path=path))
    assert word_error_rate([clip.text], [body["text"]]) == 0


@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
def test_granularities_are_understood_with_and_without_brackets(server: Server, clip: Clip, name: str) -> None:
    fields = ("-F", "response_format=verbose_json", "-F", f"{name}=word")
    body = json.loads(curl(server, "-F", f"file=@{clip.path}", *fields))
    jsonschema.validate(body, shapes.verbose(words=shapes.WORD))


def test_the_audio_alone_may_be_the_body(server: Server, clip: Clip) -> None:
    body = json.loads(curl(server, "-H", "Content-Type: audio/flac", "--data-binary", f"@{clip.path}"))
    assert word_error_rate([clip.text], [body["text"]]) == 0


def test_a_form_without_a_length_is_taken(server: Server, clip: Clip) -> None:
    arguments = ("-H", "Transfer-Encoding: chunked", "-F", f"file=@{clip.path}", "-F", "response_format=text")
    assert word_error_rate([clip.text], [curl(server, *arguments)]) == 0


def test_audio_from_a_pipe_without_a_name_is_taken(server: Server, clip: Clip) -> None:
    body = json.loads(curl(server, "-F", f"file=<{clip.path};type=application/octet-stream"))
    assert word_error_rate([clip.text], [body["text"]]) == 0


def test_json_with_the_audio_in_base64_is_taken(server: Server, clip: Clip, tmp_path: Path) -> None:
    encoded = base64.b64encode(clip.path.read_bytes()).decode()
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"model": "whisper-1", "input_audio": {"data": encoded, "format": "flac"}}))
    body = json.loads(curl(server, "-H", "Content-Type: application/json", "--data-binary", f"@{request}"))
    assert word_error_rate([clip.text], [body["text"]]) == 0


def test_a_stream_is_events_and_ends_with_done(server: Server, clip: Clip) -> None:
    lines = curl(server, "-N", "-F", f"file=@{clip.path}", "-F", "stream=true").splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert all(not line or line.startswith(("data: ", ":")) for line in lines)
    assert data.pop() == "[DONE]"
    *deltas, done = map(json.loads, data)
    for event in deltas:
        jsonschema.validate(event, shapes.DELTA)
    jsonschema.validate(done, shapes.DONE)
    assert "".join(event["delta"] for event in deltas) == done["text"]


@pytest.mark.parametrize(
    ("arguments", "path", "status"),
    [
        (("-F", "model=whisper-1"), "/v1/audio/transcriptions", 400),
        (("-X", "GET"), "/v1/audio/transcriptions", 405),
        (("-X", "POST"), "/v1/audio/speech", 404),
    ],
    ids=["no file", "wrong method", "wrong path"],
)
def test_mistakes_are_answered_with_the_envelope(
    server: Server, arguments: tuple[str, ...], path: str, status: int
) -> None:
    body, _, code = curl(server, *arguments, "-w", "\n%{http_code}", path=path).rpartition("\n")
    assert int(code) == status
    jsonschema.validate(json.loads(body), shapes.ERROR)


def test_a_key_may_come_in_any_of_its_headers(locked: Server, clip: Clip) -> None:
    for header in ("Authorization: Bearer open-sesame", "api-key: open-sesame", "X-API-Key: open-sesame"):
        assert json.loads(curl(locked, "-H", header, "-F", f"file=@{clip.path}"))["text"]
    refused = json.loads(curl(locked, "-F", f"file=@{clip.path}"))
    jsonschema.validate(refused, shapes.ERROR)
    assert refused["error"]["code"] == "invalid_api_key"
