"""``/health``: the process lives. ``/ready``: the model is warm. ``/metrics``: for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.auth import has_key
from app.api.schemas import ERROR_RESPONSES, BackendBody, ErrorBody, HealthBody, StatusBody
from app.api.service import service_of
from app.errors import BackendUnavailable

router = APIRouter(tags=["health"])

_REASONS = {
    "starting": "The model is still loading.",
    "failed": "The model could not be loaded; the server's log says why.",
    "broken": "The model's worker keeps dying; the server's log says more.",
}


@router.get(
    "/health",
    operation_id="health",
    summary="Whether the server lives, and what it works with",
    response_model_exclude_unset=True,
)
async def health(request: Request) -> HealthBody:
    """The details are for who has the key, where the server wants one; a wrong key is answered as none is."""
    if not has_key(request):
        return HealthBody(status="ok")
    service = service_of(request)
    relay = service.engine.device.relay
    info = relay.worker.info if relay.ready else None
    standings = relay.standings()
    return HealthBody(
        status="ok",
        state=relay.state,
        model=service.catalog.default_name,
        backend=relay.backend,
        device=info and info.device,
        precision=info and info.precision,
        backends=[BackendBody(name=each.backend, state=each.state, reason=each.reason or None) for each in standings],
        picked=service.settings.choice.reason,
    )


@router.get(
    "/ready",
    operation_id="ready",
    summary="Whether the model is warm, or unloaded for want of work",
    responses={503: {"model": ErrorBody, "description": "The model is loading, or cannot be loaded."}},
)
async def ready(request: Request) -> StatusBody:
    state = service_of(request).engine.device.relay.state
    if state in _REASONS:
        raise BackendUnavailable(_REASONS[state])
    return StatusBody(status=state)


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
