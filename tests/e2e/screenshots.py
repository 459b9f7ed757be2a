"""Take ``docs/page.png`` anew: ``python -m tests.e2e.screenshots [FOLDER]``, dark.png and phone.png into FOLDER."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import clips, free_port, join_clips, wait_for
from tests.e2e.browser import chromium, page_of

PICTURE = Path(__file__).parents[2] / "docs" / "page.png"
DESKTOP = {"width": 1000, "height": 900}
PHONE = {"width": 390, "height": 844}
#: Where the recording is heard when the picture is taken, in words.
HEARD = 14


def main(folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        server = [sys.executable, "-m", "app", "serve", "--model", "micro", "--backend", "faster-whisper"]
        process = subprocess.Popen([*server, "--port", str(port), "--state-dir", scratch])
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: httpx.get(f"{url}/ready").is_success, 120)
            _take(url, Path(scratch), folder)
        finally:
            process.terminate()
            process.wait()


def _take(url: str, scratch: Path, folder: Path | None) -> None:
    recording = join_clips(clips("en00")[:7], scratch / "Winter evenings.wav")
    with chromium() as browser, page_of(browser, url, viewport=DESKTOP) as watched:
        page = watched.page
        page.set_input_files("#files", str(recording.path))
        page.locator(".actions").wait_for()
        page.locator(".word").nth(HEARD).evaluate(
            "(word) => { document.querySelector('audio').currentTime = Number(word.dataset.start) + 0.05; }"
        )
        page.locator(".word.now").wait_for()
        _shoot(page, PICTURE)
        if folder:
            page.emulate_media(color_scheme="dark")
            _shoot(page, folder / "dark.png")
            page.set_viewport_size(PHONE)
            _shoot(page, folder / "phone.png")


def _shoot(page: Any, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=path, full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
