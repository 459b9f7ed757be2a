"""``whisperd serve``: the server in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn

from app import __version__, log
from app.api.app import create_app
from app.api.connection import Connection, Connections
from app.commands.flags import add_settings, settings_of
from app.commands.models import pull_bar
from app.defaults import too_large
from app.engine.build import catalog_of
from app.engine.engine import Engine
from app.errors import ShuttingDown
from app.hardware import detect
from app.lan.announce import Announcer, announced_of
from app.lan.wyoming import Wyoming
from app.service.caffeine import stay_awake
from app.service.parking import supervised
from app.service.preflight import check_access, check_folders
from app.settings import Settings, SettingsError, exposed, origin, state_dir

#: Seconds between the end of draining and uvicorn cutting the connections that are still open.
_CUT_AFTER_DRAIN_S = 1
#: Connections that wait in the system; and those that asyncio takes from there before it looks at any, whatever files
#: are left: to asyncio both are one number.
_BACKLOG, _ACCEPT_AT_ONCE = 2048, 8
#: The option's number in glibc's malloc.h; bytes, more than asyncio reads at once (256 KiB), which would be slow.
_M_MMAP_THRESHOLD, _LARGE = -3, 300_000


def configure(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="started by launchd or the like: after 5 starts in 10 minutes that fail, exit 0 and leave the "
        "reason in status.json in the state folder",
    )
    parser.add_argument("--check", action="store_true", help="say whether the server could start, and why not")


def run(options: argparse.Namespace) -> int:
    if options.check:
        return _check(options)
    if options.supervised:
        return supervised(state_dir(options.state_dir), lambda started: _serve(options, started))
    return _serve(options, lambda: None)


def _check(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    check_access(settings)
    _set_up_log(settings)
    catalog = catalog_of(settings)
    if not settings.pull or catalog.has(""):
        check_folders(settings, catalog)
    print(f"whisperd can serve {settings.choice.model} with {settings.choice.backend} at {settings.url}/v1.")
    return 0


def _serve(options: argparse.Namespace, started: Callable[[], None]) -> int:
    """Serve until told to end; ``started`` is called once the server answers."""
    settings = settings_of(options)
    check_access(settings)
    _set_up_log(settings)
    _give_memory_back()
    catalog = catalog_of(settings)
    if settings.pull and not catalog.has(""):
        with pull_bar() as report:
            catalog.pull("", report)
    check_folders(settings, catalog)
    choice, machine = settings.choice, detect()
    with contextlib.ExitStack() as held:
        listener = held.enter_context(contextlib.closing(_listen(settings.host, settings.port, "--port")))
        wyoming = None
        if settings.wyoming_port is not None:
            wyoming = _listen(settings.wyoming_host, settings.wyoming_port, "--wyoming-port")
            held.enter_context(contextlib.closing(wyoming))
        log.event(
            "whisperd starts",
            version=__version__,
            url=f"{origin(settings.host, listener.getsockname()[1], tls=settings.tls_cert is not None)}/v1",
            backend=choice.backend,
            model=choice.model,
            why=choice.reason,
            machine=machine,
        )
        if unfit := too_large(machine, choice.backend, choice.model):
            log.event("the model may be too large", logging.WARNING, reason=unfit)
        if choice.model == "micro":
            log.event("micro is a toy model: it understands synthetic speech only, not people")
        # uvicorn shuts down in order and then raises the signal again: an end that was asked for is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server = _Server(settings, started, wyoming)
        server.run(sockets=[listener])
    return 0 if server.started else 1  # what kept it from starting is in the log


class _Server(uvicorn.Server):
    """uvicorn, except that on its way down the engine answers what it still holds before connections are cut."""

    def __init__(self, settings: Settings, started: Callable[[], None], wyoming: socket.socket | None) -> None:
        self._app = create_app(settings)
        self._settings = settings
        self._started = started
        self._wyoming_listener = wyoming
        self._wyoming: Wyoming | None = None
        self._announcer: Announcer | None = None
        self._drain_s = settings.drain_s
        self._awake: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                self._app,
                http=Connections(room(settings.max_connections)).protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                headers=[("server", f"whisperd/{__version__}")],
                backlog=_ACCEPT_AT_ONCE,
                timeout_graceful_shutdown=int(settings.drain_s) + _CUT_AFTER_DRAIN_S,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            assert sockets is not None
            await self._join_lan(sockets)
            self._started()
            engine: Engine = self._app.state.service.engine
            self._awake = asyncio.create_task(stay_awake(lambda: bool(engine.jobs)))

    async def _join_lan(self, sockets: list[socket.socket]) -> None:
        """Serve Wyoming, and announce what others than this machine reach."""
        settings, service, wyoming = self._settings, self._app.state.service, self._wyoming_listener
        if wyoming is not None:
            # uvicorn waits for its tasks on the way down.
            self._wyoming = Wyoming(settings, service.engine, service.catalog, self.server_state.tasks)
            await self._wyoming.start(wyoming)
        port = sockets[0].getsockname()[1]
        wyoming_port = None if wyoming is None else wyoming.getsockname()[1]
        wants_key = not settings.no_auth or any(not key.admin for key in service.keyring.keys)
        if services := announced_of(settings, port, wyoming_port, wants_key=wants_key):
            # Where HTTP is for this machine alone, what is announced is Wyoming.
            host = settings.host if exposed(settings.host) else settings.wyoming_host
            self._announcer = Announcer(services, host)
            self._announcer.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._awake is not None:
            self._awake.cancel()
        async with anyio.create_task_group() as tasks:
            if (service := getattr(self._app.state, "service", None)) is not None:
                service.pulls.stop()
                tasks.start_soon(self._drain, service.engine)
            async with anyio.create_task_group() as farewell:
                if self._announcer is not None:
                    farewell.start_soon(self._announcer.withdraw)
                if self._wyoming is not None:
                    self._wyoming.refuse()
                await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _drain(self, engine: Engine) -> None:
        await engine.drain(self._drain_s)
        if self._wyoming is not None:
            self._wyoming.break_off()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.break_off(ShuttingDown("The server is going down; send the request again."))


def room(connections: int) -> int:
    """How many of ``connections`` there may be: one open file in four, so raises this process's limit for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4 * connections:
        wanted = 4 * connections if hard == resource.RLIM_INFINITY else min(4 * connections, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit behind the limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 4 * connections:
            connections = max(1, soft // 4)
            log.event(
                "fewer connections than max_connections: the system lets few files be open",
                logging.WARNING,
                connections=connections,
                files=soft,
            )
    return connections


def _set_up_log(settings: Settings) -> None:
    try:
        log.set_up(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SettingsError(f"The log cannot be written to {settings.log_file} ({reason}); see --log-file.") from None


def _give_memory_back() -> None:
    """Have glibc give back large blocks as soon as they are free: the heap of each thread would keep them for ever."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _listen(host: str, port: int, flag: str) -> socket.socket:
    family: Any = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); "
            f"is another server running there? Choose another with {flag}."
        ) from None
    # Connections inherit it; asyncio sets it only on sockets that name their protocol, and without it every answer on a
    # connection that is kept waits 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _Listener(fileno=listener.detach())


class _Listener(socket.socket):
    """Listens with its own backlog, whatever asyncio asks for."""

    def listen(self, backlog: int = 0, /) -> None:  # noqa: ARG002 - the signature is socket's
        super().listen(_BACKLOG)
