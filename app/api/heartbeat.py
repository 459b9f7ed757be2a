"""A JSON answer that keeps its connection alive: white space goes before it while the job runs.

For clients behind proxies that hang up on silence and cannot read a stream of events. The price is the status, which
goes out with the first white space: what fails later comes as an error's body with status 200.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.errors import error_body, error_response
from app.api.stream import HEARTBEAT_S, cancel_when_gone
from app.engine.job import Job
from app.formats import dump
from app.transcript import Transcript


class PatientAnswer(Response):
    """The response; ``held`` is the caller's hold on the job, left when the answer is sent."""

    media_type = "application/json"

    def __init__(self, job: Job, render: Callable[[Transcript], str], held: ExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._job = job
        self._render = render
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
                await self._over()
                if self._job.error is not None:
                    await error_response(self._job.error)(scope, receive, send)
                else:
                    await self._send(send)
                tasks.cancel_scope.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while not self._job.over:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await self._over()
        body = dump(error_body(self._job.error)) if self._job.error else self._render(await self._job.result())
        await send({"type": "http.response.body", "body": body.encode()})

    async def _over(self) -> None:
        """Wait until the job is over, or a heartbeat is due."""
        with anyio.move_on_after(HEARTBEAT_S):
            while not self._job.over:
                await self._job.change.wait()
