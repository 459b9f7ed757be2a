"""openai-python as people use it. Bodies are checked as they came over the wire: the SDK's own models accept what no
schema would.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from tests.clients import shapes
from tests.conftest import Clip, Recording, Server, StartServer, wait_for, word_error_rate

pytestmark = pytest.mark.client("openai-python", package="openai")


def connect(server: Server, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", **{"api_key": "none", "max_retries": 0, **options})


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with connect(server) as client:
        yield client


def wire(client: openai.OpenAI, path: Path, **options: Any) -> Any:
    """The body as it came, parsed as JSON and nothing more."""
    response = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=path, **options)
    return response.http_response.json()


def test_json_is_the_default(client: openai.OpenAI, clip: Clip) -> None:
    body = wire(client, clip.path)
    jsonschema.validate(body, shapes.JSON)
    assert word_error_rate([clip.text], [body["text"]]) == 0


def test_the_async_client_gets_the_same(server: Server, client: openai.OpenAI, clip: Clip) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asking:
            return (await asking.audio.transcriptions.create(model="whisper-1", file=clip.path)).text

    assert asyncio.run(ask()) == client.audio.transcriptions.create(model="whisper-1", file=clip.path).text


@pytest.mark.parametrize("asked", [("segment",), ("word",), ("word", "segment")], ids=" and ".join)
def test_verbose_json_holds_exactly_the_times_asked_for(
    client: openai.OpenAI, clip: Clip, asked: tuple[str, ...]
) -> None:
    body = wire(client, clip.path, response_format="verbose_json", timestamp_granularities=list(asked))
    kinds = {"word": ("words", shapes.WORD), "segment": ("segments", shapes.SEGMENT)}
    jsonschema.validate(body, shapes.verbose(**dict(kinds[name] for name in asked)))
    assert (body["language"], body["language_code"]) == ("english", "en")
    assert body["duration"] == pytest.approx(clip.duration, abs=0.05)


@pytest.mark.parametrize(("name", "start"), [("text", "The old"), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")])
def test_text_formats_come_unquoted(client: openai.OpenAI, clip: Clip, name: str, start: str) -> None:
    text = client.audio.transcriptions.create(model="whisper-1", file=clip.path, response_format=name)
    assert isinstance(text, str)
    assert text.startswith(start)


def test_streamed_deltas_join_to_the_text(stepwise: Server, long_recording: Recording, answer_to_long: str) -> None:
    with (
        connect(stepwise) as client,
        client.audio.transcriptions.create(model="whisper-1", file=long_recording.path, stream=True) as stream,
    ):
        *deltas, done = list(stream)
    assert len(deltas) > 1
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == answer_to_long
    assert done.usage is not None
    jsonschema.validate(done.usage.model_dump(exclude_none=True), shapes.TOKEN_USAGE)
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


def test_the_async_client_streams_too(server: Server, clip: Clip) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asking:
            stream = await asking.audio.transcriptions.create(model="whisper-1", file=clip.path, stream=True)
            return [event async for event in stream]

    *deltas, done = asyncio.run(ask())
    assert "".join(event.delta for event in deltas) == done.text
    assert word_error_rate([clip.text], [done.text]) == 0


def test_log_probabilities_come_with_their_bytes(client: openai.OpenAI, clip: Clip) -> None:
    body = wire(client, clip.path, include=["logprobs"])
    jsonschema.validate(body, shapes.JSON_WITH_LOGPROBS)
    spoken = bytes(byte for each in body["logprobs"] for byte in each["bytes"]).decode()
    assert spoken.strip() == body["text"]


def test_streamed_log_probabilities_are_those_of_the_whole(client: openai.OpenAI, clip: Clip) -> None:
    options: dict[str, Any] = {"model": "whisper-1", "file": clip.path, "include": ["logprobs"]}
    *deltas, done = list(client.audio.transcriptions.create(stream=True, **options))
    streamed = [each.model_dump() for event in deltas for each in event.logprobs]
    assert streamed == [each.model_dump() for each in done.logprobs]
    assert streamed
    jsonschema.validate(streamed, shapes.many(shapes.LOGPROB))


def test_log_probabilities_want_json(client: openai.OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        wire(client, clip.path, include=["logprobs"], response_format="verbose_json")
    assert caught.value.param in {"include", "include[]"}


def test_bytes_without_a_name_are_transcribed(client: openai.OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=clip.path.read_bytes())
    assert word_error_rate([clip.text], [answer.text]) == 0


def test_a_name_that_lies_about_the_format_does_no_harm(client: openai.OpenAI, clip: Clip) -> None:
    file = io.BytesIO(clip.path.read_bytes())
    file.name = "../../speech.mp3"
    answer = client.audio.transcriptions.create(model="whisper-1", file=file)
    assert word_error_rate([clip.text], [answer.text]) == 0


def test_empty_options_are_as_if_absent(client: openai.OpenAI, clip: Clip) -> None:
    body = wire(client, clip.path, language="", prompt="", temperature=0)
    assert word_error_rate([clip.text], [body["text"]]) == 0


@pytest.mark.parametrize(
    "strategy",
    ["auto", {"type": "server_vad"}, {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300}],
    ids=["auto", "object", "object with figures"],
)
def test_a_chunking_strategy_is_taken(client: openai.OpenAI, clip: Clip, strategy: Any) -> None:
    body = wire(client, clip.path, chunking_strategy=strategy)
    assert word_error_rate([clip.text], [body["text"]]) <= 0.1


def test_extra_fields_of_other_servers_do_no_harm(client: openai.OpenAI, clip: Clip) -> None:
    extra = {"hotwords": "gentleman, fire", "vad_filter": False, "keywords": ["book"], "without_timestamps": True}
    body = wire(client, clip.path, extra_body=extra)
    assert word_error_rate([clip.text], [body["text"]]) <= 0.1


def test_candidate_languages_are_taken(client: openai.OpenAI, clip: Clip) -> None:
    body = wire(client, clip.path, response_format="verbose_json", extra_body={"languages": ["de", "en"]})
    assert body["language"] == "english"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"known_speaker_names": ["Ada"]}, "known_speaker_names"),
        ({"response_format": "yaml"}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"language": "klingon"}, "language"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_honoured_is_a_bad_request_that_names_the_field(
    client: openai.OpenAI, clip: Clip, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        wire(client, clip.path, **options)
    jsonschema.validate({"error": caught.value.body}, shapes.ERROR)
    assert caught.value.param is not None
    assert caught.value.param.removesuffix("[]") == field


def test_sound_that_is_none_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=b"no sound at all")
    assert caught.value.code == "unsupported_audio"


def test_a_bad_recording_is_a_bad_request_in_a_stream_too(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=b"no sound at all", stream=True)
    assert caught.value.code == "unsupported_audio"


def test_a_model_that_is_not_there_is_not_found(client: openai.OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.transcriptions.create(model="no-such-model", file=clip.path)
    assert caught.value.code == "model_not_found"
    jsonschema.validate({"error": caught.value.body}, shapes.ERROR)


def test_a_wrong_key_is_an_authentication_error(locked: Server, clip: Clip) -> None:
    with connect(locked, api_key="close-sesame") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=clip.path)
    assert caught.value.code == "invalid_api_key"
    with connect(locked, api_key="open-sesame") as client:
        assert client.audio.transcriptions.create(model="whisper-1", file=clip.path).text


def test_models_are_listed_and_found_by_name_and_alias(client: openai.OpenAI, server: Server) -> None:
    jsonschema.validate(httpx.get(f"{server.url}/v1/models").json(), shapes.MODELS)
    assert "micro" in {model.id for model in client.models.list()}
    for name in ("micro", "whisper-1"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/whisper-nothing")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translations_answer_in_every_format(start_server: StartServer, clip: Clip) -> None:
    # micro does not translate; the double says that it does.
    with connect(start_server(backend="fake", model="{}")) as client:
        translations = client.audio.translations
        options: dict[str, Any] = {"model": "whisper-1", "file": clip.path}
        body = translations.with_raw_response.create(**options).http_response.json()
        jsonschema.validate(body, shapes.JSON)
        response = translations.with_raw_response.create(response_format="verbose_json", **options)
        body = response.http_response.json()
        jsonschema.validate(body, shapes.verbose("translate", segments=shapes.SEGMENT))
        assert body["language"] == "english"
        for name in ("text", "srt", "vtt"):
            assert isinstance(translations.create(response_format=name, **options), str)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_model_that_cannot_translate_says_so(client: openai.OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.BadRequestError, match="not trained to translate") as caught:
        client.audio.translations.create(model="whisper-1", file=clip.path)
    assert caught.value.param == "model"


class Counting:
    """An ``http_client`` for the SDK that remembers every answer's status."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.http = openai.DefaultHttpxClient(event_hooks={"response": [self._note]})

    def _note(self, response: httpx.Response) -> None:
        self.statuses.append(response.status_code)


@pytest.mark.parametrize("model", ["whisper-1", "no-such-model"], ids=["bad audio", "unknown model"])
def test_an_error_that_no_retry_mends_is_uploaded_once(server: Server, model: str) -> None:
    counting = Counting()
    with (
        connect(server, max_retries=2, http_client=counting.http) as client,
        pytest.raises((openai.BadRequestError, openai.NotFoundError)),
    ):
        client.audio.transcriptions.create(model=model, file=b"no sound at all")
    assert len(counting.statuses) == 1


def test_a_failing_model_costs_one_upload(start_server: StartServer, clip: Clip) -> None:
    server = start_server(backend="fake", model='{"on_window": {"0": "raise"}}')
    counting = Counting()
    with (
        connect(server, max_retries=2, http_client=counting.http) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.audio.transcriptions.create(model="whisper-1", file=clip.path)
    assert (counting.statuses, caught.value.code) == ([500], "inference_failed")
    with connect(server) as client, pytest.raises(openai.APIError, match="fake failed") as raised:
        list(client.audio.transcriptions.create(model="whisper-1", file=clip.path, stream=True))
    assert raised.value.code == "inference_failed"


def test_a_full_queue_is_tried_again_until_there_is_room(start_server: StartServer, clip: Clip, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = json.dumps({"seconds_per_step": 3, "log": str(begun)})
    server = start_server(backend="fake", model=script, queue_jobs=1)
    busy = threading.Thread(target=server.transcribe, args=(clip.path,))
    busy.start()
    wait_for(lambda: begun.exists() and '"begin"' in begun.read_text(), 10)
    with connect(server) as client, pytest.raises(openai.RateLimitError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=clip.path)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "queue_full"
    counting = Counting()
    with connect(server, max_retries=5, http_client=counting.http) as client:
        assert client.audio.transcriptions.create(model="whisper-1", file=clip.path).text
    assert counting.statuses[-1] == 200
    assert set(counting.statuses[:-1]) <= {429}
    busy.join()


def test_a_client_that_gives_up_leaves_room_for_the_next(start_server: StartServer, clip: Clip) -> None:
    server = start_server(backend="fake", model='{"seconds_per_step": 1}', queue_jobs=1)
    with connect(server, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
        client.audio.transcriptions.create(model="whisper-1", file=clip.path)
    wait_for(lambda: server.transcribe(clip.path).status_code == 200, 10)
