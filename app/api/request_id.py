"""An id for each request, in its answer's ``X-Request-Id`` and on all it logs; and how it was answered (an event, and
in the metrics).

Of what the client sent, only a well formed id stands in a line: a path, a query or a header may hold anything.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.service import Service
from app.log import event, request_id

HEADER = "X-Request-Id"
#: What a client that hung up before its answer is "answered"; nginx's number, since HTTP has none.
CLIENT_GONE = 499

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Methods that change nothing: their answers are many (health checks, scrapes) and tell little.
_QUIET = frozenset({"GET", "HEAD", "OPTIONS"})
#: Others are tokens of any kind and length, so a "-" in the log.
_METHODS = _QUIET | {"DELETE", "PATCH", "POST", "PUT"}
_NONE = "-"
#: The place in the scope where the two halves below meet: a middleware between them may hand on a copy.
_SCOPE_KEY = "whisperd.answered"


@dataclass(slots=True)
class _Answered:
    """What becomes known of a request on its way. ``status`` is 0 until there is one."""

    status: int = 0
    route: str = _NONE


def install(app: FastAPI) -> None:
    """Give every answer of ``app`` its id. To be called before other middleware is added, so that the half that reads
    the route is innermost.
    """
    app.add_middleware(_RouteMiddleware)
    build = app.build_middleware_stack
    # Middleware that is added stands inside Starlette's own, which answers what no handler of ours expected.
    app.build_middleware_stack = lambda: RequestIdMiddleware(build())  # type: ignore[method-assign]


class RequestIdMiddleware:
    """The outermost: keeps the client's id or makes one, and logs ``answered`` at the end, of a stream too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = _identity(scope)
        answered = _Answered()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.status = message["status"]
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        started = time.monotonic()
        token = request_id.set(identity)
        try:
            await self._app({**scope, _SCOPE_KEY: answered}, receive, send_with_id)
            answered.status = answered.status or CLIENT_GONE
        except BaseException:
            answered.status = answered.status or 500  # cut at shutdown, mostly
            raise
        finally:
            _count(scope, answered)
            _log(scope["method"], answered, time.monotonic() - started)
            request_id.reset(token)


class _RouteMiddleware:
    """The innermost: notes the matched route's template, which is set in the scope that is seen here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if _SCOPE_KEY in scope:
                scope[_SCOPE_KEY].route = getattr(scope.get("route"), "path", _NONE)


def refused(status: int) -> str:
    """Log ``answered`` for what never became a request; returns the id that its answer is to carry."""
    identity = _new()
    token = request_id.set(identity)
    _log(_NONE, _Answered(status), 0.0)
    request_id.reset(token)
    return identity


def _identity(scope: Scope) -> str:
    offered = Headers(scope=scope).get(HEADER, "")
    return offered if _WELL_FORMED.fullmatch(offered) else _new()


def _new() -> str:
    return f"req_{secrets.token_hex(12)}"


def _count(scope: Scope, answered: _Answered) -> None:
    """Add to the metrics of the app's engine; an app that has not started has none."""
    service: Service | None = getattr(getattr(scope.get("app"), "state", None), "service", None)
    if service is not None:
        service.engine.metrics.http_requests.labels(answered.route, str(answered.status)).inc()


def _log(method: str, answered: _Answered, seconds: float) -> None:
    # 503 is what /ready says, every second, while a model loads.
    usual = method in _QUIET and (answered.status < 500 or answered.status == 503)
    event(
        "answered",
        logging.DEBUG if usual else logging.INFO,
        method=method if method in _METHODS else _NONE,
        route=answered.route,
        status=answered.status,
        seconds=seconds,
    )
