"""From an upload to its answer: what transcriptions and translations have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api import uploads
from app.api.forms import TranscriptionForm, TranslationForm
from app.api.service import service_of
from app.api.stream import EventStream, cancel_when_gone
from app.catalog import can_translate
from app.errors import InvalidRequest
from app.formats import FORMATS

Result = TypeVar("Result")

#: What a client that hung up is "answered"; nginx's number, since HTTP has none.
_CLIENT_GONE = 499
#: Formats whose text can be sent as it comes; the others have a shape of their own and are sent whole.
_STREAMED = frozenset({"json", "text"})


async def answer(request: Request, form_type: type[TranscriptionForm] | type[TranslationForm], task: str) -> Response:
    """Take in the request's upload, do its work, and answer in the format asked for. Raises the errors of
    ``app.errors``.
    """
    service = service_of(request)
    try:
        async with AsyncExitStack() as admission:
            job = await admission.enter_async_context(service.engine.admit())
            form = await uploads.receive(request, job.source, service.settings.max_upload_mb * 2**20)
            fields = form_type.parse(form)
            if not form.has_file:
                raise InvalidRequest("The request has no audio: send it as a form's part named 'file'.", param="file")
            model = service.catalog.resolve(fields.model)
            if task == "translate" and not can_translate(model):
                raise InvalidRequest(f"The model {model.name!r} was not trained to translate.", param="model")
            options = fields.options(task=task, beam_size=service.settings.beam_size)
            service.engine.start(job, options, str(model.path))
            if fields.stream and fields.response_format in _STREAMED:
                await _unless_gone(request, job.opened)
                return EventStream(service.engine, job, admission.pop_all())
            transcript = await _unless_gone(request, job.result)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)
    format_ = FORMATS[fields.response_format]
    granularities = frozenset[str](fields.timestamp_granularities)
    return Response(format_.render(transcript, granularities), media_type=format_.media_type)


async def _unless_gone(request: Request, wait: Callable[[], Awaitable[Result]]) -> Result:
    """What ``wait`` gives, or ``ClientDisconnect`` once the client has hung up (leaving ``admit`` then cancels the
    job).
    """
    outcome: list[Result] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_gone, request.receive, tasks.cancel_scope)
        try:
            outcome.append(await wait())
        except Exception as error:  # noqa: BLE001 - raised again outside the group, which would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not outcome:
        raise ClientDisconnect
    return outcome[0]
