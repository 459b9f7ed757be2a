"""``GET /v1/models``: the models that a request may name now."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from app.api.schemas import ERROR_RESPONSES, ErrorBody, ModelBody, ModelList
from app.api.service import service_of
from app.catalog import Model

router = APIRouter(tags=["models"], responses=ERROR_RESPONSES)


@router.get("/v1/models", operation_id="listModels", summary="List the models on this machine")
async def list_models(request: Request) -> ModelList:
    return ModelList(data=[_body(model) for model in service_of(request).catalog.available()])


@router.get(
    "/v1/models/{model:path}",
    operation_id="retrieveModel",
    summary="Describe a model",
    responses={404: {"model": ErrorBody, "description": "There is no such model on this machine."}},
)
async def get_model(request: Request, model: str) -> ModelBody:
    """A model by its name, hub id (with its slash, raw or as %2F) or alias."""
    found = _body(service_of(request).catalog.resolve(model))
    return found.model_copy(update={"id": model})


def _body(model: Model) -> ModelBody:
    return ModelBody(id=model.name, created=model.created, owned_by=model.owned_by)
