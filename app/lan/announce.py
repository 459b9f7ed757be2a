"""Bonjour: the server says on the local network that it is there, so that nobody has to type its address.

Records hold what anybody who asks ``/health`` may know, and no secret. What goes wrong here is a line in the log, never
a server that does not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import zeroconf
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from app import __version__
from app.log import event
from app.settings import Settings, exposed

#: Seconds that saying goodbye may take.
_GOODBYE_S = 2.0
#: Bytes of a label in DNS; a name that is taken gets a number behind it.
_MOST_LABEL, _NUMBER = 63, 5

#: All addresses of a family, as ``host`` says it.
_ALL = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - compared, not listened on

Interfaces = Sequence[str] | zeroconf.InterfaceChoice


@dataclass(frozen=True, slots=True)
class Announced:
    """A service of this server: ``kind`` such as ``_http._tcp``, its port, and its TXT record."""

    kind: str
    port: int
    text: dict[str, str]


def announced_of(settings: Settings, http_port: int, wyoming_port: int | None, *, wants_key: bool) -> list[Announced]:
    """What is to be announced: what others than this machine reach, if any of it should be."""
    if not settings.bonjour:
        return []
    found = []
    if exposed(settings.host):
        text = {
            "whisperd": __version__,
            "path": "/",
            "api": "/v1",
            "model": settings.default_model.rpartition("/")[2],  # a folder's place is nobody's business
            "auth": "key" if wants_key else "none",
            "tls": str(int(settings.tls_cert is not None)),
        }
        found.append(Announced("_http._tcp", http_port, text))
    if wyoming_port is not None and exposed(settings.wyoming_host):
        found.append(Announced("_wyoming._tcp", wyoming_port, {"whisperd": __version__}))
    return found


class Announcer:
    """Announces ``services`` of a server that listens on ``host`` from ``start`` to ``withdraw``, on ``interfaces``:
    addresses of some, or all; those behind ``host`` by default.
    """

    def __init__(self, services: Sequence[Announced], host: str, interfaces: Interfaces | None = None) -> None:
        self._services = services
        self._host = host
        self._interfaces = interfaces_of(host) if interfaces is None else interfaces
        self._zeroconf: AsyncZeroconf | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the background: asking whether a name is free takes a second. Must be called in the event loop."""
        self._task = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        try:
            addresses = await asyncio.to_thread(addresses_of, self._host)
            self._zeroconf = AsyncZeroconf(interfaces=self._interfaces, ip_version=_version_of(addresses))
            for service in self._services:
                info = _info(service, addresses)
                await (await self._zeroconf.async_register_service(info, allow_name_change=True))
                event("announced on the network", service=service.kind, port=service.port, name=info.get_name())
        except Exception as error:  # noqa: BLE001 - of many kinds, and the server is as good without
            event("not announced on the network", logging.WARNING, reason=f"{type(error).__name__}: {error}")

    async def withdraw(self) -> None:
        """Say goodbye; harmless where nothing was announced."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._zeroconf is not None:
            with contextlib.suppress(OSError, TimeoutError, zeroconf.Error):  # the network may be gone
                async with asyncio.timeout(_GOODBYE_S):
                    await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()


def addresses_of(host: str) -> list[str]:
    """Where others reach a server that listens on ``host``. Raises ``OSError`` for a name that is none."""
    if host not in _ALL:
        return sorted({str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    own = (each for addresses in psutil.net_if_addrs().values() for each in addresses if each.family == _ALL[host])
    found = (ipaddress.ip_address(each.address.partition("%")[0]) for each in own)
    # IPv6's link-local ones are of no use without their interface.
    return sorted(
        str(each) for each in found if not each.is_loopback and not (each.version == 6 and each.is_link_local)
    )


def interfaces_of(host: str) -> Interfaces:
    """The interfaces behind ``host``: its own where it is the address of one, else all."""
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(host)
        if not address.is_unspecified:
            return [host]
    return zeroconf.InterfaceChoice.All


def _version_of(addresses: Sequence[str]) -> zeroconf.IPVersion:
    six = {ipaddress.ip_address(each).version == 6 for each in addresses}
    if len(six) > 1:
        return zeroconf.IPVersion.All
    return zeroconf.IPVersion.V6Only if six == {True} else zeroconf.IPVersion.V4Only


def _info(service: Announced, addresses: Sequence[str]) -> AsyncServiceInfo:
    machine = socket.gethostname().partition(".")[0] or "this machine"
    label = f"whisperd on {machine}".encode()[: _MOST_LABEL - _NUMBER].decode(errors="ignore")
    kind = f"{service.kind}.local."
    # A name of its own: the machine's belongs to the system's responder, which would take ours for another machine.
    server = f"whisperd-{machine}".replace(" ", "-")[: _MOST_LABEL - _NUMBER]
    return AsyncServiceInfo(
        kind,
        f"{label}.{kind}",
        port=service.port,
        properties=dict(service.text),
        server=f"{server}.local.",
        parsed_addresses=list(addresses),
    )
