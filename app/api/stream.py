"""A job as server-sent events: OpenAI's ``transcript.text.delta`` and ``transcript.text.done``, then ``[DONE]``.

Comments keep the connection alive while the job waits; SDKs skip them, and their read time-outs begin anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.errors import error_body
from app.api.responses import BACKEND
from app.engine.device import Device
from app.engine.job import Job
from app.formats import DeltaText, dump, logprobs_body, token_usage
from app.transcript import Segment, Transcript

#: Proxies and SDKs give up on a silent connection after 30 s or more.
HEARTBEAT_S = 5.0


class HeldAnswer(Response, ABC):
    """An answer that is sent while its job runs; ``held`` is the caller's hold on the job, left when the answer ends,
    however it ends. It ends at once where the client hangs up.
    """

    def __init__(self, device: Device, job: Job, held: ExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._device = device
        self._job = job
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
                await self._answer(scope, receive, send)
                tasks.cancel_scope.cancel()

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""

    async def _begin(self, send: Send) -> None:
        self.headers[BACKEND] = self._device.backend_of(self._job)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


class EventStream(HeldAnswer):
    media_type = "text/event-stream"

    async def _answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self._begin(send)
        async for line in self._lines():
            await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _lines(self) -> AsyncIterator[str]:
        job, text, given = self._job, DeltaText(), 0
        yield self._heartbeat()
        while True:
            changed, segments = job.change, job.progress.segments
            if len(segments) > given:
                fresh, given = segments[given:], len(segments)
                if delta := text.push("".join(segment.text for segment in fresh)):
                    yield _event(self._delta(delta, fresh))
            elif job.error is not None:
                yield _event(error_body(job.error))
                return
            elif job.transcript is not None:
                yield _event(self._done(job.transcript))
                yield "data: [DONE]\n\n"
                return
            else:
                with anyio.move_on_after(HEARTBEAT_S) as waiting:
                    await changed.wait()
                if waiting.cancelled_caught:
                    yield self._heartbeat()

    def _heartbeat(self) -> str:
        place = self._device.place(self._job)
        loading = "" if self._device.relay.ready else "the model is loading, "
        estimate = "" if place.seconds is None else f", about {place.seconds:.0f} s"
        return f": {loading}position {place.position}{estimate}\n\n"

    def _delta(self, delta: str, segments: list[Segment]) -> dict[str, Any]:
        body: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
        if self._job.progress.options.logprobs:
            body["logprobs"] = logprobs_body(segments)
        return body

    def _done(self, transcript: Transcript) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": "transcript.text.done",
            "text": transcript.text,
        }
        if transcript.with_logprobs:
            body["logprobs"] = logprobs_body(transcript.segments)
        body["usage"] = token_usage(transcript)
        return body


async def cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel ``scope`` once the client has hung up: a handler is not cancelled by itself."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _event(body: dict[str, Any]) -> str:
    return f"data: {dump(body)}\n\n"
