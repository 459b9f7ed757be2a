"""A few thousand mutated files and requests; many more with ``python -m tests.hostile.fuzz`` and ``…http_fuzz``."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from app.engine.decoders import MEMORY_LIMIT
from tests.conftest import StartServer
from tests.hostile import fuzz, http_fuzz

FILES = 2_000
REQUESTS = 5_000
MIB = 2**20


def test_no_mutated_file_kills_or_hangs_a_decoder(figure: Callable[[int, str], None]) -> None:
    findings = fuzz.Findings()
    anyio.run(fuzz.fuzz, 1_000_000, FILES, 2, findings)
    figure(4, f"{FILES:,} mutated files: {len(findings.failed)} failures, {len(findings.replaced)} children replaced")
    again = "python -m tests.hostile.fuzz --files 1 --first N, of these:"
    assert sum(findings.answers.values()) == FILES
    assert not findings.failed, f"{again} {findings.failed}"
    assert not findings.hung, f"{again} {findings.hung}"
    assert len(findings.replaced) <= 5, f"{again} {findings.replaced}"
    assert findings.most_memory <= MEMORY_LIMIT
    assert findings.answers["sound"] > FILES / 10, "the mutations leave nothing to decode"
    assert findings.answers["undecodable_audio"] > FILES / 10, "the mutations break nothing"


def test_a_file_is_its_number() -> None:
    fuzz.seeds.cache_clear()
    first = [fuzz.mutant(number) for number in range(200)]
    fuzz.seeds.cache_clear()
    assert first == [fuzz.mutant(number) for number in range(200)]
    assert len(set(first)) > 190


@pytest.mark.parametrize("seeded", [0])
def test_no_mutated_request_is_the_servers_fault(
    start_server: StartServer, seeded: int, figure: Callable[[int, str], None]
) -> None:
    server = start_server(backend="fake", model="fake")
    findings = http_fuzz.fuzz(server.url, server.pid, range(seeded, seeded + REQUESTS))
    serious = sum(count for status, count in findings.answers.items() if status >= 500)
    figure(4, f"{REQUESTS:,} mutated requests: {serious} x 5xx, {findings.growth / MIB:+.1f} MiB")
    again = "python -m tests.hostile.http_fuzz --url URL --first N --requests 1, of these:"
    assert sum(findings.answers.values()) == REQUESTS
    assert not findings.failed, f"{again} {findings.failed}"
    assert not findings.hung, f"{again} {findings.hung}"
    assert findings.answers[200] > REQUESTS / 20, "no request was left whole"
    assert findings.growth <= 32 * MIB
    assert findings.replaced <= 5
    assert findings.good_at_last
    assert "Traceback" not in server.log.read_text()
