from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from app import keys
from app.errors import InvalidRequest, NotFound
from app.keys import Key, Keyring, digest_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "keys.json"


def test_a_key_is_found_by_its_bytes_and_kept_as_a_digest_only(path: Path) -> None:
    secret = keys.add(path, "phone", max_jobs=2, max_rpm=30)
    found = Keyring(path).find(secret.encode())
    assert found is not None
    assert (found.name, found.admin, found.max_jobs, found.max_rpm) == ("phone", False, 2, 30)
    assert secret not in path.read_text()
    assert secret.removeprefix(keys.PREFIX) not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir() if each.suffix != ".lock"] == ["keys.json"], (
        "no drafts are left"
    )


@pytest.mark.parametrize("offered", [b"", b"wrong", b"\xff\xfe", b"x" * 1_000_000, "café".encode()])
def test_other_bytes_are_no_key(path: Path, offered: bytes) -> None:
    keys.add(path, "phone")
    assert Keyring(path).find(offered) is None


def test_a_running_servers_keyring_follows_the_file(path: Path) -> None:
    ring = Keyring(path, [Key("default", digest_of(b"given"))])
    assert [key.name for key in ring.keys] == ["default"]
    phone, tablet = keys.add(path, "phone"), keys.add(path, "tablet")
    assert ring.find(phone.encode()) is not None
    assert keys.revoke(path, "phone") == 1
    assert ring.find(phone.encode()) is None
    assert ring.find(tablet.encode()) is not None
    path.unlink()
    assert ring.find(tablet.encode()) is None
    assert ring.find(b"given") is not None


def test_a_file_that_breaks_while_the_server_runs_counts_as_it_was(path: Path) -> None:
    secret = keys.add(path, "phone")
    ring = Keyring(path)
    path.write_text("{")
    assert ring.find(secret.encode()) is not None
    other = Path(path.with_name("other.json"))
    keys.add(other, "new")
    other.replace(path)
    assert ring.find(secret.encode()) is None, "mended, it is read again"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema": 2, "keys": []}',
        '{"schema": 1, "keys": [{"name": "a"}]}',
        '{"schema": 1, "keys": 3}',
        "\0",
    ],
)
def test_a_broken_file_is_a_sentence_and_is_not_written_over(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    for attempt in (lambda: Keyring(path), lambda: keys.add(path, "a"), lambda: keys.revoke(path, "a")):
        with pytest.raises(InvalidRequest, match=r"The keys in .* cannot be read"):
            attempt()
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["", " ", "a b", "../a", "a\n", "-a", "ä", "a" * 33, 'a"b'])
def test_a_name_that_would_spoil_a_metric_or_a_line_is_refused(path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a key's name"):
        keys.add(path, name)


@pytest.mark.parametrize("name", ["default", "admin", "wyoming", "phone"])
def test_a_name_is_given_once(path: Path, name: str) -> None:
    keys.add(path, "phone")
    with pytest.raises(InvalidRequest, match=f"'{name}'"):
        keys.add(path, name)


def test_who_is_not_there_cannot_be_revoked(path: Path) -> None:
    with pytest.raises(NotFound, match="no key named 'phone'"):
        keys.revoke(path, "phone")


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=keys.add, args=(path, f"key{number}")) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["keys"]) == 16
    assert len({key.owner for key in Keyring(path).keys}) == 16


def test_an_owners_mark_leads_back_to_its_name_and_not_to_its_key(path: Path) -> None:
    secret = keys.add(path, "phone")
    ring = Keyring(path)
    (key,) = ring.keys
    assert ring.name_of(key.owner) == "phone"
    assert ring.name_of("") == ring.name_of("0" * 16) == ""
    assert key.owner not in secret
