"""The shapes of requests and answers: the form is parsed with its model, the answers' models are for the OpenAPI
document.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.uploads import Form
from app.errors import InvalidRequest


class TranscriptionForm(BaseModel):
    """The text fields of ``POST /v1/audio/transcriptions``; fields that are not here are ignored, empty ones are as
    if absent.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    model: str = Field(
        "", description="A name of /v1/models; empty, whisper-1 and gpt-4o-transcribe mean the default model."
    )
    language: str = Field("", description="The spoken language as a code (en) or name (English); empty detects it.")
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
    timestamp_granularities: list[Literal["segment", "word"]] = Field(
        ["segment"],
        alias="timestamp_granularities[]",
        description="Which times verbose_json holds.",
    )

    @classmethod
    def parse(cls, form: Form) -> TranscriptionForm:
        """The form's fields checked. Raises ``InvalidRequest`` with a sentence and the field's name."""
        given: dict[str, Any] = {}
        for name in cls.model_fields:
            if name == "timestamp_granularities":
                given[name] = [value.strip() for value in form.fields.get(name, []) if value.strip()] or ["segment"]
            elif value := form.last(name):
                given[name] = value
        try:
            return cls(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]).removesuffix("[]")
            message = problem["msg"][:1].lower() + problem["msg"][1:]
            raise InvalidRequest(f"The field '{name}' cannot be used: {message}.", param=name) from None

    @classmethod
    def request_body(cls) -> dict[str, Any]:
        """The request body for the OpenAPI document."""
        schema = cls.model_json_schema()
        audio = {
            "type": "string",
            "format": "binary",
            "description": "The recording, in any common audio or video container.",
        }
        schema["properties"] = {"file": audio, **schema["properties"]}
        schema["required"] = ["file"]
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail


class DurationUsage(BaseModel):
    type: Literal["duration"]
    seconds: int


class TranscriptionBody(BaseModel):
    text: str
    usage: DurationUsage


class WordBody(BaseModel):
    word: str
    start: float
    end: float


class SegmentBody(BaseModel):
    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscriptionBody(BaseModel):
    task: Literal["transcribe", "translate"]
    language: str
    language_code: str
    duration: float
    text: str
    words: list[WordBody] = []
    segments: list[SegmentBody] = []
    usage: DurationUsage


class ModelBody(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelBody]


class StatusBody(BaseModel):
    status: str


#: The answers that any route may give besides its own.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "The key is missing or wrong."},
    500: {"model": ErrorBody, "description": "The server failed."},
}
