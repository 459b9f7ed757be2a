"""The fields of a request, each form's as a model: parsed with it, documented by it, turned into the job's options."""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar, Literal, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from app.api.fields import listed, scalar, structured
from app.api.form import Form
from app.errors import InvalidRequest
from app.languages import language_code
from app.log import event
from app.transcript import Options, Vad

#: The longest padding and silence that a request may set: a window's length.
_MAX_VAD_MS = 30_000


class ServerVad(BaseModel):
    """OpenAI's ``server_vad``: how speech is found in the recording."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"title": "ServerVad"})

    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="Probability that counts as speech.")
    prefix_padding_ms: int = Field(300, ge=0, le=_MAX_VAD_MS, description="Milliseconds kept before speech.")
    silence_duration_ms: int = Field(200, ge=0, le=_MAX_VAD_MS, description="Milliseconds of silence that end it.")

    def vad(self) -> Vad:
        return Vad(self.threshold, self.prefix_padding_ms / 1000, self.silence_duration_ms / 1000)


class AudioForm(BaseModel):
    """The text fields that all work has in common. Fields that are not here are ignored, empty ones (and "null",
    "undefined", "None") are as if absent.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    model: str = Field(
        "", description="A name of /v1/models; empty, whisper-1 and gpt-4o-transcribe mean the default model."
    )
    prompt: str = Field("", description="Text in the style or with the words to expect; the last 223 tokens count.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = Field(
        "json", description="The answer's format."
    )
    temperature: float = Field(
        0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 is greedy, warmer only where the greedy text fails; higher starts warmer.",
    )
    beam_size: int | None = Field(
        None, ge=1, le=10, description="Beams of the search, where the backend has it; the server's setting else."
    )
    x_priority: Literal["normal", "background"] = Field(
        "normal", description="background lets others go first; also as the header X-Priority."
    )
    x_heartbeat: bool = Field(
        False,
        description="Whether white space is sent before a JSON answer that takes long, so that proxies do not hang up; "
        "errors then come with status 200. Also as the header X-Heartbeat.",
    )

    @classmethod
    def parse(cls, form: Form) -> Self:
        """The form's fields checked. Raises ``InvalidRequest`` with a sentence and the field's name."""
        if form.last("response_format") == "diarized_json":
            message = "The response_format 'diarized_json' is not supported: this server does not tell speakers apart."
            raise InvalidRequest(message, param="response_format")
        given = {name: value for name in cls.model_fields if (value := cls._given(form, name)) not in (None, [])}
        if ignored := [name[:64] for name in form.fields if name.partition("[")[0] not in cls.model_fields]:
            event("fields ignored", logging.DEBUG, names=",".join(ignored))
        try:
            return cls(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]).removesuffix("[]")
            inside = "".join(f"[{key}]" for key in problem["loc"][1:] if isinstance(key, str))
            message = problem["msg"][:1].lower() + problem["msg"][1:]
            raise InvalidRequest(f"The field '{name}{inside}' cannot be used: {message}.", param=name) from None

    @classmethod
    def _given(cls, form: Form, name: str) -> Any:
        is_list = get_origin(cls.model_fields[name].annotation) is list
        return listed(form, name) if is_list else scalar(form, name)

    @classmethod
    def request_body(cls) -> dict[str, Any]:
        """The request body for the OpenAPI document: the form, as OpenAI's own document has it.

        The other kinds of body are told in words: generated clients stumble over a choice of content types.
        """
        audio = {
            "type": "string",
            "format": "binary",
            "description": "The recording, in any common audio or video container.",
        }
        schema = cls.model_json_schema()
        form = {**schema, "properties": {"file": audio, **schema["properties"]}, "required": ["file"]}
        description = (
            "A form, as OpenAI takes it. Also taken: JSON with the same fields, the audio in base64 in "
            "`input_audio.data`; or the audio itself as the body, with the fields in the query string."
        )
        return {"required": True, "description": description, "content": {"multipart/form-data": {"schema": form}}}


class TranscriptionForm(AudioForm):
    """The text fields of ``POST /v1/audio/transcriptions``."""

    language: str = Field("", description="The spoken language as a code (en) or name (English); empty detects it.")
    languages: list[str] = Field(
        [], alias="languages[]", description="Languages to choose from where it is detected; language goes before."
    )
    keywords: list[str] = Field([], alias="keywords[]", description="Words and phrases to expect.")
    hotwords: list[str] = Field([], description="The same, as other servers call it; commas stand between them.")
    timestamp_granularities: list[Literal["segment", "word"]] = Field(
        ["segment"],
        alias="timestamp_granularities[]",
        description="Which times verbose_json holds.",
    )
    stream: bool = Field(False, description="Whether the text comes as server-sent events while it is made.")
    include: list[Literal["logprobs"]] = Field(
        [], alias="include[]", description="logprobs adds every token's log-probability to json."
    )
    chunking_strategy: Annotated[
        ServerVad | None,
        WithJsonSchema({"anyOf": [{"type": "string", "enum": ["auto"]}, ServerVad.model_json_schema()]}),
    ] = Field(None, description="How speech is found: auto, or an object (also as chunking_strategy[type] and so on).")

    @classmethod
    def parse(cls, form: Form) -> Self:
        for name in ("known_speaker_names", "known_speaker_references"):
            if any(value.strip() for value in form.fields.get(name, [])):
                message = f"The field '{name}' is not supported: this server does not tell speakers apart."
                raise InvalidRequest(message, param=name)
        fields = super().parse(form)
        if fields.include and fields.response_format != "json":
            raise InvalidRequest("Log-probabilities come with the response_format 'json' only.", param="include")
        return fields

    @classmethod
    def _given(cls, form: Form, name: str) -> Any:
        if name != "chunking_strategy":
            return super()._given(form, name)
        value = structured(form, name)
        return None if value == "auto" else value

    def options(self, *, task: str = "transcribe", beam_size: int = 1) -> Options:
        """What the model is asked for; ``beam_size`` is the server's own. Raises ``InvalidRequest`` for a language
        that Whisper does not know.
        """
        language, candidates = language_code(self.language), _codes(self.languages)
        if language is None and len(candidates) == 1:
            language = candidates[0]
        return Options(
            task=task,
            language=language,
            prompt=_with_keywords(self.prompt, [*self.keywords, *self.hotwords]),
            temperature=self.temperature,
            words="word" in self.timestamp_granularities and self.response_format == "verbose_json",
            beam_size=self.beam_size or beam_size,
            languages=() if language else candidates,
            logprobs="logprobs" in self.include,
            vad=self.chunking_strategy.vad() if self.chunking_strategy else None,
        )


class TranslationForm(AudioForm):
    """The text fields of ``POST /v1/audio/translations``, whose text is always English and never streamed."""

    stream: ClassVar[bool] = False
    timestamp_granularities: ClassVar[list[Literal["segment", "word"]]] = ["segment"]

    def options(self, *, task: str = "translate", beam_size: int = 1) -> Options:
        """What the model is asked for; ``beam_size`` is the server's own."""
        return Options(
            task=task, prompt=self.prompt, temperature=self.temperature, beam_size=self.beam_size or beam_size
        )


def _codes(languages: list[str]) -> tuple[str, ...]:
    try:
        codes = [code for language in languages if (code := language_code(language))]
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="languages") from None
    return tuple(dict.fromkeys(codes))


def _with_keywords(prompt: str, keywords: list[str]) -> str:
    """The prompt with the keywords behind it: of a long prompt Whisper sees the end."""
    return " ".join(filter(None, [prompt, ", ".join(dict.fromkeys(keywords))]))
