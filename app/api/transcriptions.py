"""``POST /v1/audio/transcriptions``: an upload walks in, text walks out."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.forms import TranscriptionForm
from app.api.responses import WORK_RESPONSES
from app.api.work import answer

router = APIRouter(tags=["audio"])


@router.post(
    "/v1/audio/transcriptions",
    operation_id="createTranscription",
    summary="Transcribe a recording",
    response_class=Response,
    responses=WORK_RESPONSES,
    openapi_extra={"requestBody": TranscriptionForm.request_body()},
)
async def create_transcription(request: Request) -> Response:
    """OpenAI's endpoint: a multipart form with the ``file`` and its options; see the request body's schema."""
    return await answer(request, TranscriptionForm, "transcribe")
