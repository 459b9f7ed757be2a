"""The shapes of answers, for the OpenAPI document and the small routes; ``app.api.forms`` has the requests'."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


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


class InputTokenDetails(BaseModel):
    text_tokens: int
    audio_tokens: int


class TokensUsage(BaseModel):
    type: Literal["tokens"]
    input_tokens: int
    input_token_details: InputTokenDetails
    output_tokens: int
    total_tokens: int


class LogprobBody(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TranscriptionBody(BaseModel):
    text: str
    logprobs: list[LogprobBody] = []
    usage: DurationUsage


class TranscriptTextDelta(BaseModel):
    type: Literal["transcript.text.delta"]
    delta: str
    logprobs: list[LogprobBody] = []


class TranscriptTextDone(BaseModel):
    type: Literal["transcript.text.done"]
    text: str
    logprobs: list[LogprobBody] = []
    usage: TokensUsage


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
