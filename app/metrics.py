"""What Prometheus sees. Collectors are filled from the outside of the loops: the engine reports what happened.

One ``Metrics`` per engine with a registry of its own, so that two engines in one process (tests) do not mix.
"""

from __future__ import annotations

from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.backends.base import Memory, ModelInfo, StepResult
from app.transcript import MAX_WINDOW

#: From a dictation's step on a GPU to an hour's decode.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1200)
#: A step: one window, or about two seconds.
_STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 10, 30, 60)
#: Real-time factor: seconds of inference a second of audio; under 1 is faster than the recording.
_FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.queue_jobs = Gauge("whisperd_queue_jobs", "Jobs accepted and not yet answered", registry=registry)
        self.queue_wait = Histogram(
            "whisperd_queue_wait_seconds",
            "From a job's first window to its first step",
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "whisperd_decode_seconds", "Decoder's time for a job", buckets=_SECONDS, registry=registry
        )
        self.inference_seconds = Histogram(
            "whisperd_inference_seconds", "Device time of a job", buckets=_SECONDS, registry=registry
        )
        self.step_seconds = Histogram(
            "whisperd_step_seconds", "Device time of a step", buckets=_STEP_SECONDS, registry=registry
        )
        self.step_windows = Counter("whisperd_step_windows", "Windows given to the device", registry=registry)
        self.fitted_windows = Counter(
            "whisperd_fitted_windows", "Windows that the encoder saw at their own length", registry=registry
        )
        self.rerun_windows = Counter(
            "whisperd_rerun_windows",
            "Fitted windows that had to be encoded again, longer: a guard failed, or a short text was unsure",
            registry=registry,
        )
        self.audio_seconds = Counter("whisperd_audio_seconds", "Audio transcribed", registry=registry)
        self.real_time_factor = Histogram(
            "whisperd_real_time_factor", "Device seconds a second of audio, by job", buckets=_FACTORS, registry=registry
        )
        self.jobs = Counter(
            "whisperd_jobs",
            "Jobs ended, by outcome (ok, cancelled, upload_left, or an error's code)",
            ["outcome"],
            registry=registry,
        )
        self.key_requests = Gauge(
            "whisperd_key_requests", "Requests in work, by the key's name", ["key"], registry=registry
        )
        self.key_audio_seconds = Counter(
            "whisperd_key_audio_seconds", "Audio transcribed, by the key's name", ["key"], registry=registry
        )
        self.http_requests = Counter(
            "whisperd_http_requests",
            "Requests answered, by the route's template and status (499: hung up before its answer)",
            ["route", "status"],
            registry=registry,
        )
        self.model_load_seconds = Gauge(
            "whisperd_model_load_seconds", "Last load of the model, warm-up included", registry=registry
        )
        self.worker_restarts = Counter(
            "whisperd_worker_restarts", "Workers that died or were killed", ["role"], registry=registry
        )
        self.worker_memory = Gauge(
            "whisperd_worker_memory_bytes", "Resident memory of a child", ["role"], registry=registry
        )
        self.device_memory = Gauge(
            "whisperd_device_memory_bytes",
            "Memory that the model's library holds after the last job, by its own account (MLX has one)",
            ["kind"],
            registry=registry,
        )
        self.joined = Counter(
            "whisperd_jobs_joined",
            "Requests that met a job for the same work: running, left by its callers, or finished",
            ["met"],
            registry=registry,
        )
        self.jobs_waiting = Gauge("whisperd_jobs_waiting", "Jobs on disk that are not yet finished", registry=registry)
        self.ready = Gauge("whisperd_ready", "1 while a model is warm", registry=registry)

        self.backend_info = Gauge(
            "whisperd_backend_info",
            "1 for the backend whose model is warm",
            ["backend", "device", "precision"],
            registry=registry,
        )
        self.backend_steps = Counter("whisperd_backend_steps", "Steps done, by backend", ["backend"], registry=registry)
        self.backend_switches = Counter(
            "whisperd_backend_switches",
            "Times that one backend took over from another, or got its place back",
            ["from", "to"],
            registry=registry,
        )

    def set_backend(self, backend: str, info: ModelInfo | None) -> None:
        """Whose model is warm; none where there is no ``info``."""
        self.backend_info.clear()
        if info is not None:
            self.backend_info.labels(backend, info.device, info.precision).set(1)

    def observe_step(self, result: StepResult, seconds: float) -> None:
        """A step that held the device for ``seconds``."""
        self.step_seconds.observe(seconds)
        self.backend_steps.labels(result.backend).inc()
        self.step_windows.inc(len(result.windows))
        self.fitted_windows.inc(sum(each.window.encoded < MAX_WINDOW for each in result.windows))
        self.rerun_windows.inc(sum(each.rerun for each in result.windows))

    def observe_memory(self, memory: Memory) -> None:
        """What the worker's library said of its memory."""
        for kind, size in asdict(memory).items():
            self.device_memory.labels(kind).set(size)

    def render(self) -> bytes:
        """The exposition text, UTF-8."""
        return generate_latest(self.registry)
