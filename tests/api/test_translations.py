from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, StartServer, clips

CLIP = clips("de000")[0]


@pytest.fixture(scope="module")
def translator(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    script = tmp_path_factory.mktemp("fake") / "large-v3.json"
    script.write_text(json.dumps({"text": " Good morning.", "language": "de"}))
    return start_server(backend="fake", model=script)


def translate(server: Server, **fields: str) -> httpx.Response:
    with CLIP.path.open("rb") as file:
        return httpx.post(f"{server.url}/v1/audio/translations", files={"file": file}, data=fields, timeout=60)


@pytest.mark.parametrize(
    ("name", "begins"),
    [("json", '{"text": "Good morning."'), ("text", "Good"), ("srt", "1\n00:"), ("vtt", "WEBVTT\n\n00:")],
)
def test_all_formats_are_there(translator: Server, name: str, begins: str) -> None:
    response = translate(translator, model="whisper-1", response_format=name)
    assert response.status_code == 200
    assert response.text.startswith(begins)


def test_the_language_of_a_translation_is_english(translator: Server) -> None:
    body = translate(translator, response_format="verbose_json", language="de").json()
    assert (body["task"], body["language"], body["text"]) == ("translate", "english", "Good morning.")
    assert body["segments"]


def test_a_model_that_cannot_translate_says_so(server: Server, start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "large-v3-turbo").write_text("{}")
    turbo = start_server(backend="fake", model=tmp_path / "large-v3-turbo")
    for each in (server, turbo):
        response = translate(each)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "model"
        assert "translate" in response.json()["error"]["message"]
    turbo.stop()


def test_a_bad_field_names_itself(translator: Server) -> None:
    response = translate(translator, response_format="yaml")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "response_format")
