"""Bonjour on the loopback interface: another responder there sees what is announced, and that it goes."""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from zeroconf import ServiceBrowser, ServiceListener, Zeroconf

from app import __version__
from app.commands.flags import add_settings, settings_of
from app.lan import announce
from app.lan.announce import Announced, Announcer, addresses_of, announced_of, interfaces_of
from app.settings import Settings
from tests.conftest import wait_for

HTTP = "_http._tcp.local."
LOOPBACK = ["127.0.0.1"]


class Browser(ServiceListener):
    """Another machine's, as it were: the services of whisperd that it knows of, by name."""

    def __init__(self) -> None:
        self.zeroconf = Zeroconf(interfaces=LOOPBACK)
        self.names: set[str] = set()
        self.gone: set[str] = set()
        ServiceBrowser(self.zeroconf, HTTP, self)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.add(name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.gone.add(name)

    update_service = add_service

    def record(self, name: str) -> tuple[int, dict[str, str]]:
        """The port and the TXT record behind a name."""
        info = self.zeroconf.get_service_info(HTTP, name, 10_000)
        assert info is not None
        return info.port or 0, {key.decode(): (value or b"").decode() for key, value in info.properties.items()}


@pytest.fixture
def browser():
    browser = Browser()
    yield browser
    browser.zeroconf.close()


def settings(tmp_path: Path, **given: object) -> Settings:
    return Settings(backend="fake", model="a-model", state_dir=tmp_path, keys_file=tmp_path / "keys.json", **given)


def announced(tmp_path: Path, **given: object) -> list[Announced]:
    return announced_of(settings(tmp_path, **given), 9447, 10300, wants_key=True)


def while_announced(announcers: list[Announcer], look: Callable[[], None]) -> None:
    """Run ``look`` while all are announced, one after the other, then withdraw them."""

    async def run() -> None:
        for announcer in announcers:
            announcer.start()
            assert announcer._task is not None
            await announcer._task
        try:
            await asyncio.to_thread(look)
        finally:
            for announcer in announcers:
                await announcer.withdraw()

    asyncio.run(run())


NAME = f"whisperd on {socket.gethostname().partition('.')[0]}"


def test_another_machine_sees_the_server_and_its_goodbye(tmp_path: Path, browser: Browser) -> None:
    services = announced(tmp_path, host="0.0.0.0")
    name, found = f"{NAME}.{HTTP}", []

    def look() -> None:
        wait_for(lambda: name in browser.names, 20)
        found.append(browser.record(name))
        assert name not in browser.gone

    while_announced([Announcer(services, LOOPBACK[0])], look)
    text = {"whisperd": __version__, "path": "/", "api": "/v1", "model": "a-model", "auth": "key", "tls": "0"}
    assert found == [(9447, text)]
    wait_for(lambda: name in browser.gone, 20)


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # From one responder: two on one machine share a port, and the system gives what is sent to it to either.
    caplog.set_level("INFO", "whisperd")
    twice = announced(tmp_path, host="0.0.0.0") * 2
    while_announced([Announcer(twice, LOOPBACK[0])], lambda: None)
    assert [getattr(record, "fields", {})["name"] for record in caplog.records if record.name == "whisperd"] == [
        NAME,
        f"{NAME}-2",
    ]


def test_only_what_others_reach_is_announced(tmp_path: Path) -> None:
    def kinds(**given: object) -> list[str]:
        return [each.kind for each in announced(tmp_path, **given)]

    assert kinds() == []
    assert kinds(host="localhost", wyoming_port=10300) == []
    assert kinds(host="0.0.0.0", bonjour=False, wyoming_host="0.0.0.0") == []
    assert kinds(host="0.0.0.0") == ["_http._tcp"]
    assert kinds(wyoming_host="0.0.0.0") == ["_wyoming._tcp"]
    assert kinds(host="192.0.2.1", wyoming_host="::") == ["_http._tcp", "_wyoming._tcp"]


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--no-bonjour"], False)])
def test_the_flag_turns_it_off(flags: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHISPERD_BONJOUR", raising=False)
    parser = argparse.ArgumentParser()
    add_settings(parser)
    assert settings_of(parser.parse_args([*flags, "--backend", "fake"])).bonjour is expected


def test_the_record_says_what_a_client_needs_and_no_secret_and_no_path(tmp_path: Path) -> None:
    given = settings(tmp_path, host="0.0.0.0", api_key="a-secret-key", tls_cert=tmp_path / "cert.pem")
    (service,) = announced_of(given.model_copy(update={"model": str(tmp_path)}), 1, None, wants_key=False)
    assert (service.text["auth"], service.text["tls"]) == ("none", "1")
    assert service.text["model"] == tmp_path.name
    assert "a-secret-key" not in str(service)
    assert str(tmp_path) not in str(service)


def test_what_cannot_be_announced_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(**_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(announce, "AsyncZeroconf", no_network)
    while_announced([Announcer(announced(tmp_path, host="0.0.0.0"), LOOPBACK[0])], lambda: None)
    assert [record.message for record in caplog.records if record.name == "whisperd"] == [
        "not announced on the network"
    ]


def test_the_addresses_are_those_that_others_reach() -> None:
    assert addresses_of("192.0.2.7") == ["192.0.2.7"]
    assert "127.0.0.1" not in addresses_of("0.0.0.0")
    assert interfaces_of("192.0.2.7") == ["192.0.2.7"]
    assert interfaces_of("0.0.0.0") == interfaces_of("::") != ["0.0.0.0"]
