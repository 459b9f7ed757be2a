from __future__ import annotations

import logging

import httpx
import pytest
from fastapi import FastAPI

from app.api import errors
from app.errors import DeadlineExceeded, QueueFull, WhisperdError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answer(error: Exception) -> httpx.Response:
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/")


async def test_an_error_is_openais_envelope_with_its_headers() -> None:
    full = QueueFull("full")
    full.retry_after = 7
    response = await answer(full)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json() == {
        "error": {"message": "full", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    }


async def test_what_a_retry_cannot_mend_says_so() -> None:
    assert (await answer(DeadlineExceeded("late"))).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in (await answer(WhisperdError("?"))).headers


async def test_an_unexpected_error_tells_neither_client_nor_log_what_it_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="whisperd"):
        response = await answer(ValueError("the user's own words"))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "own words" not in response.text
    (record,) = [record for record in caplog.records if record.name == "whisperd"]
    assert "own words" not in str(record.__dict__)
    assert record.fields["type"] == "ValueError"
