"""Every way a request can fail: one tree, with what HTTP says of each as class attributes.

Rules: an error takes one positional message, a sentence for the person who sent the request; between processes
only ``code``, message and ``param`` travel (``error_from_code`` makes the error again), never a pickled exception.
``param`` names the request's field at fault, where there is one.
"""

from __future__ import annotations

import errno
from typing import ClassVar

#: No space, over quota, file too large for the file system: the disk is full, and that is not the sender's fault.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class WhisperdError(Exception):
    """Base of all. ``status`` is HTTP's, ``kind`` is OpenAI's ``error.type``, ``code`` OpenAI's ``error.code``."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    #: Seconds for ``Retry-After``; None sends no such header. An instance may know better.
    retry_after: int | None = None
    #: Value for ``x-should-retry``, which OpenAI's SDKs obey; None leaves the choice to them.
    should_retry: ClassVar[bool | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(WhisperdError):
    status, kind, code = 400, "invalid_request_error", "invalid_request"


class UnsupportedAudio(InvalidRequest):
    """The bytes are no container or codec that whisperd decodes, or hold no sound track."""

    code = "unsupported_audio"


class UndecodableAudio(InvalidRequest):
    """The container is known, but no sound could be got out of it."""

    code = "undecodable_audio"


class AudioTooShort(InvalidRequest):
    code = "audio_too_short"


class Unauthorized(InvalidRequest):
    status, code = 401, "invalid_api_key"


class Forbidden(InvalidRequest):
    status, code = 403, "forbidden"


class NotFound(InvalidRequest):
    status, code = 404, "not_found"


class NotFinished(NotFound):
    """The job has no result yet."""

    code, retry_after = "not_finished", 5


class UnknownModel(NotFound):
    code = "model_not_found"


class MethodNotAllowed(InvalidRequest):
    status, code = 405, "method_not_allowed"


class RequestTimeout(InvalidRequest):
    """The request did not come in time, or came too slowly."""

    status, code, should_retry = 408, "request_timeout", True  # a link that failed for a while may be back


class Conflict(InvalidRequest):
    """What is asked for cannot be done to a thing that is in use."""

    status, code, should_retry = 409, "conflict", False


class UploadTooLarge(InvalidRequest):
    status, code = 413, "upload_too_large"


class AudioTooLong(InvalidRequest):
    status, code = 413, "audio_too_long"


class JobCancelled(InvalidRequest):
    """Somebody cancelled the job; a status that SDKs do not retry."""

    status, code = 410, "cancelled"


class QueueFull(WhisperdError):
    status, kind, code, retry_after = 429, "rate_limit_error", "queue_full", 5


class RateLimited(QueueFull):
    """One key asks for more than it may; others are served."""

    code = "rate_limit_exceeded"


class StorageFull(WhisperdError):
    status, code, retry_after = 503, "storage_full", 30

    @classmethod
    def of(cls, error: OSError) -> StorageFull:
        """What to say of an upload that the system would not write."""
        full = error.errno in DISK_FULL
        return cls("The server's disk is full." if full else "The server cannot store the upload right now.")


class ShuttingDown(WhisperdError):
    status, code, retry_after = 503, "shutting_down", 5


class TooManyConnections(WhisperdError):
    status, code, retry_after = 503, "too_many_connections", 1


class JobsUnavailable(WhisperdError):
    """Jobs cannot be kept on this server's disk."""

    status, code, should_retry = 503, "jobs_unavailable", False  # nor in a minute


class BackendUnavailable(WhisperdError):
    """The model could not be loaded, or its worker keeps dying."""

    status, code, retry_after = 503, "backend_unavailable", 10


class DeadlineExceeded(WhisperdError):
    status, code, should_retry = 504, "deadline_exceeded", False


class WorkerDied(WhisperdError):
    status, code, should_retry = 500, "worker_died", False


class InferenceFailed(WhisperdError):
    status, code, should_retry = 500, "inference_failed", False


def _tree(root: type[WhisperdError]) -> dict[str, type[WhisperdError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


ERRORS: dict[str, type[WhisperdError]] = _tree(WhisperdError)


def error_from_code(code: str, message: str, param: str | None = None) -> WhisperdError:
    """The error that another process described by its code; an unknown code becomes the base class."""
    return ERRORS.get(code, WhisperdError)(message, param=param)
