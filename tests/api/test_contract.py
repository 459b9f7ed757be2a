"""The live server against the OpenAPI document: schemathesis makes requests from it, right and wrong ones, and holds
every answer against it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import Server, StartServer, clips, wait_for

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra 'clients')")
checks = pytest.importorskip("schemathesis.checks")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

AUDIO = clips("en000")[0].path.read_bytes()

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
]

DOCUMENT = schemathesis.openapi.from_path(Path(__file__).parents[2] / "openapi" / "openapi.json")
# By hand rather than with schemathesis' own parametrize, which does not run on pytest 9.
OPERATIONS = [result.ok() for result in DOCUMENT.get_all_operations()]
UPLOADS = [operation for operation in OPERATIONS if operation.path.startswith("/v1/audio/")]
#: Those that change nothing first, those that remove last.
ABOUT_JOBS = sorted(
    (operation for operation in OPERATIONS if "{job_id}" in operation.path),
    key=lambda operation: (operation.method.upper() != "GET", operation.path.startswith("/v1/jobs")),
)

#: Bounded, and the same requests on every machine.
BOUNDED = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def fake(start_server: StartServer) -> Server:
    return start_server(backend="fake", model="{}")


@pytest.fixture(scope="module")
def stuck(start_server: StartServer) -> Server:
    return start_server(backend="fake", model='{"seconds_per_step": 600}')


def ask_and_check(server: Server, case: Any) -> int:
    """The answer's status, once the answer has passed every check."""
    response = case.call(base_url=server.url)
    streamed = response.headers.get("content-type", [""])[0].startswith("text/event-stream")
    # Where a schema is that of the whole stream, schemathesis holds each event against it.
    case.validate_response(
        response, checks=CHECKS if streamed else [*CHECKS, openapi_checks.response_schema_conformance]
    )
    if streamed:
        check_events(response.text)
    return response.status_code


def check_events(text: str) -> None:
    """Deltas, then the end of the stream: [DONE] after the whole text, or an error."""
    *events, last = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    names = ["TranscriptTextDelta"] * len(events)
    if last == "[DONE]":
        names[-1] = "TranscriptTextDone"
    else:
        events, names = [*events, last], [*names, "ErrorBody"]
    for event, name in zip(events, names, strict=True):
        schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT.raw_schema["components"]}
        jsonschema.validate(json.loads(event), schema)


def name_of(operation: Any) -> str:
    return operation.label


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
@pytest.mark.parametrize(
    "mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE], ids=["right", "wrong"]
)
def test_no_request_gets_an_answer_that_the_document_does_not_foresee(fake: Server, operation: Any, mode: Any) -> None:
    if mode is schemathesis.GenerationMode.NEGATIVE and not operation.body and not operation.query:
        pytest.skip("there is nothing to get wrong")

    @BOUNDED
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        ask_and_check(fake, case)

    ask()


@pytest.mark.parametrize("operation", UPLOADS, ids=name_of)
def test_no_options_beside_real_audio_get_an_answer_that_the_document_does_not_foresee(
    fake: Server, operation: Any
) -> None:
    answered: set[int] = set()

    @BOUNDED
    @given(operation.as_strategy(), st.booleans())
    def ask(case: Any, as_job: bool) -> None:
        # A recording where its sound belongs, and a model and a language that exist.
        case.body = {**case.body, "file": AUDIO, "model": "whisper-1", "language": "en"}
        case.headers["Prefer"] = "respond-async" if as_job else "wait=1"
        answered.add(ask_and_check(fake, case))

    ask()
    assert {200, 202} <= answered


@pytest.mark.parametrize(
    ("status", "result"), [("completed", 200), ("failed", 400), ("running", 404), ("cancelled", 410)]
)
def test_no_request_about_a_job_gets_an_answer_that_the_document_does_not_foresee(
    fake: Server, stuck: Server, status: str, result: int
) -> None:
    """The other requests name jobs that are not there."""
    server = stuck if status in ("running", "cancelled") else fake
    job_id = job_on(server, b"Dear Sir" if status == "failed" else AUDIO)
    if status == "cancelled":
        # The engine takes it up a moment after it was accepted.
        wait_for(
            lambda: job_id in [entry["id"] for entry in httpx.get(f"{server.url}/v1/queue").json()["data"]],
            10,
            server.log,
        )
        httpx.delete(f"{server.url}/v1/queue/{job_id}").raise_for_status()
    wait_for(lambda: httpx.get(f"{server.url}/v1/jobs/{job_id}").json()["status"] == status, 20, server.log)
    answered = {operation.label: ask_about(server, operation, job_id) for operation in ABOUT_JOBS}
    assert answered["GET /v1/jobs/{job_id}"] >= {200}
    assert answered["GET /v1/jobs/{job_id}/result"] >= {result}
    assert answered["DELETE /v1/queue/{job_id}"] >= {200 if status == "running" else 404}
    assert answered["DELETE /v1/jobs/{job_id}"] >= {200, 404}


def job_on(server: Server, audio: bytes) -> str:
    """The id of the job that the audio became."""
    headers = {"Content-Type": "audio/flac", "Prefer": "respond-async"}
    response = httpx.post(f"{server.url}/v1/audio/transcriptions", content=audio, headers=headers)
    job_id: str = response.raise_for_status().json()["id"]
    return job_id


def ask_about(server: Server, operation: Any, job_id: str) -> set[int]:
    answered: set[int] = set()

    @settings(BOUNDED, max_examples=10)
    @given(operation.as_strategy())
    def ask(case: Any) -> None:
        case.path_parameters = {"job_id": job_id}
        answered.add(ask_and_check(server, case))

    ask()
    return answered
