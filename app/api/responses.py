"""The answers of the work routes, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.api.schemas import (
    ERROR_RESPONSES,
    ErrorBody,
    JobBody,
    PullDoneEvent,
    PulledBody,
    PullProgressEvent,
    TranscriptionBody,
    TranscriptTextDelta,
    TranscriptTextDone,
    VerboseTranscriptionBody,
)

#: Models that only the document refers to; ``app.api.app`` adds them to it.
DOCUMENTED: tuple[type[BaseModel], ...] = (
    TranscriptionBody,
    VerboseTranscriptionBody,
    TranscriptTextDelta,
    TranscriptTextDone,
    PulledBody,
    PullProgressEvent,
    PullDoneEvent,
)


#: Names the backend that did the work, or does it.
BACKEND = "X-Whisperd-Backend"
BACKEND_HEADER = {
    BACKEND: {
        "description": "The backend that did the last step; of a stream, the one in use as it began.",
        "schema": {"type": "string"},
    }
}


#: What of the upload could not be heard.
WARNING = "X-Whisperd-Warning"
ANSWER_HEADERS = BACKEND_HEADER | {
    WARNING: {
        "description": "A sentence about what of the file is damaged or missing; only where something is, and only of "
        "answers that are sent whole.",
        "schema": {"type": "string"},
    }
}


def _events(description: str) -> dict[str, Any]:
    """A stream's content, which OpenAPI has no schema for."""
    return {"schema": {"type": "string", "description": description}}


def reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


PULL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The model is here. As server-sent events, unless the client accepts JSON alone.",
        "content": {
            "application/json": {"schema": reference(PulledBody)},
            "text/event-stream": _events(
                "Each `data:` line is a PullProgressEvent, the last but one a PullDoneEvent, the "
                "last `[DONE]`; an ErrorBody in their place ends the stream."
            ),
        },
    },
    403: {"model": ErrorBody, "description": "It takes the admin key, or the server has none."},
    404: {"model": ErrorBody, "description": "There is no model of this name."},
    503: {"model": ErrorBody, "description": "The hub cannot be reached, the download broke off, or the disk is full."},
}
WORK_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text in the format asked for; with `stream`, server-sent events.",
        "headers": ANSWER_HEADERS,
        "content": {
            "application/json": {
                "schema": {"anyOf": [reference(TranscriptionBody), reference(VerboseTranscriptionBody)]}
            },
            "text/plain": {"schema": {"type": "string"}},
            "application/x-subrip": {"schema": {"type": "string"}},
            "text/vtt": {"schema": {"type": "string"}},
            "text/event-stream": _events(
                "Each `data:` line is a TranscriptTextDelta, the last but one a TranscriptTextDone, "
                "the last `[DONE]`; an ErrorBody in their place ends the stream."
            ),
        },
    },
    202: {"model": JobBody, "description": "With `Prefer: respond-async`: a job, at the address in `Location`."},
    400: {"model": ErrorBody, "description": "A field or the audio cannot be used."},
    404: {"model": ErrorBody, "description": "The model is not known, or not on this machine."},
    408: {"model": ErrorBody, "description": "The upload came too slowly."},
    410: {"model": ErrorBody, "description": "Somebody cancelled the job."},
    413: {"model": ErrorBody, "description": "The upload or the recording is over the limit."},
    429: {"model": ErrorBody, "description": "The queue is full; Retry-After says when to come back."},
    503: {
        "model": ErrorBody,
        "description": "The model cannot be loaded, the disk is full, the server keeps no jobs, or it is going down.",
    },
    504: {"model": ErrorBody, "description": "A step of the work took too long."},
    **ERROR_RESPONSES,
}
