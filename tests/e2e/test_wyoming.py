"""Wyoming over a real socket, with the protocol's own client; and what clients do that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from app.languages import LANGUAGES
from tests.conftest import Server, StartServer, _pcm, clips, free_port, script_of, wait_for

CLIP = clips("en")[0]


@dataclass
class Wyoming:
    server: Server
    port: int


@pytest.fixture(scope="module")
def micro(start_server: StartServer) -> Wyoming:
    port = free_port()
    return Wyoming(start_server(backend="faster-whisper", model="micro", wyoming_port=port), port)


def slow(start_server: StartServer, folder: Path, seconds: float = 60, **flags: object) -> Wyoming:
    """A server whose steps take so long."""
    port = free_port()
    script = script_of(folder, seconds_per_step=seconds)
    return Wyoming(start_server(backend="fake", model=script, wyoming_port=port, **flags), port)


def wav(path: Path, rate: int = 16_000, channels: int = 1) -> Path:
    """The clip at another rate (by the nearest sample), with the same sound in each channel."""
    samples = np.frombuffer(_pcm(CLIP.path), "<i2")
    places = (np.arange(int(len(samples) * rate / 16_000)) * 16_000 / rate).astype(int)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(samples[places], channels).tobytes())
    return path


async def until_answer(client: AsyncTcpClient) -> list[Event]:
    """The events up to the transcript or the error."""
    events: list[Event] = []
    async with asyncio.timeout(60):
        while not events or not (Transcript.is_type(events[-1].type) or Error.is_type(events[-1].type)):
            event = await client.read_event()
            assert event is not None, "the connection was closed without an answer"
            events.append(event)
    return events


async def send(client: AsyncTcpClient, path: Path, **wanted: str) -> None:
    with wave.open(str(path)) as file:
        form = {"rate": file.getframerate(), "width": file.getsampwidth(), "channels": file.getnchannels()}
        await client.write_event(Transcribe(**wanted).event())
        await client.write_event(AudioStart(**form).event())
        while frames := file.readframes(1024):
            await client.write_event(AudioChunk(audio=frames, **form).event())
        await client.write_event(AudioStop().event())


async def transcribe(port: int, path: Path, **wanted: str) -> list[Event]:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await send(client, path, **wanted)
        return await until_answer(client)


def text_of(events: list[Event]) -> str:
    return Transcript.from_event(events[-1]).text


def error_of(events: list[Event]) -> Error:
    assert Error.is_type(events[-1].type), events
    return Error.from_event(events[-1])


def raw(port: int, data: bytes) -> list[dict[str, object]]:
    """What comes back for these bytes, whatever they are, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(data)
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
    header, _, rest = got.partition(b"\n")
    return [json.loads(header), json.loads(rest)] if got else []


def still_serves(wyoming: Wyoming, folder: Path) -> None:
    assert text_of(asyncio.run(transcribe(wyoming.port, wav(folder / "again.wav"), language="en")))
    assert httpx.get(f"{wyoming.server.url}/ready").is_success


def test_home_assistant_learns_what_it_can_have(micro: Wyoming) -> None:
    async def ask() -> tuple[Event | None, Event | None]:
        async with AsyncTcpClient("127.0.0.1", micro.port) as client:
            await client.write_event(Describe().event())
            info = await client.read_event()
            await client.write_event(Ping(text="hello").event())
            return info, await client.read_event()

    described, pong = asyncio.run(ask())
    assert described is not None
    (program,) = Info.from_event(described).asr
    assert (program.name, program.installed, program.supports_transcript_streaming) == ("whisperd", True, True)
    (model,) = program.models
    assert (model.name, model.installed, model.languages) == ("micro", True, list(LANGUAGES))
    assert pong is not None
    assert Pong.from_event(pong).text == "hello"


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_the_text_is_that_of_the_same_recording_over_http(
    micro: Wyoming, tmp_path: Path, rate: int, channels: int
) -> None:
    path = wav(tmp_path / "a.wav", rate, channels)
    expected = micro.server.transcribe(path, language="en").json()["text"]
    events = asyncio.run(transcribe(micro.port, path, language="en-GB"))
    assert text_of(events) == expected
    assert expected
    chunks = [TranscriptChunk.from_event(each).text for each in events if TranscriptChunk.is_type(each.type)]
    assert "".join(chunks) == expected
    assert Transcript.from_event(events[-1]).language == "en"


def test_two_recordings_on_one_connection_and_two_connections_at_once(micro: Wyoming, tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav")

    async def twice() -> list[str]:
        async with AsyncTcpClient("127.0.0.1", micro.port) as client:
            texts = []
            for _ in range(2):
                await send(client, path, language="en")
                texts.append(text_of(await until_answer(client)))
            return texts

    async def both() -> list[list[str]]:
        return await asyncio.gather(twice(), twice())

    texts = {text for each in asyncio.run(both()) for text in each}
    assert len(texts) == 1
    assert texts != {""}


@pytest.mark.parametrize(
    ("wanted", "code"), [({"language": "klingon"}, "invalid_request"), ({"name": "no-such"}, "model_not_found")]
)
def test_what_cannot_be_done_is_a_sentence(micro: Wyoming, tmp_path: Path, wanted: dict[str, str], code: str) -> None:
    error = error_of(asyncio.run(transcribe(micro.port, wav(tmp_path / "a.wav"), **wanted)))
    assert error.code == code
    assert error.text.endswith(".")


CHUNK = b'{"type":"audio-chunk","data":{"rate":16000,"width":2,"channels":1},"payload_length":%d}\n'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "invalid_request"),
        (b"[]\n", "invalid_request"),
        (b"{}\n", "invalid_request"),
        (b"[" * 50_000 + b"\n", "invalid_request"),
        (b"x" * 300_000, "invalid_request"),
        (b'{"type":"describe","data_length":99999999999}\n', "invalid_request"),
        (b'{"type":"describe","data_length":-1}\n', "invalid_request"),
        (b'{"type":"describe","data_length":"9"}\n', "invalid_request"),
        (b'{"type":"transcribe","data_length":2}\n[]', "invalid_request"),
        (CHUNK % 10**12, "invalid_request"),
        (b'{"type":"audio-start","data":{"rate":0,"width":2,"channels":1}}\n', "invalid_request"),
        (b'{"type":"audio-start","data":{"rate":16000,"width":true,"channels":1}}\n', "invalid_request"),
        (b'{"type":"audio-start"}\n', "invalid_request"),
        (b'{"type":"audio-stop"}\n', "invalid_request"),
        (CHUNK % 2 + b"ab" + b'{"type":"audio-stop"}\n', "audio_too_short"),
        (
            CHUNK % 2 + b"ab" + b'{"type":"audio-start","data":{"rate":8000,"width":2,"channels":1}}\n',
            "invalid_request",
        ),
    ],
)
def test_what_is_no_event_is_one_error_and_the_end(micro: Wyoming, data: bytes, code: str) -> None:
    header, body = raw(micro.port, data)
    assert header["type"] == "error"
    assert body["code"] == code
    assert str(body["text"]).endswith(".")


def test_who_breaks_off_leaves_nothing_behind(micro: Wyoming, tmp_path: Path) -> None:
    for data in (b"", b'{"type":', b'{"type":"describe","data_length":50}\n{', CHUNK % 5000 + b"abc"):
        with socket.create_connection(("127.0.0.1", micro.port)) as connection:
            connection.sendall(CHUNK % 2 + b"ab" + data)
    metrics = f"{micro.server.url}/metrics"
    wait_for(lambda: "whisperd_queue_jobs 0.0" in httpx.get(metrics).text, 20, micro.server.log)
    still_serves(micro, tmp_path)


def test_too_many_connections_are_told_and_the_others_go_on(micro: Wyoming, tmp_path: Path) -> None:
    held = [socket.create_connection(("127.0.0.1", micro.port)) for _ in range(16)]
    try:
        assert raw(micro.port, b"")[1]["code"] == "too_many_connections"
    finally:
        for connection in held:
            connection.close()
    wait_for(lambda: len(psutil.Process(micro.server.pid).net_connections("tcp")) < 10, 20, micro.server.log)
    still_serves(micro, tmp_path)


def test_a_recording_that_is_too_long_or_too_large_is_refused_while_it_comes(
    start_server: StartServer, tmp_path: Path
) -> None:
    wyoming = slow(start_server, tmp_path, 0, max_audio_s=1, max_upload_mb=1)
    assert error_of(asyncio.run(transcribe(wyoming.port, wav(tmp_path / "a.wav")))).code == "audio_too_long"
    big = b'{"type":"audio-chunk","data":{"rate":384000,"width":4,"channels":64},"payload_length":1048576}\n'
    assert raw(wyoming.port, big + bytes(2**20))[1]["code"] == "upload_too_large"


def test_jobs_belong_to_wyoming_alone_and_are_counted_so(start_server: StartServer, tmp_path: Path) -> None:
    wyoming = slow(start_server, tmp_path, 0, env={"WHISPERD_API_KEY": "a-key-of-eight"}, retry_keep_s=60)
    for _ in range(2):
        asyncio.run(transcribe(wyoming.port, wav(tmp_path / "a.wav")))
    auth = {"Authorization": "Bearer a-key-of-eight"}
    with (tmp_path / "a.wav").open("rb") as file:
        httpx.post(f"{wyoming.server.url}/v1/audio/transcriptions", headers=auth, files={"file": file})
    metrics = httpx.get(f"{wyoming.server.url}/metrics", headers=auth).text
    assert 'whisperd_key_audio_seconds_total{key="wyoming"}' in metrics
    assert 'whisperd_key_audio_seconds_total{key="default"}' in metrics
    assert 'whisperd_jobs_joined_total{met="finished"} 1.0' in metrics
    assert httpx.get(f"{wyoming.server.url}/metrics").status_code == 401


def test_who_leaves_takes_the_job_along(start_server: StartServer, tmp_path: Path) -> None:
    wyoming = slow(start_server, tmp_path)

    async def leave() -> None:
        async with AsyncTcpClient("127.0.0.1", wyoming.port) as client:
            await send(client, wav(tmp_path / "a.wav"))
            await asyncio.to_thread(wait_for, lambda: "whisperd_queue_jobs 1.0" in metrics(), 20, wyoming.server.log)

    def metrics() -> str:
        return httpx.get(f"{wyoming.server.url}/metrics").text

    asyncio.run(leave())
    wait_for(lambda: 'whisperd_jobs_total{outcome="cancelled"} 1.0' in metrics(), 20, wyoming.server.log)


@pytest.mark.parametrize("whole", [True, False])
def test_who_is_here_when_the_server_goes_down_is_told(start_server: StartServer, tmp_path: Path, whole: bool) -> None:
    wyoming = slow(start_server, tmp_path, drain_s=1)

    async def told() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", wyoming.port) as client, AsyncTcpClient("127.0.0.1", wyoming.port):
            if whole:
                await send(client, wav(tmp_path / "a.wav"))
            else:
                await client.write_event(AudioStart(16_000, 2, 1).event())
            await asyncio.sleep(0.5)
            wyoming.server.process.terminate()
            return await until_answer(client)

    assert error_of(asyncio.run(told())).code == "shutting_down"
    assert wyoming.server.process.wait(30) == 0


def test_what_runs_is_answered_before_the_server_goes_down(start_server: StartServer, tmp_path: Path) -> None:
    wyoming = slow(start_server, tmp_path, 1.5, drain_s=20)

    async def answered() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", wyoming.port) as client:
            await send(client, wav(tmp_path / "a.wav"))
            await asyncio.sleep(0.5)
            wyoming.server.process.terminate()
            return await until_answer(client)

    assert Transcript.is_type(asyncio.run(answered())[-1].type)
    assert wyoming.server.process.wait(30) == 0


def test_it_listens_on_this_machine_alone_unless_told_otherwise(micro: Wyoming) -> None:
    listening = {
        each.laddr.ip
        for each in psutil.Process(micro.server.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == micro.port
    }
    assert listening == {"127.0.0.1"}


def test_no_word_of_it_is_logged(micro: Wyoming, tmp_path: Path) -> None:
    text = text_of(asyncio.run(transcribe(micro.port, wav(tmp_path / "a.wav"), language="en")))
    log = micro.server.log.read_text()
    assert "key=wyoming" in log
    assert text not in log
    assert max(text.split(), key=len) not in log


def test_an_address_without_a_port_is_a_sentence_at_the_start(tmp_path: Path) -> None:
    words = ["--wyoming-host", "0.0.0.0", "--backend", "fake", "--model", "x", "--state-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "app", "serve", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--wyoming-port" in done.stderr
