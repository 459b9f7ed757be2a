"""Clients that bring libraries of their own: each runs as a program (programs/) that prints what it was given."""

from __future__ import annotations

import shutil

import jsonschema
import pytest

from tests.clients import shapes
from tests.clients.conftest import RunProgram
from tests.conftest import Clip, Recording, Server, word_error_rate


@pytest.mark.client("LiteLLM", package="litellm")
@pytest.mark.parametrize("suffix", ["/v1", "", "/v1/"], ids=["with v1", "without v1", "with a slash at the end"])
def test_litellm_transcribes_whatever_the_base_url(
    server: Server, clip: Clip, run_python: RunProgram, suffix: str
) -> None:
    got = run_python("litellm", "with_litellm.py", server.url + suffix, clip.path)
    assert word_error_rate([clip.text], [got["plain"]["text"]]) == 0
    # It asks for verbose_json by itself and takes the duration from there, for its prices.
    assert got["plain"]["duration"] == pytest.approx(clip.duration, abs=0.05)
    assert got["plain"]["language"] == "english"
    assert [word["word"] for word in got["words"]["words"]] == got["words"]["text"].split()


@pytest.mark.client("LangChain, OpenAIWhisperParser", package="langchain-community")
def test_langchain_parses_a_recording_into_a_document(server: Server, clip: Clip, run_python: RunProgram) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("pydub, which the parser cuts recordings with, needs ffmpeg on the PATH")
    documents = run_python("langchain_community", "with_langchain.py", f"{server.url}/v1", clip.path)
    assert len(documents) == 1
    assert word_error_rate([clip.text], documents) <= 0.1


@pytest.fixture(scope="module")
def openai_node(stepwise: Server, clip: Clip, long_recording: Recording, run_node: RunProgram) -> dict:
    """What openai-node got, asked once for all its tests."""
    return run_node("with_openai_node.mjs", f"{stepwise.url}/v1", clip.path, long_recording.path)


NODE = pytest.mark.client("openai-node", npm="openai")


@NODE
def test_openai_node_gets_json_of_a_stream_and_of_a_nameless_buffer(openai_node: dict, clip: Clip) -> None:
    for name in ("json", "nameless", "chunked"):
        jsonschema.validate(openai_node[name], shapes.JSON)
        assert word_error_rate([clip.text], [openai_node[name]["text"]]) <= 0.1


@NODE
def test_openai_node_gets_words_and_segments(openai_node: dict) -> None:
    jsonschema.validate(openai_node["verbose"], shapes.verbose(words=shapes.WORD, segments=shapes.SEGMENT))


@NODE
def test_openai_node_gets_subtitles_as_they_are(openai_node: dict) -> None:
    assert openai_node["srt"].startswith("1\n00:00:0")


@NODE
def test_openai_node_gets_log_probabilities(openai_node: dict) -> None:
    jsonschema.validate(openai_node["logprobs"], shapes.JSON_WITH_LOGPROBS)
    assert openai_node["logprobs"]["logprobs"]


@NODE
def test_openai_node_streams_deltas_that_join_to_the_text(openai_node: dict, answer_to_long: str) -> None:
    *deltas, done = openai_node["events"]
    assert len(deltas) > 1
    for event in deltas:
        jsonschema.validate(event, shapes.DELTA)
    jsonschema.validate(done, shapes.DONE)
    assert "".join(event["delta"] for event in deltas) == done["text"] == answer_to_long


@NODE
def test_openai_node_raises_its_own_error_classes(openai_node: dict) -> None:
    error = openai_node["error"]
    assert (error["name"], error["status"], error["code"]) == ("NotFoundError", 404, "model_not_found")
    assert "no-such-model" in error["message"]


@NODE
def test_openai_node_lists_the_models(openai_node: dict) -> None:
    assert "micro" in openai_node["models"]


@pytest.fixture(scope="module")
def vercel_ai(server: Server, clip: Clip, run_node: RunProgram) -> dict:
    """What the AI SDK got."""
    return run_node("with_vercel_ai.mjs", f"{server.url}/v1", clip.path)


VERCEL = pytest.mark.client("Vercel AI SDK", npm="ai", with_="@ai-sdk/openai")


@VERCEL
@pytest.mark.parametrize("call", ["plain", "words", "newer"])
def test_the_ai_sdk_transcribes(vercel_ai: dict, clip: Clip, call: str) -> None:
    assert word_error_rate([clip.text], [vercel_ai[call]["text"]]) <= 0.1
    assert vercel_ai[call]["warnings"] == []


@VERCEL
def test_the_ai_sdk_finds_the_language_by_its_english_name(vercel_ai: dict, clip: Clip) -> None:
    assert vercel_ai["plain"]["language"] == "en"
    assert vercel_ai["plain"]["durationInSeconds"] == pytest.approx(clip.duration, abs=0.05)
    assert vercel_ai["plain"]["segments"][0]["startSecond"] == 0


@VERCEL
def test_the_ai_sdk_gets_words(vercel_ai: dict) -> None:
    assert [each["text"] for each in vercel_ai["words"]["segments"]] == vercel_ai["words"]["text"].split()
