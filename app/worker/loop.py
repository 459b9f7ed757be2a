"""The main loop of every child: read a request, answer it, until the pipe ends.

A child owns its process: it runs its library on the main thread, imports no HTTP and no asyncio, ends when its parent
does (the pipe ends even if the parent was killed), and leaves Ctrl-C to its parent.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from app.errors import WhisperdError
from app.worker.messages import Failed, Ready


def run(handle: Callable[[Any], Any]) -> NoReturn:
    """Serve the pipe whose descriptor is the last argument of the command line; never returns.

    ``handle`` turns a request into a reply. A ``WhisperdError`` becomes ``Failed`` with its code; any other exception
    ``Failed`` with code ``inference_failed`` and the exception's type alone, since its text may hold the user's words.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[-1]))
    try:
        connection.send(Ready(os.getpid()))
        while True:
            connection.send(_answer(handle, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # Native libraries may crash while Python tears them down; there is nothing left to save.
        os._exit(0)


def _answer(handle: Callable[[Any], Any], request: Any) -> Any:
    try:
        return handle(request)
    except WhisperdError as error:
        return Failed(error.code, error.message, error.param)
    except MemoryError:
        return Failed("inference_failed", "The machine has too little memory for this.")
    except Exception as error:  # noqa: BLE001 - whatever the library raises must become a reply
        return Failed("inference_failed", f"The library failed with {type(error).__name__}.")
