from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.api.auth import KeyMiddleware
from app.api.paths import PathMiddleware, served_path
from app.keys import Key, Keyring, digest_of


@pytest.mark.parametrize(
    ("pasted", "served"),
    [
        ("/v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/audio/transcriptions/", "/v1/audio/transcriptions"),
        ("/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/audio/translations//", "/v1/audio/translations"),
        ("//v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/v1/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/audio/transcriptions/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/audio/transcriptions/v1/audio/transcriptions/", "/v1/audio/transcriptions"),
        ("/inference", "/v1/audio/transcriptions"),
        ("/v1/inference/", "/v1/audio/transcriptions"),
        ("/models", "/v1/models"),
        ("/models/mlx-community/whisper-tiny/", "/v1/models/mlx-community/whisper-tiny"),
        ("/v1/models/audio/transcriptions", "/v1/models/audio/transcriptions"),
        ("/health/", "/health"),
        ("/ready", "/ready"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/docs/", "/docs"),
        ("/", "/"),
        ("/v1/", "/v1"),
        ("/audiobooks", "/audiobooks"),
        ("/v10/models", "/v10/models"),
    ],
)
def test_a_pasted_path_becomes_the_one_served(pasted: str, served: str) -> None:
    assert served_path(pasted) == served


@given(st.lists(st.sampled_from(["v1", "audio", "transcriptions", "models", "inference", "", "x"])).map("/".join))
def test_a_served_path_is_its_own(path: str) -> None:
    served = served_path(f"/{path}")
    assert served_path(served) == served
    assert served.startswith("/")


def test_the_app_behind_sees_one_spelling_in_both_forms_of_the_path() -> None:
    scope = passed_on("/models/mlx-community/ü", "/models/mlx-community%2F%C3%BC/")
    assert scope["path"] == "/v1/models/mlx-community/ü"
    assert scope["raw_path"] == b"/v1/models/mlx-community/%C3%BC"


def test_a_path_that_is_as_served_is_handed_on_untouched() -> None:
    assert passed_on("/v1/models/a/b", "/v1/models/a%2Fb")["raw_path"] == b"/v1/models/a%2Fb"


def test_an_open_path_is_open_with_a_slash_too_and_no_other_becomes_so() -> None:
    assert answered("/health/") == 200
    assert answered("//ready") == 200
    for path in ("/v1/health", "/health/x", "/v1/models/../health", "/models", "/inference"):
        assert answered(path) == 401, path


def passed_on(path: str, raw_path: str) -> Scope:
    """The scope that reaches the app behind the middleware."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    call(PathMiddleware(app), path, raw_path)
    return seen[0]


def answered(path: str) -> int:
    """The status behind a key check, in the order in which the app has them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    ring = Keyring(Path("no file"), [Key("ours", digest_of(b"a-key-of-ours"))])
    return call(PathMiddleware(KeyMiddleware(app, ring, wanted=True)), path, path)[0]["status"]


def call(app: object, path: str, raw_path: str) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": raw_path.encode(), "headers": []}
    anyio.run(app, scope, receive, send)
    return sent
