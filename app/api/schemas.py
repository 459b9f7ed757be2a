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


class DeletedBody(BaseModel):
    id: str
    object: str
    deleted: Literal[True] = True


class PulledBody(BaseModel):
    id: str
    object: Literal["model.pull"] = "model.pull"
    status: Literal["done"] = "done"


class PullProgressEvent(BaseModel):
    """``file`` is being fetched or checked; bytes of all of the model's files."""

    type: Literal["model.pull.progress"] = "model.pull.progress"
    file: str
    done_bytes: int
    total_bytes: int


class PullDoneEvent(BaseModel):
    type: Literal["model.pull.done"] = "model.pull.done"
    model: ModelBody


class QueueEntry(BaseModel):
    """A job that is not over; ``position`` counts from 1, ``estimated_s`` is null while the pace is unknown."""

    id: str
    object: Literal["queue.entry"] = "queue.entry"
    request_id: str
    status: Literal["queued", "running"]
    position: int
    estimated_s: float | None
    audio_s: float
    done_s: float
    progress: float
    model: str
    priority: Literal["normal", "background"]
    created_at: int
    callers: int


class QueueList(BaseModel):
    object: Literal["list"] = "list"
    data: list[QueueEntry]


class JobBody(BaseModel):
    """A job on disk; times in Unix seconds, ``duration`` and ``estimated_s`` in seconds, ``progress`` from 0 to 1;
    ``warning`` says what of the file could not be heard.
    """

    id: str
    object: Literal["job"] = "job"
    request_id: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    created_at: int
    finished_at: int | None = None
    expires_at: int | None = None
    model: str
    task: str
    response_format: str
    priority: Literal["normal", "background"]
    duration: float | None
    progress: float = 0.0
    position: int | None = None
    estimated_s: float | None = None
    language: str | None = None
    segments: list[SegmentBody] = []
    warning: str | None = None
    error: ErrorDetail | None = None


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobBody]


class StatusBody(BaseModel):
    status: str


class BackendBody(BaseModel):
    """``reason`` says why one has failed, is broken (its worker kept dying) or is missing (on this machine)."""

    name: str
    state: Literal["ready", "starting", "unloaded", "standby", "failed", "broken", "missing"]
    reason: str | None


class HealthBody(BaseModel):
    """All but ``status`` is for who has the key, where there is one. ``device`` and ``precision`` as they came out,
    null while no model is loaded; ``backends`` in the operator's order; ``picked`` says why the server was started with
    its backend and model.
    """

    status: Literal["ok"]
    state: Literal["starting", "ready", "unloaded", "failed", "broken"] = "starting"
    model: str = ""
    backend: str = ""
    device: str | None = None
    precision: str | None = None
    backends: list[BackendBody] = []
    picked: str = ""


#: The answers that any route may give besides its own.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "The key is missing or wrong."},
    500: {"model": ErrorBody, "description": "The server failed."},
}
