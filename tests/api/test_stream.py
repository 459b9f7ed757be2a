"""Server-sent events as clients read them."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import jsonschema
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats import DeltaText
from tests.conftest import Recording, Server, StartServer, clips, script_of, wait_for, word_error_rate

CLIP = clips("en000")[0]

#: Written from OpenAI's specification of TranscriptTextDeltaEvent and TranscriptTextDoneEvent.
DELTA = {
    "type": "object",
    "required": ["type", "delta"],
    "properties": {"type": {"const": "transcript.text.delta"}, "delta": {"type": "string", "minLength": 1}},
}
DONE = {
    "type": "object",
    "required": ["type", "text", "usage"],
    "properties": {
        "type": {"const": "transcript.text.done"},
        "text": {"type": "string"},
        "usage": {
            "type": "object",
            "required": ["type", "input_tokens", "output_tokens", "total_tokens"],
            "properties": {
                "type": {"const": "tokens"},
                "input_tokens": {"type": "integer", "minimum": 1},
                "output_tokens": {"type": "integer", "minimum": 1},
                "total_tokens": {"type": "integer", "minimum": 2},
                "input_token_details": {
                    "type": "object",
                    "properties": {"text_tokens": {"type": "integer"}, "audio_tokens": {"type": "integer"}},
                },
            },
        },
    },
}


def stream(server: Server, path: Path, **fields: str) -> tuple[list[str], list[str]]:
    """The response's ``data:`` payloads and its comments, in order."""
    with (
        path.open("rb") as file,
        httpx.stream(
            "POST",
            f"{server.url}/v1/audio/transcriptions",
            files={"file": file},
            data={"stream": "true", **fields},
            timeout=120,
        ) as response,
    ):
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        lines = [line for line in response.iter_lines() if line]
    return (
        [line.removeprefix("data: ") for line in lines if line.startswith("data: ")],
        [line for line in lines if line.startswith(":")],
    )


def test_deltas_joined_are_the_text_of_done_byte_for_byte(start_server: StartServer, long_recording: Recording) -> None:
    """One window a step, so that the deltas are many however fast the machine."""
    server = start_server(backend="faster-whisper", model="micro", max_batch=1)
    data, comments = stream(server, long_recording.path, language="en")
    server.stop()
    assert data.pop() == "[DONE]"
    *deltas, done = [json.loads(line) for line in data]
    for delta in deltas:
        jsonschema.validate(delta, DELTA)
    jsonschema.validate(done, DONE)
    assert len(deltas) > 2, "text comes as its windows are done"
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert word_error_rate([long_recording.text], [done["text"]]) <= 0.05
    usage = done["usage"]
    assert usage["input_token_details"]["audio_tokens"] == pytest.approx(long_recording.duration * 50, abs=2)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert comments, "the first comment tells the place in the queue"


def test_streamed_and_plain_answers_have_the_same_text(server: Server) -> None:
    data, _ = stream(server, CLIP.path)
    assert json.loads(data[-2])["text"] == server.transcribe(CLIP.path).json()["text"]


def test_log_probabilities_come_with_deltas_and_done(server: Server) -> None:
    data, _ = stream(server, CLIP.path, **{"include[]": "logprobs"})
    *deltas, done = [json.loads(line) for line in data[:-1]]
    tokens = [token for delta in deltas for token in delta["logprobs"]]
    assert tokens == done["logprobs"]
    assert bytes(b for token in tokens for b in token["bytes"]).decode().strip() == done["text"]
    assert all(token["logprob"] <= 0 for token in tokens)


def test_a_file_that_is_no_audio_is_still_a_400(server: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    response = server.transcribe(tmp_path / "letter.txt", stream="true")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_audio")


def test_silence_is_a_done_event_without_deltas(start_server: StartServer, tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "silence.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(64_000))
    server = start_server(backend="fake", model=script_of(tmp_path))
    data, _ = stream(server, tmp_path / "silence.wav")
    assert [json.loads(line)["type"] for line in data[:-1]] == ["transcript.text.done"]
    assert json.loads(data[0])["text"] == ""
    server.stop()


def test_what_fails_after_the_first_byte_is_an_error_event(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, on_step={"1": "raise"}))
    data, _ = stream(server, CLIP.path)
    (error,) = [json.loads(line)["error"] for line in data]
    assert error["code"] == "inference_failed"
    assert error.keys() == {"message", "type", "param", "code"}
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with CLIP.path.open("rb") as file:
        assert "".join(
            event.delta
            for event in client.audio.transcriptions.create(file=file, model="whisper-1", stream=True)
            if event.type == "transcript.text.delta"
        )
    server.stop()


def test_comments_keep_a_waiting_stream_alive(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=6))
    _, comments = stream(server, CLIP.path)
    assert len(comments) >= 2
    assert all("position 1" in comment for comment in comments)
    server.stop()


def test_a_stream_tells_that_the_model_is_loading(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(ready=False, backend="fake", model=script_of(tmp_path, load_seconds=2))
    _, comments = stream(server, CLIP.path)
    assert "loading" in comments[0]
    server.stop()


def test_a_stream_that_is_left_frees_its_place(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.3), max_batch=1)

    def leave() -> None:
        with (
            long_recording.path.open("rb") as file,
            httpx.stream(
                "POST", f"{server.url}/v1/audio/transcriptions", files={"file": file}, data={"stream": "true"}
            ) as response,
        ):
            next(response.iter_lines())

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(30)
    wait_for(lambda: "whisperd_queue_jobs 0.0" in httpx.get(f"{server.url}/metrics").text, 5, server.log)
    assert 'outcome="cancelled"} 1.0' in httpx.get(f"{server.url}/metrics").text
    started = time.monotonic()
    assert server.transcribe(CLIP.path).status_code == 200
    assert time.monotonic() - started < 3
    assert list((server.log.parent / "state" / "spool").glob("server-*/job-*")) == []
    server.stop()


@pytest.mark.parametrize("name", ["srt", "vtt", "verbose_json"])
def test_formats_with_a_shape_of_their_own_are_sent_whole(server: Server, name: str) -> None:
    response = server.transcribe(CLIP.path, stream="true", response_format=name)
    assert response.status_code == 200
    assert not response.headers["content-type"].startswith("text/event-stream")


@given(st.lists(st.text(alphabet="ab \n\t", max_size=6), max_size=8))
def test_deltas_of_any_segments_join_to_the_stripped_text(texts: list[str]) -> None:
    delta = DeltaText()
    sent = [delta.push(text) for text in texts]
    assert "".join(sent) == "".join(texts).strip()
