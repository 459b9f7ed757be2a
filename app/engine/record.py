"""What is counted and logged of a job once it is over."""

from __future__ import annotations

from typing import Any

from app.engine.job import Job
from app.log import event
from app.metrics import Metrics
from app.worker.awake import CLOCK


def record(metrics: Metrics, job: Job, key: str = "") -> None:
    """Count the job and log it, once, when it is over; ``key`` is the name of its owner's key, "" for none."""
    audio = job.progress.duration
    named: dict[str, Any] = {"key": key} if key else {}
    metrics.jobs.labels(job.outcome).inc()
    if job.outcome == "ok":
        metrics.audio_seconds.inc(audio)
        if key:
            metrics.key_audio_seconds.labels(key).inc(audio)
        metrics.decode_seconds.observe(job.decode_seconds)
        metrics.inference_seconds.observe(job.inference_seconds)
        metrics.queue_wait.observe(job.waited_seconds)
        if audio > 0:
            metrics.real_time_factor.observe(job.inference_seconds / audio)
    event(
        "job ended",
        request=job.request_id,
        job=job.id,
        **named,
        outcome=job.outcome,
        audio_s=audio,
        queue_s=job.waited_seconds,
        decode_s=job.decode_seconds,
        inference_s=job.inference_seconds,
        bad_packets=job.bad_packets,
        missing_s=job.missing_s,
        total_s=CLOCK.now() - job.began,
    )
