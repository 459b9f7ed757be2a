from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.form import Form
from app.api.forms import TranscriptionForm, TranslationForm
from app.errors import InvalidRequest
from app.transcript import Options, Vad


def form(**fields: str | list[str]) -> Form:
    """A form; "__" in a name stands for an opening bracket (``include__`` is ``include[]``)."""
    made = Form()
    for name, values in fields.items():
        spelled = f"{name.replace('__', '[')}]" if "__" in name else name
        for value in [values] if isinstance(values, str) else values:
            made.add(spelled, value)
    return made


def options(**fields: str | list[str]) -> Options:
    return TranscriptionForm.parse(form(**fields)).options()


@pytest.mark.parametrize("nothing", ["", " ", "null", "undefined", "None"])
def test_what_stands_for_nothing_is_as_if_absent(nothing: str) -> None:
    names = [name for name in TranscriptionForm.model_fields if name != "timestamp_granularities"]
    parsed = TranscriptionForm.parse(form(**dict.fromkeys([*names, "timestamp_granularities__"], nothing)))
    assert parsed == TranscriptionForm()
    assert parsed.options() == Options()


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE", "1", "on", "yes", "y", "t"])
def test_every_spelling_of_yes_streams(spelling: str) -> None:
    assert TranscriptionForm.parse(form(stream=spelling)).stream is True


@pytest.mark.parametrize("spelling", ["false", "False", "0", "off", "no", "n", "f", "", "null", "None", "undefined"])
def test_every_spelling_of_no_does_not_stream(spelling: str) -> None:
    assert TranscriptionForm.parse(form(stream=spelling)).stream is False


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp_granularities__": ["word", "segment"]},
        {"timestamp_granularities": ["word", "segment"]},
        {"timestamp_granularities": "word,segment"},
        {"timestamp_granularities": " word , segment "},
        {"timestamp_granularities__": '["word", "segment"]'},
    ],
    ids=["brackets", "no brackets", "commas", "spaces", "JSON"],
)
def test_granularities_come_in_many_spellings(fields: dict[str, str | list[str]]) -> None:
    parsed = TranscriptionForm.parse(form(response_format="verbose_json", **fields))
    assert parsed.timestamp_granularities == ["word", "segment"]
    assert parsed.options().words


def test_words_are_timed_for_verbose_json_only() -> None:
    assert not options(timestamp_granularities="word").words


VADS = {
    "brackets": {
        "chunking_strategy__type": "server_vad",
        "chunking_strategy__threshold": "0.4",
        "chunking_strategy__prefix_padding_ms": "250",
    },
    "JSON": {"chunking_strategy": '{"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 250}'},
}


@pytest.mark.parametrize("fields", VADS.values(), ids=VADS)
def test_a_chunking_strategy_sets_how_speech_is_found(fields: dict[str, str]) -> None:
    assert options(**fields).vad == Vad(threshold=0.4, padding_s=0.25, silence_s=0.2)


def test_the_automatic_chunking_strategy_is_the_servers_own() -> None:
    assert options(chunking_strategy="auto").vad is None


@pytest.mark.parametrize(
    "fields",
    [
        {"chunking_strategy": "manual"},
        {"chunking_strategy": "{"},
        {"chunking_strategy": "{}"},
        {"chunking_strategy": '{"type": "semantic_vad"}'},
        {"chunking_strategy__type": "server_vad", "chunking_strategy__eagerness": "low"},
        {"chunking_strategy__type": "server_vad", "chunking_strategy__threshold": "2"},
        {"chunking_strategy__type": "server_vad", "chunking_strategy__threshold": "nan"},
        {"chunking_strategy__type": "server_vad", "chunking_strategy__silence_duration_ms": "-1"},
        {"chunking_strategy__type": "server_vad", "chunking_strategy__prefix_padding_ms": "1e9"},
        {"chunking_strategy__threshold": "0.5"},
        {"chunking_strategy": "{" * 100_000},
        {"chunking_strategy": '{"a":' * 100_000},
    ],
)
def test_another_chunking_strategy_names_the_field(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TranscriptionForm.parse(form(**fields))
    assert caught.value.param == "chunking_strategy"


def test_candidate_languages_are_normalised_and_the_language_goes_before() -> None:
    assert options(languages__=["de-AT", "English", "en"]).languages == ("de", "en")
    assert options(languages="de,en").languages == ("de", "en")
    given = options(languages__=["de", "en"], language="fr")
    assert (given.language, given.languages) == ("fr", ())
    assert options(languages__=["de"]).language == "de"
    assert options(languages__=["auto"]) == Options()


def test_a_candidate_language_that_is_none_names_its_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(languages__=["de", "klingon"])
    assert caught.value.param == "languages"


def test_keywords_stand_behind_the_prompt_once_each() -> None:
    given = options(prompt="A letter.", keywords__=["Kyoto", "Dr. Ōe"], hotwords="Kyoto, haiku")
    assert given.prompt == "A letter. Kyoto, Dr. Ōe, haiku"
    assert options(hotwords="[haiku").prompt == "[haiku"


def test_logprobs_come_with_json_only() -> None:
    assert options(include__="logprobs").logprobs
    for name in ("text", "srt", "vtt", "verbose_json"):
        with pytest.raises(InvalidRequest) as caught:
            TranscriptionForm.parse(form(include__="logprobs", response_format=name))
        assert caught.value.param == "include"


def test_beams_are_the_requests_or_the_servers() -> None:
    assert TranscriptionForm.parse(form(beam_size="5")).options(beam_size=2).beam_size == 5
    assert TranscriptionForm.parse(form()).options(beam_size=2).beam_size == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"known_speaker_names__": ["Ann"]}, "known_speaker_names"),
        ({"known_speaker_references__": ["data:audio/wav;base64,AAAA"]}, "known_speaker_references"),
        ({"include__": ["usage"]}, "include"),
        ({"stream": "maybe"}, "stream"),
        ({"beam_size": "0"}, "beam_size"),
        ({"beam_size": "many"}, "beam_size"),
    ],
)
def test_what_cannot_be_honoured_names_its_field(fields: dict[str, str | list[str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TranscriptionForm.parse(form(**fields))
    assert caught.value.param == param
    assert caught.value.message.endswith(".")


def test_a_translation_ignores_what_only_transcriptions_have() -> None:
    fields = TranslationForm.parse(form(language="klingon", stream="maybe", known_speaker_names__="Ann", prompt="Hi"))
    assert fields.options() == Options(task="translate", prompt="Hi")
    assert fields.stream is False


@given(
    st.dictionaries(
        st.sampled_from([*TranscriptionForm.model_fields, "chunking_strategy[type]", "known_speaker_names", "x"]),
        st.lists(st.text() | st.sampled_from(["[1]", "{}", "[[]]", '{"type": 1}', "server_vad", "auto", "1e400"])),
    )
)
def test_no_form_is_worse_than_an_invalid_request(fields: dict[str, list[str]]) -> None:
    made = Form()
    for name, values in fields.items():
        for value in values:
            made.add(name, value)
    for kind in (TranscriptionForm, TranslationForm):
        with contextlib.suppress(InvalidRequest):
            kind.parse(made).options()
