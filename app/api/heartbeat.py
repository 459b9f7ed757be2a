"""A JSON answer that keeps its connection alive: white space goes before it while the job runs.

For clients behind proxies that hang up on silence and cannot read a stream of events. The price is the status, which
goes out with the first white space: what fails later comes as an error's body with status 200.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import anyio
from starlette.types import Receive, Scope, Send

from app.api.errors import error_body, error_response
from app.api.stream import HEARTBEAT_S, HeldAnswer
from app.engine.device import Device
from app.engine.job import Job
from app.formats import dump
from app.transcript import Transcript


class PatientAnswer(HeldAnswer):
    media_type = "application/json"

    def __init__(self, device: Device, job: Job, render: Callable[[Transcript], str], held: ExitStack) -> None:
        super().__init__(device, job, held)
        self._render = render

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._over()
        if self._job.error is not None:
            await error_response(self._job.error)(scope, receive, send)
            return
        await self._begin(send)
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
