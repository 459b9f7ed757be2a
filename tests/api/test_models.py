from __future__ import annotations

import httpx
import openai
import pytest

from tests.conftest import Server


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
