"""The two ways to a transcript, as one: through a running server, or by the engine in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.batch.bars import OnProgress, Progress
from app.client import Client, QueueEntry
from app.transcriber import Transcriber
from app.transcript import Options, Transcript

Transcribe = Callable[[Path, OnProgress], Transcript]


def through_server(client: Client, options: Options) -> Transcribe:
    def transcribe(path: Path, show: OnProgress) -> Transcript:
        size, sent = max(1, path.stat().st_size), 0

        def on_sent(piece: int) -> None:
            nonlocal sent
            sent += piece
            show(Progress(sent=sent / size))

        def on_queue(entry: QueueEntry) -> None:
            place = entry.position if entry.position > 1 and not entry.done_s else 0
            show(Progress(1.0, place, entry.done_s, entry.audio_s, entry.estimated_s))

        return client.transcribe(path, options, on_sent=on_sent, on_queue=on_queue)

    return transcribe


def in_process(transcriber: Transcriber, options: Options) -> Transcribe:
    def transcribe(path: Path, show: OnProgress) -> Transcript:
        job = transcriber.run(path, options, on_progress=lambda done, whole: show(Progress(done_s=done, audio_s=whole)))
        assert job.transcript is not None
        return job.transcript

    return transcribe
