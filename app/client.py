"""The one HTTP client of a running server: what commands ask of it, with its errors as those of ``app.errors``."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO, Self

import httpx

from app.errors import BackendUnavailable, Unauthorized, WhisperdError, error_from_code
from app.formats import from_verbose_json
from app.settings import Settings
from app.transcript import Options, Transcript

#: A server on this machine answers /health at once.
_PROBE_S = 0.5
#: So do its small routes; one on the network may need longer.
_ANSWER_S = 5.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A job of the server that is not over: ``position`` counts from 1, ``estimated_s`` is None while the pace is
    unknown, ``created_at`` is in Unix seconds.
    """

    id: str
    request_id: str
    status: str
    position: int
    estimated_s: float | None
    audio_s: float
    done_s: float
    progress: float
    model: str
    priority: str
    created_at: int
    callers: int


@dataclass(frozen=True, slots=True)
class Health:
    """``reason`` says why the server is not ``ready``. ``details`` are what it tells those who have the key: state,
    model, backend and so on; empty for others.
    """

    version: str
    ready: bool
    reason: str
    details: dict[str, Any]

    @property
    def says(self) -> str:
        """That it runs, in a sentence."""
        return (
            f"whisperd/{self.version} runs and is ready."
            if self.ready
            else (f"whisperd/{self.version} runs, and is not ready: {self.reason}")
        )


class Client:
    """A connection to the server that listens by ``settings``, while the context is open. Threads may share it.

    All but ``runs`` raise the errors of ``app.errors``: the server's, and ``BackendUnavailable`` where it goes away.
    """

    def __init__(self, settings: Settings) -> None:
        self._model = settings.model
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._http = httpx.Client(
            base_url=settings.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_ANSWER_S,
            verify=settings.trust,
            trust_env=False,  # no proxy: sound and key go to the server alone
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def runs(self) -> bool:
        """Whether a whisperd (and nothing else) answers where the settings say."""
        try:
            response = self._http.get("/health", timeout=_PROBE_S)
        except httpx.HTTPError:
            return False
        return response.is_success and bool(_version(response))

    def health(self) -> Health:
        answer = self._asked("GET", "/health")
        if not _version(answer):
            raise BackendUnavailable("What answers there is no whisperd.")
        details = {name: value for name, value in answer.json().items() if name != "status"}
        try:
            self._asked("GET", "/ready")
        except BackendUnavailable as error:
            return Health(_version(answer), False, error.message, details)
        return Health(_version(answer), True, "", details)

    def queue(self) -> list[QueueEntry]:
        """The jobs of this key that are not over, the next to end first."""
        names = [field.name for field in fields(QueueEntry)]
        rows = self._asked("GET", "/v1/queue").json()["data"]
        return [QueueEntry(**{name: row[name] for name in names}) for row in rows]

    def transcribe(
        self,
        path: Path,
        options: Options,
        *,
        on_sent: Callable[[int], None] = lambda _: None,
        on_queue: Callable[[QueueEntry], None] = lambda _: None,
    ) -> Transcript:
        """The transcript of a file. ``on_sent`` is called with the bytes of each piece that is sent, ``on_queue`` every
        half second with where the job stands, from another thread. Leaving early frees the server's device.
        """
        identity = secrets.token_hex(16)
        form = {
            "model": self._model,
            "language": options.language or "",
            "prompt": options.prompt,
            "temperature": str(options.temperature),
            "response_format": "verbose_json",
            "timestamp_granularities[]": ["segment", "word"] if options.words else ["segment"],
        }
        with path.open("rb") as opened, self._followed(identity, file := _Counted(opened, on_sent), on_queue):
            response = self._asked(
                "POST",
                "/v1/audio/transcriptions",
                data=form,
                files={"file": ("audio", file)},
                headers={"X-Request-Id": identity},
                # Long recordings take long, and the server bounds its own steps.
                timeout=httpx.Timeout(None, connect=_ANSWER_S),
            )
        return replace(from_verbose_json(response.text), warning=response.headers.get("x-whisperd-warning", ""))

    @contextlib.contextmanager
    def _followed(self, identity: str, file: _Counted, on_queue: Callable[[QueueEntry], None]) -> Iterator[None]:
        """Tell ``on_queue`` of the job of the request ``identity`` while the context is open.

        A request for work that an earlier one began has no job of that name: it is the queue's only one, if it is known
        at all, once the ``file`` is sent.
        """
        over = Event()

        def poll() -> None:
            named = False
            while not over.wait(_POLL_S):
                with contextlib.suppress(WhisperdError):
                    sent, queue = file.ended, self.queue()
                    own = [entry for entry in queue if entry.request_id == identity]
                    named = named or bool(own)
                    met = queue if sent and not named and len(queue) == 1 else []
                    for entry in own or met:
                        if not over.is_set():
                            on_queue(entry)

        follower = Thread(target=poll, daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join(_ANSWER_S)

    def _asked(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise BackendUnavailable(f"The server went away before it answered ({type(error).__name__}).") from None
        if response.is_error:
            raise _error_of(response)
        return response


class _Counted:
    """A file of which somebody is told each piece that is read; all else is the file's."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read
        self.ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.ended = not piece
        self._on_read(len(piece))
        return piece


def _version(response: httpx.Response) -> str:
    """The version of the whisperd that answers; "" of another server."""
    name, _, version = response.headers.get("server", "").partition("/")
    return version if name == "whisperd" else ""


def _error_of(response: httpx.Response) -> WhisperdError:
    if response.status_code == Unauthorized.status:
        return Unauthorized("The server wants a key: set WHISPERD_API_KEY to one that `whisperd keys add` made.")
    try:
        body = response.json()["error"]
        error = error_from_code(body["code"] or "", body["message"], body["param"])
    except (ValueError, KeyError, TypeError):
        return WhisperdError(f"What answers there is no whisperd (HTTP {response.status_code}).")
    if (wait := response.headers.get("retry-after", "")).isdecimal():
        error.retry_after = int(wait)
    return error
