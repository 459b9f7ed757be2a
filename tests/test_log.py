from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import log


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).filters.clear()


def test_an_event_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    log.event("job ended", outcome="ok", seconds=0.123456, name="a\nb\x1b[31m")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith("info    job ended outcome=ok seconds=0.123 name=a\\nb\\x1b[31m\n")


def test_an_event_is_one_json_object_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info", "json")
    log.event("job ended", outcome="ok", seconds=1.5)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "event": "job ended", "outcome": "ok", "seconds": 1.5}


def test_what_is_under_the_level_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("warning")
    log.event("job ended")
    assert capsys.readouterr().err == ""


def test_uvicorns_traceback_of_a_request_stays_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    try:
        raise ValueError("what the user said")
    except ValueError as error:
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    assert "what the user said" not in capsys.readouterr().err


@contextlib.contextmanager
def answering(request_id: str) -> Iterator[None]:
    token = log.request_id.set(request_id)
    yield
    log.request_id.reset(token)


def test_every_line_of_a_request_carries_its_id_whoever_logs_it(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    with answering("req_1"):
        log.event("job ended", outcome="ok")
        logging.getLogger("uvicorn.error").warning("Unsupported upgrade request.")
    log.event("whisperd starts", version="1")
    ours, uvicorns, outside = capsys.readouterr().err.splitlines()
    assert ours.endswith("job ended outcome=ok request=req_1")
    assert uvicorns.endswith("Unsupported upgrade request. request=req_1")
    assert outside.endswith("whisperd starts version=1")


def test_in_json_the_id_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info", "json")
    with answering("req_1"):
        log.event("job ended", outcome="ok")
        logging.getLogger("uvicorn.error").warning("Unsupported upgrade request.")
    log.event("whisperd starts")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("request") for line in lines] == ["req_1", "req_1", None]
    assert "request" not in lines[2]


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_event_that_names_its_request_is_believed(capsys: pytest.CaptureFixture[str], style: str) -> None:
    log.set_up("info", style)
    with answering("req_1"):
        log.event("job ended", request="req_2")
    line = capsys.readouterr().err
    assert "req_2" in line
    assert "req_1" not in line


def test_a_shortage_of_descriptors_is_a_line_in_a_while_and_other_errors_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.set_up("info")
    for _ in range(1000):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            logging.getLogger("asyncio").exception("socket.accept() out of system resource\nsocket: <socket>")
    logging.getLogger("asyncio").error("something else")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=2)[2] for line in said] == [
        "no descriptors are left: connections wait",
        "something else",
    ]


def test_a_file_is_private_and_put_aside_once_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_FILE_BYTES", 1000)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "whisperd.log"
    try:
        log.set_up("info", "text", path)
        for number in range(50):
            log.event("something", number=number)
        (handler,) = root.handlers
        handler.close()
    finally:
        logging.basicConfig(level=level, handlers=handlers, force=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["whisperd.log", "whisperd.log.1"]
    assert all(each.stat().st_size <= 1000 and each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())
    assert "number=49" in path.read_text()
