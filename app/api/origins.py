"""Who a browser says it calls, and for whom: the guard against pages that reach for servers on their visitor's network.

A page's own server can point its name at this machine (DNS rebinding): then the browser calls us by that name, which
is why only known names are answered. And any page may post a form anywhere without asking: so what changes something
must not come from another origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import error_response
from app.errors import Forbidden

#: Origins of apps, which no web page can claim: Obsidian on the desktop, and its like on phones.
APP_ORIGINS = ("app://obsidian.md", "capacitor://localhost")

#: Domains that no public name server has: names below them are given on this machine or network alone.
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
#: Methods that change nothing; a page of another origin may send them, and cannot read what comes back.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginMiddleware:
    """Answers 403 to a ``Host`` that is not ours, and to what a page of another origin would change.

    ``hosts`` are names beyond those that are always ours, ``*.example.org`` for all below one, ``*`` for any;
    ``origins`` those that may call, ``*`` for any.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(Headers(scope=scope), scope["method"])):
            await error_response(Forbidden(problem))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers, method: str) -> str:
        """What is wrong with the request, as a sentence; "" if nothing is."""
        host = headers.get("host")
        # Only HTTP/1.0 goes without, which browsers do not speak.
        if host is not None and not self._is_ours(host):
            return (
                f"This server does not answer to the name {host[:100]!r}. If it is yours, add it to "
                "WHISPERD_ALLOWED_HOSTS (allowed_hosts in the configuration file)."
            )
        if method in _SAFE or self._may_call(headers, host or ""):
            return ""
        return (
            f"Web pages of {headers.get('origin', 'another site')[:100]} may not use this server. If they should, add "
            "the origin to WHISPERD_CORS_ORIGINS (cors_origins in the configuration file)."
        )

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return "*" in self._hosts
        name = match["name"].lower().rstrip(".")
        if _is_address(name.strip("[]")) or ("." not in name and name) or name.endswith(_PRIVATE):
            return True
        return any(name == known or (known[:1] == "*" and name.endswith(known[1:])) for known in self._hosts)

    def _may_call(self, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is None:  # no browser, or one so old that it sends neither
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return bool({"*", origin} & self._origins) or origin.lower() in (
            f"http://{host}".lower(),
            f"https://{host}".lower(),
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
