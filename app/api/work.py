"""From an upload to its answer: what transcriptions and translations have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api import uploads
from app.api.auth import key_of, owner_of
from app.api.forms import TranscriptionForm, TranslationForm
from app.api.heartbeat import PatientAnswer
from app.api.jobs import accepted, prefers_async
from app.api.request_id import CLIENT_GONE
from app.api.responses import BACKEND, WARNING
from app.api.service import Service, service_of
from app.api.stream import EventStream, cancel_when_gone
from app.catalog import can_translate
from app.engine.admission import Upload
from app.engine.job import Job, Work
from app.errors import InvalidRequest
from app.formats import FORMATS
from app.transcript import Transcript

Result = TypeVar("Result")
Fields = TranscriptionForm | TranslationForm

#: Formats whose text can be sent as it comes; the others have a shape of their own and are sent whole.
_STREAMED = frozenset({"json", "text"})


async def answer(request: Request, form_type: type[Fields], task: str) -> Response:
    """Take in the request's upload, do its work, and answer in the format asked for. Raises the errors of
    ``app.errors``.
    """
    service = service_of(request)
    most = service.settings.max_upload_mb * 2**20
    try:
        with ExitStack() as held:
            held.enter_context(service.allowances.request(key_of(request), _unfinished(request, service)))
            size = min(uploads.announced(request), most)
            upload = held.enter_context(service.engine.admit(size, retry=_is_retry(request)))
            form = await uploads.receive(request, upload, most)
            fields = form_type.parse(form)
            if not form.has_file:
                raise InvalidRequest("The request has no audio: send it as a form's part named 'file'.", param="file")
            work = _work(service, fields, task, upload, owner_of(request))
            background = fields.x_priority == "background"
            if prefers_async(request):
                return await accepted(request, upload, work, fields, background=background)
            job = held.enter_context(service.engine.submit(upload, work, background=background))
            if fields.stream and fields.response_format in _STREAMED:
                await _unless_gone(request, job.opened)
                return EventStream(service.engine.device, job, held.pop_all())
            render = _renderer(fields)
            if fields.x_heartbeat and FORMATS[fields.response_format].media_type == "application/json":
                return PatientAnswer(service.engine.device, job, render, held.pop_all())
            transcript = await _unless_gone(request, job.result)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    media_type = FORMATS[fields.response_format].media_type
    headers = {"Server-Timing": _timing(job), BACKEND: service.engine.device.backend_of(job)}
    if transcript.warning:
        headers[WARNING] = transcript.warning
    return Response(render(transcript), media_type=media_type, headers=headers)


def _work(service: Service, fields: Fields, task: str, upload: Upload, owner: str) -> Work:
    model = service.catalog.resolve(fields.model)
    if task == "translate" and not can_translate(model):
        raise InvalidRequest(f"The model {model.name!r} was not trained to translate.", param="model")
    options = fields.options(task=task, beam_size=service.settings.beam_size)
    return Work(options, str(model.path), model.name, upload.digest, owner)


def _renderer(fields: Fields) -> Callable[[Transcript], str]:
    render, granularities = FORMATS[fields.response_format].render, frozenset[str](fields.timestamp_granularities)
    return lambda transcript: render(transcript, granularities)


def _unfinished(request: Request, service: Service) -> int:
    """The jobs on disk that count with a request for another one."""
    if service.jobs is None or not prefers_async(request):
        return 0
    return service.jobs.unfinished(owner_of(request))


def _is_retry(request: Request) -> bool:
    """Whether OpenAI's SDK says that it sends this for the second or third time."""
    return request.headers.get("x-stainless-retry-count", "0") not in ("", "0")


def _timing(job: Job) -> str:
    """The header ``Server-Timing``: milliseconds of waiting for the device, of decoding, of inference."""
    timed = {"queue": job.waited_seconds, "decode": job.decode_seconds, "inference": job.inference_seconds}
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in timed.items())


async def _unless_gone(request: Request, wait: Callable[[], Awaitable[Result]]) -> Result:
    """What ``wait`` gives, or ``ClientDisconnect`` once the client has hung up (it then leaves the job)."""
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
