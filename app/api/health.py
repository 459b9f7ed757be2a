"""``/health``: the process lives. ``/ready``: the model is warm. ``/metrics``: for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import ERROR_RESPONSES, ErrorBody, StatusBody
from app.api.service import service_of
from app.errors import BackendUnavailable

router = APIRouter(tags=["health"])

_REASONS = {
    "starting": "The model is still loading.",
    "failed": "The model could not be loaded; the server's log says why.",
    "broken": "The model's worker keeps dying; the server's log says more.",
}


@router.get("/health", operation_id="health", summary="Whether the server lives")
async def health() -> StatusBody:
    return StatusBody(status="ok")


@router.get(
    "/ready",
    operation_id="ready",
    summary="Whether the model is warm, or unloaded for want of work",
    responses={503: {"model": ErrorBody, "description": "The model is loading, or cannot be loaded."}},
)
async def ready(request: Request) -> StatusBody:
    worker = service_of(request).engine.device.worker
    if not worker.ready and worker.state != "unloaded":
        raise BackendUnavailable(_REASONS.get(worker.state, _REASONS["starting"]))
    return StatusBody(status="ready" if worker.ready else worker.state)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: ERROR_RESPONSES[401]},
)
async def metrics(request: Request) -> Response:
    engine = service_of(request).engine
    engine.measure()
    return Response(engine.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
