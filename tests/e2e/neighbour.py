"""A neighbour on the network: starts a server with the words given, looks for it by Bonjour alone, asks it where it
says that it is, ends it, and prints as JSON what came of it. For a network namespace of one's own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import Any

import httpx
from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, ServiceListener, Zeroconf

KINDS = ["_http._tcp.local.", "_wyoming._tcp.local."]


class Neighbour(ServiceListener):
    def __init__(self) -> None:
        self.seen: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.all_seen, self.all_gone = threading.Event(), threading.Event()
        self.zeroconf = Zeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.V4Only)
        self.browser = ServiceBrowser(self.zeroconf, KINDS, self)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        # Asked from a thread of its own: this one brings the answer.
        threading.Thread(target=self._resolve, args=(zc, type_, name)).start()

    def _resolve(self, zc: Zeroconf, type_: str, name: str) -> None:
        if info := zc.get_service_info(type_, name, 10_000):
            text = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
            self.seen[type_] = {"addresses": info.parsed_addresses(), "port": info.port, "text": text, "name": name}
        if len(self.seen) == len(KINDS):
            self.all_seen.set()

    update_service = add_service

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.gone.add(type_)
        if len(self.gone) == len(KINDS):
            self.all_gone.set()


def main() -> None:
    neighbour = Neighbour()
    process = subprocess.Popen([sys.executable, "-m", "app", "serve", *sys.argv[1:]])
    try:
        neighbour.all_seen.wait(60)
        found = {"seen": neighbour.seen, "health": {}}
        if here := neighbour.seen.get(KINDS[0]):
            for address in here["addresses"]:
                response = httpx.get(f"http://{address}:{here['port']}/health", timeout=10)
                found["health"][address] = response.headers.get("server", "")
        process.send_signal(signal.SIGTERM)
        found["code"] = process.wait(30)
        neighbour.all_gone.wait(20)
        found["gone"] = sorted(neighbour.gone)
    finally:
        process.kill()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
