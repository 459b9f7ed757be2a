"""``POST /v1/audio/transcriptions``: an upload walks in, text walks out."""

from __future__ import annotations

from typing import Any

import anyio
from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api import uploads
from app.api.schemas import ERROR_RESPONSES, ErrorBody, TranscriptionBody, TranscriptionForm, VerboseTranscriptionBody
from app.api.service import service_of
from app.engine.job import Job
from app.errors import InvalidRequest
from app.formats import FORMATS
from app.languages import language_code
from app.transcript import Options, Transcript

router = APIRouter(tags=["audio"])

#: What a client that hung up is "answered"; nginx's number, since HTTP has none.
_CLIENT_GONE = 499

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript in the format asked for.",
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{model.__name__}"}
                        for model in (TranscriptionBody, VerboseTranscriptionBody)
                    ]
                }
            },
            "text/plain": {"schema": {"type": "string"}},
            "application/x-subrip": {"schema": {"type": "string"}},
            "text/vtt": {"schema": {"type": "string"}},
        },
    },
    400: {"model": ErrorBody, "description": "A field or the audio cannot be used."},
    404: {"model": ErrorBody, "description": "The model is not known, or not on this machine."},
    413: {"model": ErrorBody, "description": "The upload or the recording is over the limit."},
    429: {"model": ErrorBody, "description": "The queue is full; Retry-After says when to come back."},
    503: {
        "model": ErrorBody,
        "description": "The model could not be loaded, the disk is full or the server is going down.",
    },
    504: {"model": ErrorBody, "description": "A step of the work took too long."},
    **ERROR_RESPONSES,
}


@router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra={"requestBody": TranscriptionForm.request_body()},
)
async def create_transcription(request: Request) -> Response:
    """OpenAI's endpoint: a multipart form with the ``file`` and its options; see the request body's schema."""
    service = service_of(request)
    try:
        async with service.engine.admit() as job:
            form = await uploads.receive(request, job.source, service.settings.max_upload_mb * 2**20)
            fields = TranscriptionForm.parse(form)
            if not form.has_file:
                raise InvalidRequest("The form has no part named 'file' with the audio.", param="file")
            granularities = frozenset[str](fields.timestamp_granularities)
            options = Options(
                language=language_code(fields.language),
                prompt=fields.prompt,
                temperature=fields.temperature,
                words="word" in granularities and fields.response_format == "verbose_json",
                beam_size=service.settings.beam_size,
            )
            model = service.catalog.resolve(fields.model)
            service.engine.start(job, options, str(model.path))
            transcript = await _result(request, job)
    except ClientDisconnect:
        transcript = None
    if transcript is None:
        return Response(status_code=_CLIENT_GONE)
    format_ = FORMATS[fields.response_format]
    return Response(format_.render(transcript, granularities), media_type=format_.media_type)


async def _result(request: Request, job: Job) -> Transcript | None:
    """The job's transcript, or None once the client has hung up (leaving ``admit`` then cancels the job).

    A handler is not cancelled when its client leaves, so the connection is watched beside the work.
    """
    transcript: Transcript | None = None
    failure: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        try:
            transcript = await job.result()
        except Exception as error:  # noqa: BLE001 - raised again outside the group, which would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return transcript
