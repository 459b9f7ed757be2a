"""What real clients send, one test a habit: each was read in the client's source. The real server and model answer."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import openai
import pytest

from tests.conftest import Server, clips, word_error_rate

CLIP = clips("en000")[0]
AUDIO = CLIP.path.read_bytes()
PATH = "/v1/audio/transcriptions"
#: (header lines, content)
Part = tuple[str, bytes]


@pytest.fixture(scope="module")
def webm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The clip as a browser records it."""
    path = tmp_path_factory.mktemp("webm") / "clip.webm"
    with av.open(str(CLIP.path)) as source, av.open(str(path), "w", container_options={"live": "1"}) as target:
        sound = target.add_stream("libopus", rate=48_000, layout="mono")
        resampler = av.AudioResampler(sound.codec_context.format, "mono", 48_000, sound.codec_context.frame_size or 960)
        for frame in source.decode(audio=0):
            for resampled in resampler.resample(frame):
                target.mux(sound.encode(resampled))
        for resampled in resampler.resample(None):
            target.mux(sound.encode(resampled))
        target.mux(sound.encode(None))
    return path.read_bytes()


def post(server: Server, body: bytes | Iterator[bytes], path: str = PATH, **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{server.url}{path}", content=body, headers=given, timeout=60)


def post_form(server: Server, parts: list[Part], path: str = PATH, **headers: str) -> httpx.Response:
    """A multipart body put together by hand, for what no library here would send."""
    return post(server, form_of(parts), path, content_type="multipart/form-data; boundary=x", **headers)


def post_verbatim(server: Server, parts: list[Part], headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    """Status and JSON body; for headers such as an empty Bearer, which httpx refuses to send."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        headers = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        connection.request("POST", PATH, form_of(parts), headers)
        response = connection.getresponse()
        assert response.headers["content-type"] == "application/json"
        return response.status, json.loads(response.read())


def form_of(parts: list[Part]) -> bytes:
    return b"".join(b"--x\r\n%b\r\n\r\n%b\r\n" % (head.encode(), content) for head, content in parts) + b"--x--\r\n"


def text_part(name: str, value: str, headers: str = "") -> Part:
    return f'Content-Disposition: form-data; name="{name}"{headers}', value.encode()


def file_part(content: bytes, file_name: str = '; filename="audio.webm"', headers: str = "") -> Part:
    return f'Content-Disposition: form-data; name="file"{file_name}{headers}', content


def assert_heard(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    assert word_error_rate([CLIP.text], [response.json()["text"]]) <= 0.2


def assert_refused(response: httpx.Response, param: str | None, status: int = 400) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param


def test_open_webui_types_its_text_parts_and_leaves_the_model_empty(server: Server, webm: bytes) -> None:
    plain = "\r\nContent-Type: text/plain; charset=utf-8"
    untold = "\r\nContent-Type: application/octet-stream"
    parts = [text_part("model", "", plain), text_part("language", "en", plain), file_part(webm, headers=untold)]
    assert_heard(post_form(server, parts, authorization="Bearer sk-none", x_openwebui_user_name="M%C3%BCller"))


def test_open_webui_sends_json_with_base64_in_its_json_mode(server: Server, webm: bytes) -> None:
    audio = {"data": base64.b64encode(webm).decode(), "format": "webm"}
    body = {"model": "whisper-1", "language": "en", "input_audio": audio}
    assert_heard(httpx.post(f"{server.url}{PATH}", json=body, timeout=60))


def test_open_webuis_older_copies_send_a_file_without_a_content_type(server: Server, webm: bytes) -> None:
    assert_heard(post_form(server, [text_part("model", "whisper-1"), file_part(webm)]))


def test_obsidian_sends_no_key_and_a_browsers_recording(server: Server, webm: bytes) -> None:
    blob = file_part(webm, '; filename="blob"', "\r\nContent-Type: audio/webm;codecs=opus")
    parts = [blob, text_part("model", "whisper-1"), text_part("prompt", "A story.")]
    assert_heard(post_form(server, parts, origin="app://obsidian.md"))


def test_voiceink_sends_an_empty_bearer_and_calls_everything_wav(server: Server, webm: bytes) -> None:
    parts = [
        file_part(webm, '; filename="recording.wav"', "\r\nContent-Type: audio/wav"),
        text_part("model", "whisper-1"),
        text_part("response_format", "json"),
        text_part("temperature", "0"),
    ]
    status, body = post_verbatim(server, parts, {"Authorization": "Bearer "})
    assert status == 200
    assert word_error_rate([CLIP.text], [body["text"]]) <= 0.2
    # Its decoder is strict: what is there has this type.
    assert isinstance(body.get("duration", 0.0), int | float)


def test_openwhispr_streams_with_its_dictionary_as_the_prompt(server: Server, webm: bytes) -> None:
    prompt = text_part("prompt", "Kubernetes, Grafana, OpenWhispr, gentleman")
    parts = [file_part(webm), text_part("model", "whisper-1"), prompt, text_part("stream", "true")]
    response = post_form(server, parts)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    deltas, done = events(response.text)
    assert word_error_rate([CLIP.text], [done]) <= 0.3
    assert deltas == done


@pytest.mark.parametrize("language", ["fil", "no", "en"])
def test_home_assistant_cuts_its_language_codes_short(server: Server, language: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    result = client.audio.transcriptions.create(
        model="gpt-4o-mini-transcribe", file=("a.wav", AUDIO), language=language, prompt="", response_format="json"
    )
    assert result.text


def test_home_assistants_custom_component_reads_every_answer_as_json(server: Server) -> None:
    fields = {"model": "whisper-1", "language": "en-GB", "temperature": "0", "prompt": "", "response_format": "json"}
    texts = [text_part(name, value) for name, value in fields.items()]
    for content, expected in ((AUDIO, 200), (b"no sound", 400)):
        parts = [file_part(content, '; filename="audio.wav"'), *texts]
        status, body = post_verbatim(server, parts, {"Authorization": "Bearer "})
        assert status == expected
        assert isinstance(body, dict)


def test_wyoming_openai_reads_deltas_alone_and_sends_a_field_of_another_server(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    stream = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", AUDIO), stream=True, extra_body={"vad_filter": False}
    )
    text = "".join(each.delta for each in stream if each.type == "transcript.text.delta")
    assert word_error_rate([CLIP.text], [text]) <= 0.2
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_langchain_names_a_nameless_file(server: Server) -> None:
    part = io.BytesIO(AUDIO)
    part.name = "/home/ann/talk_part_0.mp3"
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    result = client.audio.transcriptions.create(model="whisper-1", file=part)
    assert word_error_rate([CLIP.text], [result.text]) <= 0.2


def test_litellm_asks_for_verbose_json_below_a_base_url_without_the_version(server: Server) -> None:
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    result = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", AUDIO), response_format="verbose_json"
    )
    assert result.duration == pytest.approx(CLIP.duration, abs=0.1)
    assert result.segments


def test_n8n_has_the_model_hard_coded(server: Server) -> None:
    file = ("data.flac", AUDIO, "audio/x-flac")
    assert_heard(httpx.post(f"{server.url}{PATH}", files={"file": file}, data={"model": "whisper-1"}, timeout=60))


def test_vercels_sdk_looks_the_language_up_by_its_english_name(server: Server) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["segment"], "temperature": "0"}
    response = httpx.post(
        f"{server.url}{PATH}", files={"file": ("audio.flac", AUDIO, "audio/flac")}, data=fields, timeout=60
    )
    assert_heard(response)
    assert response.json()["language"] == "english"


def test_librechat_sends_a_language_of_two_letters_and_a_webm(server: Server, webm: bytes) -> None:
    parts = [file_part(webm, headers="\r\nContent-Type: audio/webm"), text_part("language", "en")]
    assert_heard(post_form(server, parts))


def test_openais_node_sdk_sends_a_nameless_stream_of_unknown_length(server: Server) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="unknown_file"\r\n'
    start = f"--x\r\n{head}Content-Type: application/octet-stream\r\n\r\n".encode()

    def chunks() -> Iterator[bytes]:
        yield start
        for offset in range(0, len(AUDIO), 1000):
            yield AUDIO[offset : offset + 1000]
        yield b"\r\n--x--\r\n"

    assert_heard(post(server, chunks(), content_type="multipart/form-data; boundary=x"))


def test_openais_python_sdk_sends_bytes_without_a_name_and_every_new_field(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    result = client.audio.transcriptions.create(
        model="gpt-4o-transcribe",
        file=AUDIO,
        language="",
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 500},
        extra_body={"hotwords": "gentleman, books", "languages[]": ["en", "de"], "no_such_field": "1"},
    )
    assert word_error_rate([CLIP.text], [result.text]) <= 0.2


def test_curl_spells_granularities_without_brackets(server: Server) -> None:
    response = server.transcribe(CLIP.path, response_format="verbose_json", timestamp_granularities="word,segment")
    assert_heard(response)
    assert response.json().keys() >= {"words", "segments"}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "audio/flac", ""])
def test_curls_data_binary_is_the_audio_itself(server: Server, content_type: str) -> None:
    headers = {"content_type": content_type} if content_type else {}
    response = post(server, AUDIO, f"{PATH}?response_format=verbose_json&language=English&model=whisper-1", **headers)
    assert_heard(response)
    assert response.json()["language"] == "english"


def test_curls_data_in_a_real_form_has_no_audio(server: Server) -> None:
    body = urllib.parse.urlencode({"model": "whisper-1", "file": "@talk.mp3"}).encode()
    assert_refused(post(server, body, content_type="application/x-www-form-urlencoded"), "file")


def test_fields_of_the_query_string_help_a_form_out(server: Server) -> None:
    response = post_form(server, [file_part(AUDIO)], f"{PATH}?response_format=text")
    assert response.headers["content-type"].startswith("text/plain")
    parts = [file_part(AUDIO), text_part("response_format", "json")]
    assert_heard(post_form(server, parts, f"{PATH}?response_format=text"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "whisper-1"}', "input_audio"),
        (b'{"input_audio": {"data": "not base64!"}}', "input_audio"),
        (b'{"input_audio": {"data": "AAAA"}, "temperature": 7}', "temperature"),
        (b'{"input_audio": {"data": "AAAA"}', None),
        (b"", None),
    ],
)
def test_json_that_cannot_be_used_is_a_400(server: Server, body: bytes, param: str | None) -> None:
    assert_refused(post(server, body, content_type="application/json"), param)


def test_json_is_judged_by_its_decoded_audio(server: Server) -> None:
    text = base64.b64encode(b"Dear Sir or Madam").decode()
    response = httpx.post(f"{server.url}{PATH}", json={"input_audio": {"data": text}})
    assert response.json()["error"]["code"] == "unsupported_audio"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names"),
        ({"known_speaker_references[]": "data:audio/wav;base64,AAAA"}, "known_speaker_references"),
        ({"include[]": "logprobs", "response_format": "srt"}, "include"),
        ({"chunking_strategy": "manual"}, "chunking_strategy"),
        ({"languages[]": "klingon"}, "languages"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_that_names_it(server: Server, fields: dict[str, str], param: str) -> None:
    assert_refused(server.transcribe(CLIP.path, **fields), param)


@pytest.mark.parametrize("value", ["true", "0", "off", "null", "undefined", "None", ""])
def test_odd_booleans_are_understood(server: Server, value: str) -> None:
    response = server.transcribe(CLIP.path, stream=value)
    assert response.status_code == 200
    streams = response.headers["content-type"].startswith("text/event-stream")
    assert streams == (value == "true")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/transcriptions/",
        "/audio/transcriptions",
        "/audio/transcriptions/",
        "//v1/audio/transcriptions",
        "/v1/v1/audio/transcriptions",
        "/v1/audio/transcriptions/audio/transcriptions",
        "/inference",
    ],
)
def test_every_pasted_path_leads_to_the_endpoint(server: Server, path: str) -> None:
    assert_heard(post_form(server, [file_part(AUDIO)], path))


@pytest.mark.parametrize("path", ["/health/", "/ready/", "/metrics/", "/openapi.json/", "/models", "/v1/models/"])
def test_the_other_paths_take_a_slash_too_many(server: Server, path: str) -> None:
    assert httpx.get(f"{server.url}{path}").status_code == 200


@pytest.mark.parametrize("path", ["/models/micro/", "/v1/v1/models/micro"])
def test_a_model_is_found_below_any_spelling(server: Server, path: str) -> None:
    assert httpx.get(f"{server.url}{path}").json()["id"] == "micro"


@pytest.mark.parametrize("path", ["/v1/models/mlx-community/whisper-tiny", "/models/mlx-community%2Fwhisper-tiny/"])
def test_a_models_slash_comes_raw_or_escaped(server: Server, path: str) -> None:
    response = httpx.get(f"{server.url}{path}")
    assert response.status_code == 404
    assert "mlx-community/whisper-tiny" in response.json()["error"]["message"]


def test_neither_field_values_nor_json_reach_the_log(server: Server, tmp_path: Path) -> None:
    audio = {"data": base64.b64encode(AUDIO).decode()}
    body = {"input_audio": audio, "prompt": "Codename Kingfisher", "keywords": ["Kingfisher"], "temperature": "Fisher"}
    assert_refused(httpx.post(f"{server.url}{PATH}", json=body), "temperature")
    log = server.log.read_text()
    assert "fisher" not in log.lower()
    assert audio["data"][:40] not in log


def events(stream: str) -> tuple[str, str]:
    """(the deltas joined, the final text) of server-sent events that end as they should."""
    lines = [line.removeprefix("data: ") for line in stream.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    bodies = [json.loads(line) for line in lines[:-1]]
    assert bodies[-1]["type"] == "transcript.text.done"
    return "".join(body["delta"] for body in bodies[:-1]), bodies[-1]["text"]
