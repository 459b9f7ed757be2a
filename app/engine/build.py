"""An engine from settings: the one place that knows all its parts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from app.backends.base import LoadOptions
from app.catalog import Catalog
from app.engine.admission import Admission, QueueLimits
from app.engine.candidates import Candidates
from app.engine.decoders import Decoders
from app.engine.device import Device, MarginOf
from app.engine.durable import DurableJobs
from app.engine.engine import Engine
from app.engine.job_store import JobStore
from app.engine.relay import Relay
from app.engine.spool import Spool
from app.engine.succession import Succession
from app.engine.upkeep import Upkeep
from app.engine.worker import Worker, WorkerSettings
from app.fitting import Fitting, Verdicts
from app.hardware import memory_is_short
from app.metrics import Metrics
from app.settings import Settings
from app.worker.messages import Limits


def catalog_of(settings: Settings) -> Catalog:
    """The models that these settings let a request name."""
    return Catalog(settings.backend, settings.hub_dir, settings.default_model, settings.models)


@contextlib.asynccontextmanager
async def engine_of(settings: Settings, catalog: Catalog, margin_of: MarginOf | None = None) -> AsyncIterator[Engine]:
    """A running engine with the default model loading; ``margin_of`` overrides how the settings fit windows.

    Raises ``UnknownModel`` where the default model is not on this machine.
    """
    fitting = Fitting(settings.encoder_window, settings.fit_margin_s, settings.backend, Verdicts(settings.state_dir))
    default = catalog.resolve("")
    spool = Spool(settings.state_dir / "spool")
    metrics = Metrics()
    load = LoadOptions(settings.device, settings.precision, settings.threads)
    candidates = Candidates(catalog, load, settings.fallbacks, fitting)
    candidates.announce(candidates.line("", str(default.path)))
    worker = Worker(WorkerSettings(settings.cache_dir, spool.empty, settings.load_timeout_s), metrics)
    device = Device(
        Relay(worker, metrics, Succession(settings.fallback_rest_s)),
        metrics,
        candidates.line,
        max_batch=settings.max_batch,
        step_timeout_s=settings.step_timeout_s,
        upkeep=Upkeep(settings.keep_alive, settings.keep_warm_s, memory_is_short),
        margin_of=margin_of or candidates.margin,
    )
    limits = QueueLimits(settings.queue_jobs, settings.spool_mb * 2**20, settings.queue_audio_s)
    engine = Engine(
        Admission(spool, limits),
        device,
        Decoders(spool.empty, Limits(audio_s=settings.max_audio_s), metrics),
        metrics,
        job_timeout_s=settings.job_timeout_s,
        keep_s=settings.retry_keep_s,
    )
    async with engine.running(str(default.path)):
        yield engine


@contextlib.asynccontextmanager
async def durable_jobs_of(settings: Settings, engine: Engine) -> AsyncIterator[DurableJobs]:
    """The jobs on disk, taken up by ``engine``. Raises ``StoreBusy`` and ``StoreUnusable``."""
    jobs = DurableJobs(
        JobStore(settings.state_dir / "jobs"),
        engine,
        engine.metrics,
        ttl_s=settings.job_keep_s,
        max_bytes=settings.job_results_mb * 2**20,
        waiting_bytes=settings.spool_mb * 2**20 // 2,
    )
    async with jobs.running():
        yield jobs
