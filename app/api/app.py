"""The app: routes, error shapes, key, and the engine's life."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import app as package
from app.api import docs, errors, health, models, page, queue, request_id, transcriptions, translations
from app.api import jobs as jobs_api
from app.api.allowance import Allowances
from app.api.auth import OPEN_PATHS, KeyMiddleware
from app.api.origins import APP_ORIGINS, OriginMiddleware
from app.api.paths import PathMiddleware
from app.api.responses import BACKEND, DOCUMENTED, WARNING
from app.api.service import Service
from app.engine.build import catalog_of, durable_jobs_of, engine_of
from app.engine.durable import DurableJobs
from app.engine.engine import Engine
from app.engine.job_database import StoreBusy, StoreUnusable
from app.engine.pulls import Pulls
from app.log import event
from app.settings import Settings, exposed, names


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI app; its engine runs while its lifespan does. Raises ``InvalidRequest`` where the keys'
    file cannot be used.
    """
    keyring = settings.keyring
    origins = [*APP_ORIGINS, *names(settings.cors_origins)]

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        catalog = catalog_of(settings)
        async with (
            engine_of(settings, catalog) as engine,
            _jobs_of(settings, engine) as jobs,
            Pulls(catalog, settings.cache_dir).running() as pulls,
        ):
            engine.name_owner = keyring.name_of
            app.state.service = Service(settings, keyring, Allowances(engine.metrics), engine, catalog, pulls, jobs)
            yield

    app = FastAPI(
        title="whisperd",
        version=package.__version__,
        description="Whisper on your own machine behind OpenAI's audio API.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for module in (transcriptions, translations, jobs_api, queue, models, health):
        app.include_router(module.router)
    errors.install(app)
    docs.install(app)
    page.install(app)
    request_id.install(app)
    app.add_middleware(KeyMiddleware, keyring=keyring, wanted=exposed(settings.host) and not settings.no_auth)
    # The later, the further out: the key check sees the path that is served, and a preflight needs no key.
    app.add_middleware(PathMiddleware)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["X-Request-Id", "Retry-After", "Server-Timing", "Location", BACKEND, WARNING],
    )
    app.add_middleware(OriginMiddleware, hosts=[*names(settings.allowed_hosts), settings.host], origins=origins)
    _document(app)
    return app


@contextlib.asynccontextmanager
async def _jobs_of(settings: Settings, engine: Engine) -> AsyncIterator[DurableJobs | None]:
    """The jobs on disk; None, and a line in the log, where there can be none: all else is served."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            jobs = await stack.enter_async_context(durable_jobs_of(settings, engine))
        except (StoreBusy, StoreUnusable) as error:
            event("no jobs are kept", logging.ERROR, reason=error)
            yield None
        else:
            yield jobs


def _document(app: FastAPI) -> None:
    """Add to the app's OpenAPI document the schemas that routes refer to by name, and the key, which few need."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        schemas = document["components"]["schemas"]
        for model in DOCUMENTED:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        for path in OPEN_PATHS & document["paths"].keys():
            document["paths"][path]["get"]["security"] = []
        # FastAPI's own validation never speaks: the few parameters are strings, and forms are parsed by ours.
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}, {}]
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend it
