"""Connections that nothing comes from are ended; what a server needs for that, without a model."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import RequestTimeout, TooManyConnections
from app.lan.wyoming import Wyoming
from app.settings import Settings
from tests.conftest import wait_for


class Engine:
    """Takes uploads that nobody reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.admitted = self.left = 0
        self.name_owner = lambda owner: ""

    def admit(self) -> Any:
        engine = self

        class Admitted:
            def __enter__(self) -> Any:
                engine.admitted += 1
                nothing = lambda size: None  # noqa: E731
                return SimpleNamespace(source=engine.folder / "upload", grow=nothing, resize=nothing)

            def __exit__(self, *_: object) -> None:
                engine.left += 1

        return Admitted()


def exchange(tmp_path: Path, data: bytes, **given: Any) -> tuple[bytes, Engine]:
    """What a server with an idle time of 0.2 s answers to ``data`` before it closes."""
    settings = Settings(backend="fake", model="m", state_dir=tmp_path, keys_file=tmp_path / "keys.json")
    engine, catalog = Engine(tmp_path), SimpleNamespace(resolve=lambda _: SimpleNamespace(path=tmp_path, name="m"))

    async def run() -> bytes:
        server = Wyoming(settings, engine, catalog, set(), **{"idle_s": 0.2, **given})  # type: ignore[arg-type]
        listener = socket.create_server(("127.0.0.1", 0))
        await server.start(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(data)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        server.refuse()
        wait = asyncio.to_thread(wait_for, lambda: not server._tasks, 20)
        await wait
        return answer

    return asyncio.run(run()), engine


START = b'{"type":"audio-start","data":{"rate":16000,"width":2,"channels":1}}\n'


@pytest.mark.parametrize("data", [b"", b'{"type":"desc', b'{"type":"x","data_length":9}\n{', b'{"type":"x"}\n'])
def test_a_silent_connection_is_closed_without_a_word(tmp_path: Path, data: bytes) -> None:
    answer, engine = exchange(tmp_path, data)
    assert (answer, engine.admitted) == (b"", 0)


def test_one_that_falls_silent_in_a_recording_gives_its_slot_back(tmp_path: Path) -> None:
    answer, engine = exchange(tmp_path, START)
    assert (engine.admitted, engine.left) == (1, 1)
    assert RequestTimeout.code.encode() in answer


def test_one_connection_too_many_is_told(tmp_path: Path) -> None:
    answer, _ = exchange(tmp_path, b"", most=0)
    assert TooManyConnections.code.encode() in answer
