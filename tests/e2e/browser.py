"""A browser for the tests of the web page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Watched:
    """What a page did that it should not: errors, refusals of the content security policy, other hosts it asked."""

    page: Any
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def _console(watched: Watched, message: Any) -> None:
    # A request that is answered with an error is an error in the console too.
    if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
        watched.faults.append(message.text)


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH (on Debian: apt install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        yield browser
        browser.close()


@contextlib.contextmanager
def page_of(browser: Any, url: str, **context: Any) -> Iterator[Watched]:
    """A fresh profile with the page at ``url``."""
    profile = browser.new_context(**{"locale": "en-GB", **context})
    watched = Watched(profile.new_page())
    watched.page.on("console", lambda message: _console(watched, message))
    watched.page.on("pageerror", lambda error: watched.faults.append(str(error)))
    watched.page.on("request", lambda request: watched.asked.append(request.url))
    watched.page.goto(url)
    yield watched
    profile.close()
