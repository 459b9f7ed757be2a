"""The HTTP client of a running server, against real ones."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.client import Client, QueueEntry
from app.errors import BackendUnavailable, Unauthorized, UnsupportedAudio
from app.formats import FORMATS
from app.settings import load_settings
from app.transcript import Options
from tests.conftest import Recording, Server, StartServer, clips, free_port, script_of, wait_for

CLIP = clips("en000")[0]


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A client of a port, with more settings as keywords; all are closed."""
    with contextlib.ExitStack() as stack:
        yield lambda port, **fields: stack.enter_context(Client(load_settings(port=port, **fields)))


@pytest.fixture
def client(connect: Connect, server: Server) -> Client:
    return connect(port_of(server))


@pytest.mark.parametrize("words", [False, True])
def test_one_answer_gives_every_format_as_the_server_writes_it(client: Client, server: Server, words: bool) -> None:
    granularities = ["segment", "word"] if words else ["segment"]
    for clip in [*clips("en00")[:3], *clips("de00")[:2], *clips("es00")[:2]]:
        transcript = client.transcribe(clip.path, Options(words=words))
        assert any(segment.words for segment in transcript) == words
        for name in ["verbose_json"] if words else FORMATS:
            fields = {"response_format": name, "timestamp_granularities[]": granularities}
            text = FORMATS[name].render(transcript, frozenset(granularities))
            assert text == server.transcribe(clip.path, **fields).text


def test_words_stay_with_their_segments(client: Client, long_recording: Recording) -> None:
    transcript = client.transcribe(long_recording.path, Options(language="en", words=True))
    assert len(transcript.segments) > 5
    for segment in transcript:
        spoken = "".join(segment.text.split())
        assert "".join(word.word.replace(" ", "") for word in segment.words) == spoken


def test_it_tells_where_the_job_stands_and_what_was_sent(client: Client, long_recording: Recording) -> None:
    entries: list[QueueEntry] = []
    pieces: list[int] = []
    client.transcribe(long_recording.path, Options(), on_sent=pieces.append, on_queue=entries.append)
    assert sum(pieces) == long_recording.path.stat().st_size
    assert entries
    assert all(0 <= entry.done_s <= entry.audio_s for entry in entries)
    assert entries[-1].audio_s == pytest.approx(long_recording.duration, abs=0.2)


def test_work_that_an_earlier_request_began_is_followed_too(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=2), retry_keep_s=60)
    client = connect(port_of(server))
    entries: list[QueueEntry] = []
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.transcribe, CLIP.path, Options())
        wait_for(lambda: bool(client.queue()), 20)
        second = client.transcribe(CLIP.path, Options(), on_queue=entries.append)
        assert first.result() == second
    assert entries


def test_the_queue_and_health_of_a_server(client: Client) -> None:
    health = client.health()
    assert client.runs()
    assert health.ready
    assert health.details["model"] == "micro"
    assert client.queue() == []


def test_the_servers_errors_are_raised_as_ours(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound in here")
    with pytest.raises(UnsupportedAudio, match="text file"):
        client.transcribe(tmp_path / "notes.txt", Options())


def test_without_the_key_it_says_which_variable_holds_it(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    locked = start_server(backend="fake", model=script_of(tmp_path), env={"WHISPERD_API_KEY": "long enough"})
    client = connect(port_of(locked))
    assert client.runs()
    assert client.health().details == {}
    with pytest.raises(Unauthorized, match="WHISPERD_API_KEY"):
        client.queue()
    assert connect(port_of(locked), api_key="long enough").queue() == []


def test_a_server_that_goes_away_is_a_sentence(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=60), drain_s=0)
    client = connect(port_of(server))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.transcribe, CLIP.path, Options())
        wait_for(lambda: bool(client.queue()), 20)
        server.process.send_signal(signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match="went away"):
            waiting.result(30)
    assert not client.runs()
    with pytest.raises(BackendUnavailable, match="went away"):
        client.transcribe(CLIP.path, Options())


def test_nothing_runs_where_nobody_listens(connect: Connect) -> None:
    assert not connect(free_port()).runs()
