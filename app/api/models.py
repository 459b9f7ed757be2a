"""``/v1/models``: the models that a request may name now; with the admin key, downloads and removals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.api.auth import require_admin
from app.api.errors import error_body
from app.api.responses import PULL_RESPONSES
from app.api.schemas import (
    ERROR_RESPONSES,
    DeletedBody,
    ErrorBody,
    ModelBody,
    ModelList,
    PullDoneEvent,
    PulledBody,
    PullProgressEvent,
)
from app.api.service import Service, service_of
from app.api.stream import HEARTBEAT_S
from app.catalog import Catalog, Model
from app.engine.pulls import Pull
from app.errors import Conflict, WhisperdError
from app.formats import dump
from app.hub.cache import belongs_to

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
    return _described(service_of(request).catalog, model)


@router.post(
    "/v1/models/{model:path}/pull",
    operation_id="pullModel",
    summary="Download a model",
    response_class=Response,
    responses=PULL_RESPONSES,
)
async def pull_model(request: Request, model: str) -> Response:
    """Takes the admin key. The download goes on when the client hangs up; asking again shows how far it is."""
    service = service_of(request)
    require_admin(request, service.keyring)
    pull = service.pulls.start(model)
    if not _wants_events(request):
        await pull.finished()
        return JSONResponse(PulledBody(id=model).model_dump())
    return StreamingResponse(
        _events(pull, service.catalog, model),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.delete(
    "/v1/models/{model:path}",
    operation_id="deleteModel",
    summary="Remove a downloaded model",
    responses={
        400: {"model": ErrorBody, "description": "The model is the operator's own folder, or bundled."},
        403: PULL_RESPONSES[403],
        404: {"model": ErrorBody, "description": "The model is not downloaded."},
        409: {"model": ErrorBody, "description": "The model is the default one, in use, or being downloaded."},
    },
)
async def delete_model(request: Request, model: str) -> DeletedBody:
    """Takes the admin key. Removes what was made of the model too."""
    service = service_of(request)
    require_admin(request, service.keyring)
    _check_unused(service, model)
    await service.pulls.remove(model)
    return DeletedBody(id=model, object="model")


def _check_unused(service: Service, name: str) -> None:
    """Raises ``Conflict`` where the model is the default, in memory, or what a job waits for."""
    catalog, worker = service.catalog, service.engine.device.relay.worker
    downloads = catalog.downloads(name)

    def is_it(path: str | Path) -> bool:
        return any(belongs_to(Path(path), source, catalog.cache_dir) for source in downloads)

    if catalog.has("") and is_it(catalog.resolve("").path):
        raise Conflict(f"The model {name!r} is this server's default: choose another --model first.", param="model")
    in_memory = worker.candidate.model_path if worker.state != "unloaded" else ""
    if any(is_it(path) for path in (in_memory, *(job.work.model_path for job in service.engine.jobs))):
        raise Conflict(f"The model {name!r} is in use; remove it once another is loaded.", param="model")


async def _events(pull: Pull, catalog: Catalog, name: str) -> AsyncIterator[str]:
    while not pull.over:
        change, progress = pull.change, pull.progress
        if progress is None:
            yield ": waiting\n\n"
        else:
            body = PullProgressEvent(file=progress.file, done_bytes=progress.done, total_bytes=progress.total)
            yield _event(body)
        with anyio.move_on_after(HEARTBEAT_S):
            await change.wait()
    try:
        await pull.finished()
        yield _event(PullDoneEvent(model=_described(catalog, name)))
    except WhisperdError as error:
        yield f"data: {dump(error_body(error))}\n\n"
        return
    yield "data: [DONE]\n\n"


def _event(body: BaseModel) -> str:
    return f"data: {dump(body.model_dump())}\n\n"


def _wants_events(request: Request) -> bool:
    accept = request.headers.get("accept", "*/*")
    return any(kind in accept for kind in ("text/event-stream", "text/*", "*/*"))


def _described(catalog: Catalog, name: str) -> ModelBody:
    return _body(catalog.resolve(name)).model_copy(update={"id": name})


def _body(model: Model) -> ModelBody:
    return ModelBody(id=model.name, created=model.created, owned_by=model.owned_by)
