"""Any failure as OpenAI's envelope: one handler for our tree, and one each for what Starlette raises by itself."""

from __future__ import annotations

import logging
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidRequest, MethodNotAllowed, NotFound, WhisperdError
from app.log import logger


def error_body(error: WhisperdError) -> dict[str, Any]:
    """OpenAI's ``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def error_response(error: WhisperdError) -> JSONResponse:
    """The error's body with its status and the headers that clients act on."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` an envelope."""
    app.add_exception_handler(WhisperdError, _ours)
    app.add_exception_handler(HTTPException, _starlettes)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_: Request, error: Exception) -> Response:
    return error_response(cast("WhisperdError", error))


async def _starlettes(request: Request, error: Exception) -> Response:
    status = cast("HTTPException", error).status_code
    if status == 404:
        return error_response(NotFound(f"There is nothing at {request.method} {request.url.path[:200]}."))
    if status == 405:
        response = error_response(MethodNotAllowed(f"{request.method} is not allowed here."))
        response.headers.update(cast("HTTPException", error).headers or {})
        return response
    return error_response(InvalidRequest("The request cannot be understood."))


async def _bad_parameter(_: Request, error: Exception) -> Response:
    problem = cast("RequestValidationError", error).errors()[0]
    name, message = str(problem["loc"][-1]), str(problem["msg"])
    text = f"The parameter '{name}' cannot be used: {message[:1].lower()}{message[1:]}."
    return error_response(InvalidRequest(text, param=name))


async def _unexpected(_: Request, error: Exception) -> Response:
    # The type and place alone: the exception's text may hold the user's words.
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
    logger.log(logging.ERROR, "unexpected error", extra={"fields": {"type": type(error).__name__, "where": where}})
    return error_response(WhisperdError("The server failed unexpectedly."))
