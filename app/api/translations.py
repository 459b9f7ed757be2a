"""``POST /v1/audio/translations``: speech in any language walks in, English text walks out."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.forms import TranslationForm
from app.api.responses import WORK_RESPONSES
from app.api.work import answer

router = APIRouter(tags=["audio"])


@router.post(
    "/v1/audio/translations",
    operation_id="createTranslation",
    summary="Translate a recording into English",
    response_class=Response,
    responses=WORK_RESPONSES,
    openapi_extra={"requestBody": TranslationForm.request_body()},
)
async def create_translation(request: Request) -> Response:
    """OpenAI's endpoint, for models that can translate: not turbo, not the English-only ones."""
    return await answer(request, TranslationForm, "translate")
