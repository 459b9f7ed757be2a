"""An engine from settings: the one place that knows all its parts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from app.backends.base import LoadOptions, openblas_preload
from app.catalog import Catalog
from app.engine.decoders import Decoders
from app.engine.engine import Engine
from app.engine.store import Spool
from app.engine.worker import Worker, WorkerSettings
from app.metrics import Metrics
from app.settings import Settings
from app.worker.messages import Limits


def catalog_of(settings: Settings) -> Catalog:
    """The models that these settings let a request name."""
    return Catalog(settings.backend, settings.hub_dir, settings.default_model, settings.models)


@contextlib.asynccontextmanager
async def engine_of(settings: Settings, catalog: Catalog) -> AsyncIterator[Engine]:
    """A running engine with the default model loading. Raises ``UnknownModel`` where that is not on this machine."""
    default = catalog.resolve("")
    spool = Spool(settings.state_dir / "spool")
    metrics = Metrics()
    worker = Worker(
        WorkerSettings(
            backend=settings.backend,
            cache=settings.cache_dir,
            cwd=spool.empty,
            load=LoadOptions(settings.device, settings.precision, settings.threads),
            load_timeout_s=settings.load_timeout_s,
            step_timeout_s=settings.step_timeout_s,
            preload=openblas_preload() if settings.backend == "mlx-whisper" else None,
        ),
        metrics,
    )
    decoders = Decoders(spool.empty, Limits(audio_s=settings.max_audio_s), metrics)
    engine = Engine(spool, worker, decoders, metrics, max_jobs=settings.queue_jobs, max_batch=settings.max_batch)
    async with engine.running(str(default.path)):
        yield engine
