"""The endpoint as a client meets it: the real server, a real socket, the bundled model."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import httpx
import jsonschema
import openai
import pytest

from tests.conftest import Server, clips, word_error_rate

ENGLISH, GERMAN, SPANISH = clips("en000")[0], clips("de000")[0], clips("es000")[0]

#: Written from OpenAI's specification of CreateTranscriptionResponseVerboseJson, not from our own models.
VERBOSE_SCHEMA = {
    "type": "object",
    "required": ["task", "language", "duration", "text"],
    "properties": {
        "task": {"const": "transcribe"},
        "language": {"type": "string", "pattern": "^[a-z ]{3,}$"},
        "duration": {"type": "number"},
        "text": {"type": "string"},
        "words": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["word", "start", "end"],
                "properties": {
                    "word": {"type": "string", "pattern": r"^\S"},
                    "start": {"type": "number"},
                    "end": {"type": "number"},
                },
            },
        },
        "segments": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
                    "no_speech_prob",
                ],
                "properties": {
                    "id": {"type": "integer"}, "seek": {"type": "integer"}, "start": {"type": "number"},
                    "end": {"type": "number"}, "text": {"type": "string"},
                    "tokens": {"type": "array", "items": {"type": "integer"}}, "temperature": {"type": "number"},
                    "avg_logprob": {"type": "number"}, "compression_ratio": {"type": "number"},
                    "no_speech_prob": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        },
    },
}  # fmt: skip


def test_json_is_the_default_and_holds_the_text(server: Server) -> None:
    response = server.transcribe(ENGLISH.path, model="whisper-1")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert word_error_rate([ENGLISH.text], [body["text"]]) == 0
    assert body["usage"] == {"type": "duration", "seconds": math.ceil(ENGLISH.duration)}


def test_text_is_not_quoted(server: Server) -> None:
    response = server.transcribe(ENGLISH.path, response_format="text")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("The old gentleman")
    assert response.text.endswith("\n")


@pytest.mark.parametrize(
    ("name", "media_type", "pattern"),
    [
        ("srt", "application/x-subrip", r"\A1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nThe old .*\n\Z"),
        ("vtt", "text/vtt", r"\AWEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\nThe old .*\n\Z"),
    ],
)
def test_subtitles_have_their_times(server: Server, name: str, media_type: str, pattern: str) -> None:
    response = server.transcribe(ENGLISH.path, response_format=name)
    assert response.headers["content-type"].split(";")[0] == media_type
    assert re.match(pattern, response.text, re.DOTALL)


def test_verbose_json_has_openais_shape_with_segments(server: Server) -> None:
    body = server.transcribe(ENGLISH.path, response_format="verbose_json").json()
    jsonschema.validate(body, VERBOSE_SCHEMA)
    assert "words" not in body
    assert body["language"] == "english"
    assert body["duration"] == pytest.approx(ENGLISH.duration, abs=0.05)
    assert all(0 <= segment["start"] <= segment["end"] <= body["duration"] for segment in body["segments"])
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"]


def test_words_come_when_asked_for_and_segments_only_if_asked_too(server: Server) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
    body = server.transcribe(ENGLISH.path, **fields).json()
    jsonschema.validate(body, VERBOSE_SCHEMA)
    assert "segments" not in body
    assert " ".join(word["word"] for word in body["words"]) == body["text"]
    times = [time for word in body["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[-1] <= body["duration"]
    fields["timestamp_granularities[]"] = ["word", "segment"]
    assert server.transcribe(ENGLISH.path, **fields).json().keys() >= {"words", "segments"}


def test_granularities_without_brackets_are_understood(server: Server) -> None:
    body = server.transcribe(ENGLISH.path, response_format="verbose_json", timestamp_granularities="word").json()
    assert body["words"]


@pytest.mark.parametrize("clip", [GERMAN, SPANISH], ids=lambda clip: clip.language)
def test_the_language_is_detected(server: Server, clip: object) -> None:
    body = server.transcribe(clip.path, response_format="verbose_json").json()
    assert (body["language_code"], body["language"]) == {"de": ("de", "german"), "es": ("es", "spanish")}[clip.language]


def test_a_language_that_is_given_is_used(server: Server) -> None:
    body = server.transcribe(GERMAN.path, response_format="verbose_json", language="German").json()
    assert body["language"] == "german"
    assert word_error_rate([GERMAN.text], [body["text"]]) <= 0.2


def test_a_prompt_does_not_show_in_the_text(server: Server) -> None:
    body = server.transcribe(ENGLISH.path, prompt="A story about an old man and his books.").json()
    assert word_error_rate([ENGLISH.text], [body["text"]]) <= 0.1


def test_options_do_not_leak_into_the_next_request(server: Server) -> None:
    plain = {"response_format": "verbose_json"}
    before = server.transcribe(ENGLISH.path, **plain).json()
    server.transcribe(
        GERMAN.path, **plain, language="es", prompt="Hola", temperature="1", **{"timestamp_granularities[]": "word"}
    )
    assert server.transcribe(ENGLISH.path, **plain).json() == before


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "yaml"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "0,2"}, "temperature"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"language": "klingon"}, "language"),
        ({"timestamp_granularities[]": "sentence"}, "timestamp_granularities"),
    ],
)
def test_a_field_that_cannot_be_used_is_a_400_that_names_it(server: Server, fields: dict[str, str], param: str) -> None:
    response = server.transcribe(ENGLISH.path, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["message"].endswith(".")


def test_empty_and_unknown_fields_are_ignored(server: Server) -> None:
    response = server.transcribe(
        ENGLISH.path,
        model="",
        language="",
        prompt="",
        response_format="",
        temperature="",
        vad_filter="false",
        stream="",
    )
    assert response.status_code == 200


def test_an_unknown_model_is_a_404(server: Server) -> None:
    response = server.transcribe(ENGLISH.path, model="gpt-17")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_a_model_that_is_not_downloaded_is_a_404_with_the_command(server: Server) -> None:
    response = server.transcribe(ENGLISH.path, model="large-v3-turbo")
    assert response.status_code == 404
    assert "whisperd models pull large-v3-turbo" in response.json()["error"]["message"]


def test_silence_is_an_empty_text(server: Server, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    silence.write_bytes(wav(bytes(2 * 16_000 * 3)))
    response = server.transcribe(silence, response_format="verbose_json")
    assert response.status_code == 200
    assert (response.json()["text"], response.json()["segments"], response.json()["duration"]) == ("", [], 3.0)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "undecodable_audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "unsupported_audio"),
        (b"Dear Sir or Madam, this is a letter.", "unsupported_audio"),
        (b"ffconcat version 1.0\nfile secret.wav\n", "unsupported_audio"),
    ],
    ids=["empty", "png", "text", "playlist"],
)
def test_what_is_no_audio_is_a_400_with_a_sentence(server: Server, tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "audio.mp3"
    file.write_bytes(content)
    response = server.transcribe(file)
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


def test_a_request_without_a_file_is_a_400(server: Server) -> None:
    response = httpx.post(f"{server.url}/v1/audio/transcriptions", files={"model": (None, "whisper-1")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"model=whisper-1"),
        ({"Content-Type": "multipart/form-data"}, b"no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"not a form at all"),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut',
        ),
        ({}, b""),
    ],
    ids=["urlencoded", "no boundary", "garbage", "cut off", "nothing"],
)
def test_a_body_that_is_no_form_is_a_400(server: Server, headers: dict[str, str], body: bytes) -> None:
    response = httpx.post(f"{server.url}/v1/audio/transcriptions", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_file_part_without_a_name_or_type_is_taken(server: Server) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + ENGLISH.path.read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{server.url}/v1/audio/transcriptions", content=body, headers=headers, timeout=60)
    assert response.status_code == 200
    assert response.json()["text"]


def test_wrong_paths_and_methods_get_openais_envelope(server: Server) -> None:
    for response, status in (
        (httpx.get(f"{server.url}/v1/nothing"), 404),
        (httpx.get(f"{server.url}/v1/audio/transcriptions"), 405),
    ):
        assert response.status_code == status
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}


def test_openais_own_client_gets_its_answer(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    with ENGLISH.path.open("rb") as file:
        result = client.audio.transcriptions.create(
            file=file, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    assert result.text.startswith("The old gentleman")
    assert result.words
    assert result.segments
    with pytest.raises(openai.NotFoundError) as caught, ENGLISH.path.open("rb") as file:
        client.audio.transcriptions.create(file=file, model="nothing-like-it")
    assert caught.value.code == "model_not_found"


def test_neither_text_nor_prompt_nor_name_reaches_the_log(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "diary-of-a-spy.flac"
    secret.write_bytes(ENGLISH.path.read_bytes())
    server.transcribe(secret, prompt="Codename Nightingale")
    server.transcribe(secret, language="Nightingalese")
    log = server.log.read_text()
    assert "job ended" in log
    for word in ("diary", "Nightingale", "gentleman"):
        assert word not in log
    assert "gentleman" not in httpx.get(f"{server.url}/metrics").text


def wav(pcm: bytes) -> bytes:
    """16 kHz mono s16 samples as a WAV file."""
    head = b"RIFF" + (36 + len(pcm)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = (1).to_bytes(2, "little") + (1).to_bytes(2, "little") + (16_000).to_bytes(4, "little")
    form += (32_000).to_bytes(4, "little") + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    return head + form + b"data" + len(pcm).to_bytes(4, "little") + pcm


def test_json_escapes_nothing_that_is_readable(server: Server) -> None:
    raw = server.transcribe(GERMAN.path).content
    assert json.loads(raw)["text"].encode() in raw


def test_a_language_that_only_the_model_does_not_know_names_its_field_too(server: Server) -> None:
    """yue came with large-v3: whisperd knows it, micro does not, so the refusal comes from the worker."""
    response = server.transcribe(ENGLISH.path, language="yue")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "language")
