"""docs/api.md against the OpenAPI document, the errors, and what a real server answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import ERRORS
from app.recordings import SPEECH
from tests.conftest import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
OPENAPI = json.loads((ROOT / "openapi" / "openapi.json").read_text("utf-8"))
CLIP = SPEECH / "en000.ogg"
#: Said by every server of HTTP.
PLAIN = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding", "vary"}


def section(title: str) -> str:
    """What stands under the heading, up to the next of its kind."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(text: str, column: int = 0) -> set[str]:
    """The words in code at the beginning of a column of the tables in ``text``."""
    rows = [line.split("|")[1:] for line in text.splitlines() if line.startswith("| ")]
    return {match[1] for row in rows if (match := re.match(r"\s*`([^`]+)`", row[column]))}


def fields_of(path: str) -> set[str]:
    body = OPENAPI["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    return set(body["properties"])


def test_every_route_is_told_of_and_no_other() -> None:
    real = {f"{method.upper()} {path}" for path, methods in OPENAPI["paths"].items() for method in methods}
    told = set(re.findall(r"`((?:GET|POST|DELETE) /[^` ]*)`", PAGE))
    assert told - {"GET /"} == real


def test_every_field_is_told_of_and_no_other() -> None:
    upload = section("`POST /v1/audio/transcriptions`")
    fields = named(upload.partition("| field |")[2])
    assert fields == fields_of("/v1/audio/transcriptions")
    translations = section("`POST /v1/audio/translations`")
    without = set(re.findall(r"`([a-z_]+(?:\[\])?)`", translations.partition("The fields above but")[2]))
    assert fields - without == fields_of("/v1/audio/translations")


def test_every_error_is_told_of_with_its_status_and_no_other() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", section("Errors"), re.MULTILINE)
    assert {(int(status), code) for status, code in rows} == {(each.status, code) for code, each in ERRORS.items()}


def post(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    url = f"{server.url}/v1/audio/transcriptions"
    with CLIP.open("rb") as file:
        return httpx.post(url, files={"file": file}, data=fields, headers=headers or {}, timeout=60)


def test_every_header_that_is_sent_is_told_of(server: Server) -> None:
    answers = [
        post(server),
        post(server, stream="true"),
        post(server, x_heartbeat="true"),
        post(server, temperature="7"),
        post(server, {"Prefer": "respond-async"}),
        httpx.get(f"{server.url}/v1/queue"),
    ]
    told = {name.lower() for name in re.findall(r"`([A-Za-z-]+)`", section("Headers"))}
    assert {name for answer in answers for name in answer.headers} - PLAIN <= told
    assert answers[4].status_code == 202


def shape(value: Any) -> Any:
    """Keys all the way down; of lists the first element, as examples are cut there."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value[:1]] if isinstance(value, list) else None


def test_examples_look_as_real_answers_do(server: Server) -> None:
    plain, verbose, job, error = map(json.loads, re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    assert post(server).json() == plain
    words = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    real = post(server, **words).json()
    assert shape(real) == shape(verbose)
    assert (real["text"], real["duration"]) == (verbose["text"], verbose["duration"])
    accepted = post(server, {"Prefer": "respond-async"}).json()
    assert accepted.keys() == job.keys()
    assert post(server, temperature="7").json() == error


@pytest.mark.parametrize("form", ["srt", "stream"])
def test_texts_are_as_they_come(server: Server, form: str) -> None:
    given = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    if form == "srt":  # milliseconds are the processor's
        assert re.sub(r",\d{3}", "", post(server, response_format="srt").text) == re.sub(r",\d{3}", "", given[0])
    else:
        assert re.sub(", about.*", "", post(server, stream="true").text.strip()) == given[1].strip()
