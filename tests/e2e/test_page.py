"""The web page in a browser, with the real server behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import (
    Recording,
    Server,
    StartServer,
    clips,
    cut_off,
    free_port,
    join_clips,
    join_windows,
    script_of,
)
from tests.e2e.browser import Watched, chromium, page_of

CLIP = clips("en000")[0]
KEY = "open-sesame"
#: Generous: the machine that runs this may do other things.
SOON_MS = 60_000
NARROW = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Its microphone hears a clip over and over, and it finds the machine ``whisper.local`` here."""
    spoken = join_clips([CLIP], tmp_path_factory.mktemp("spoken") / "spoken.wav")
    with chromium(
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken.path}",
        "--host-resolver-rules=MAP whisper.local 127.0.0.1",
    ) as browser:
        yield browser


@pytest.fixture
def watched(browser: Any, server: Server) -> Iterator[Watched]:
    with page_of(browser, server.url) as watched:
        yield watched
        assert not watched.faults
        assert all(url.startswith((server.url, "blob:", "data:")) for url in watched.asked)


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.page


@pytest.fixture(scope="module")
def locked(start_server: StartServer) -> Server:
    return start_server(backend="faster-whisper", model="micro", env={"WHISPERD_API_KEY": KEY})


def row_of(page: Any, name: str) -> Any:
    return page.locator("#rows > li").filter(has=page.get_by_role("heading", name=name, exact=True))


def transcribed(page: Any, *paths: Path) -> Any:
    """The row of the last of ``paths``, once all of them are transcribed."""
    page.set_input_files("#files", [str(path) for path in paths])
    for path in paths:
        row_of(page, path.name).locator(".actions").wait_for(timeout=SOON_MS)
    return row_of(page, paths[-1].name)


def download(page: Any, row: Any, form: str) -> tuple[str, str]:
    """Name and content of what the row's download gives."""
    row.get_by_role("combobox").select_option(form)
    with page.expect_download() as download:
        row.get_by_role("button", name="Download").click()
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")


def test_what_the_policy_refuses_is_noticed(browser: Any, server: Server) -> None:
    with page_of(browser, server.url) as watched:
        watched.page.evaluate("() => document.body.setAttribute('style', 'color: red')")
        watched.page.evaluate(
            "() => { document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\"></p>'); }"
        )
        watched.page.evaluate("() => { document.body.insertAdjacentHTML('beforeend', '<img src=\"//127.0.0.2/\">'); }")
        assert len(watched.faults) >= 2


def test_a_recording_becomes_text(page: Any, server: Server) -> None:
    row = transcribed(page, CLIP.path)
    text = " ".join(row.locator(".segment p").all_inner_texts())
    assert text == server.transcribe(CLIP.path).json()["text"]
    assert "English" in row.locator(".status").inner_text()
    assert row.locator("progress").is_hidden()


def test_several_recordings_stand_in_their_order(page: Any) -> None:
    paths = [clip.path for clip in clips("en00")[:3]]
    transcribed(page, *paths)
    assert page.locator("#rows h3").all_inner_texts() == [path.name for path in paths]


def test_recordings_can_be_dropped(page: Any) -> None:
    page.evaluate(
        """(name) => {
            const carried = new DataTransfer();
            carried.items.add(new File(["no sound"], name));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        "dropped.txt",
    )
    row_of(page, "dropped.txt").get_by_text("Failed").wait_for(timeout=SOON_MS)


def test_text_arrives_while_the_recording_is_transcribed(
    browser: Any, start_server: StartServer, tmp_path: Path
) -> None:
    recording = join_windows(clips("en")[:8], tmp_path / "long.wav")
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=1), max_batch=1)
    with page_of(browser, server.url) as watched:
        page = watched.page
        page.evaluate(
            """() => {
                window.seen = [];
                const note = () => {
                    const row = document.querySelector("#rows > li");
                    if (row) window.seen.push([
                        row.querySelectorAll(".segment").length, row.querySelector(".status").textContent]);
                };
                new MutationObserver(note).observe(
                    document.getElementById("rows"), { childList: true, subtree: true, characterData: true });
            }"""
        )
        transcribed(page, recording.path)
        while_running = {count for count, status in page.evaluate("() => window.seen") if "Transcribing" in status}
        assert len(while_running - {0}) > 1
        assert not watched.faults
    server.stop()


def test_words_and_what_stands_between_them_are_the_segments_text(
    page: Any, server: Server, long_recording: Recording
) -> None:
    row = transcribed(page, long_recording.path)
    body = json.loads(result(server, page, "verbose_json"))
    assert len(body["segments"]) > 5
    assert row.locator(".segment p").all_inner_texts() == [segment["text"].strip() for segment in body["segments"]]
    assert row.locator(".word").all_inner_texts() == [word["word"] for word in body["words"]]


def test_names_and_texts_are_never_markup(browser: Any, start_server: StartServer, tmp_path: Path) -> None:
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    server = start_server(backend="fake", model=script_of(tmp_path, text=f" {markup}"))
    path = tmp_path / "<b>name<b>.flac"
    path.write_bytes(CLIP.path.read_bytes())
    with page_of(browser, server.url) as watched:
        row = transcribed(watched.page, path)
        assert row.locator(".segment p").first.inner_text() == markup
        assert watched.page.locator("b, img[src=x]").count() == 0
        assert not watched.faults
    server.stop()


def heard(audio: Any) -> float:
    """Where ``audio`` plays, once it does."""
    audio.evaluate("(audio) => new Promise((heard) => audio.addEventListener('timeupdate', heard, { once: true }))")
    return float(audio.evaluate("(audio) => audio.currentTime"))


def test_a_word_plays_from_its_time(page: Any) -> None:
    row = transcribed(page, CLIP.path)
    words = row.locator(".word")
    word = words.nth(words.count() // 2)
    start = float(word.get_attribute("data-start"))
    assert start > 0
    word.click()
    assert heard(row.locator("audio")) >= start - 0.05
    row.locator(".word.now").wait_for(timeout=SOON_MS)


def test_words_are_reached_and_played_by_key(page: Any) -> None:
    row = transcribed(page, CLIP.path)
    row.locator(".time").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "End"):
        page.keyboard.press(key)
    word = page.locator("*:focus")
    assert word.inner_text() == row.locator(".word").last.inner_text()
    start = float(word.get_attribute("data-start"))
    page.keyboard.press("Enter")
    assert heard(row.locator("audio")) >= start - 0.05
    page.keyboard.press("ArrowUp")
    assert page.locator("*:focus").get_attribute("class") == "time"


def result(server: Server, page: Any, form: str) -> str:
    """What the server itself answers for the newest recording of the page."""
    (job, *_) = json.loads(page.evaluate("() => sessionStorage.getItem('whisperd.jobs')"))
    answer = httpx.get(f"{server.url}/v1/jobs/{job['id']}/result", params={"response_format": form})
    return answer.raise_for_status().text


@pytest.mark.parametrize(
    ("form", "suffix", "beginning"),
    [("text", "txt", ""), ("srt", "srt", "1\n00:00:0"), ("vtt", "vtt", "WEBVTT\n"), ("verbose_json", "json", "{")],
)
def test_each_format_is_downloaded_as_the_server_writes_it(
    page: Any, server: Server, form: str, suffix: str, beginning: str
) -> None:
    row = transcribed(page, CLIP.path)
    name, content = download(page, row, form)
    assert name == f"{CLIP.path.stem}.{suffix}"
    assert content.startswith(beginning)
    assert content == result(server, page, form)
    assert server.transcribe(CLIP.path).json()["text"].split()[-1] in content
    if form == "verbose_json":
        assert json.loads(content).keys() >= {"segments", "words"}


def test_text_is_copied(watched: Watched, server: Server) -> None:
    page = watched.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row = transcribed(page, CLIP.path)
    row.get_by_role("button", name="Copy").click()
    row.get_by_text("Copied").wait_for(timeout=SOON_MS)
    assert page.evaluate("() => navigator.clipboard.readText()") == server.transcribe(CLIP.path).json()["text"] + "\n"


def test_text_is_copied_where_pages_have_no_clipboard(watched: Watched, server: Server) -> None:
    page = watched.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row = transcribed(page, CLIP.path)
    page.evaluate(
        """() => {
            window.clipboard = navigator.clipboard;
            Object.defineProperty(navigator, "clipboard", { value: undefined });
        }"""
    )
    row.get_by_role("combobox").select_option("srt")
    row.get_by_role("button", name="Copy").click()
    row.get_by_text("Copied").wait_for(timeout=SOON_MS)
    assert page.evaluate("() => window.clipboard.readText()") == result(server, page, "srt")


def test_model_language_and_prompt_are_sent(page: Any) -> None:
    page.locator("#model option", has_text="micro").wait_for(state="attached", timeout=SOON_MS)
    page.get_by_label("Language").select_option("German")
    page.get_by_label("Prompt").fill("Heinz")
    with page.expect_request("**/v1/audio/transcriptions") as request:
        row = transcribed(page, clips("de")[0].path)
    # A browser does not hand out the file of a form, but the text before it.
    assert "German" in row.locator(".status").inner_text()
    assert request.value.headers["prefer"] == "respond-async"


def test_a_translation_is_asked_for(browser: Any, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, text=" in English"))
    with page_of(browser, server.url) as watched:
        page = watched.page
        page.get_by_label("Translate into English").check()
        assert page.get_by_label("Language").is_disabled()
        with page.expect_request("**/v1/audio/translations"):
            row = transcribed(page, CLIP.path)
        # A translation has no words: each segment plays as one.
        assert row.locator(".word").all_inner_texts() == row.locator(".segment p").all_inner_texts()
        assert row.locator(".word").count() > 0
        assert not watched.faults
    server.stop()


def test_a_model_that_cannot_translate_says_so(page: Any) -> None:
    page.get_by_label("Translate into English").check()
    page.set_input_files("#files", str(CLIP.path))
    row = row_of(page, CLIP.path.name)
    row.get_by_text("The model 'micro' was not trained to translate.").wait_for(timeout=SOON_MS)


def test_a_recording_outlives_a_restart_of_the_server(browser: Any, start_server: StartServer, tmp_path: Path) -> None:
    recording = join_windows(clips("en")[:4], tmp_path / "long.wav")
    script, state, port = script_of(tmp_path, seconds_per_step=1), tmp_path / "state", free_port()
    settings = {"backend": "fake", "model": script, "max_batch": 1, "port": port, "state_dir": state}
    server = start_server(**settings)
    with page_of(browser, server.url) as watched:
        watched.page.set_input_files("#files", str(recording.path))
        row = row_of(watched.page, recording.path.name)
        row.locator(".segment").first.wait_for(timeout=SOON_MS)
        server.process.kill()
        server.process.wait()
        row.get_by_text("The server cannot be reached.").wait_for(timeout=SOON_MS)
        again = start_server(**settings)
        row.locator(".actions").wait_for(timeout=SOON_MS)
        assert row.locator(".segment").count() == len(
            json.loads(result(again, watched.page, "verbose_json"))["segments"]
        )
        assert not watched.faults
    again.stop()


def test_a_file_that_is_no_sound_gets_the_servers_sentence(page: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    page.set_input_files("#files", str(tmp_path / "letter.txt"))
    row = row_of(page, "letter.txt")
    row.get_by_text("Failed").wait_for(timeout=SOON_MS)
    assert row.locator(".error").inner_text() == server.transcribe(tmp_path / "letter.txt").json()["error"]["message"]
    assert row.get_by_role("button", name="Try again").is_hidden()


def test_of_a_damaged_file_it_says_what_is_missing(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#files", str(cut_off(CLIP, tmp_path / "cut.flac")))
    warning = row_of(page, "cut.flac").locator(".warning")
    warning.wait_for(timeout=SOON_MS)
    assert "s of the recording are missing: the file is damaged or cut off." in warning.inner_text()
    assert not row_of(page, "cut.flac").locator(".error").is_visible()


def test_a_server_that_keeps_no_jobs_says_what_the_page_lacks(
    browser: Any, start_server: StartServer, tmp_path: Path
) -> None:
    shared = {"backend": "fake", "model": script_of(tmp_path), "state_dir": tmp_path / "state"}
    first, second = start_server(**shared), start_server(**shared)
    with page_of(browser, second.url) as watched:
        watched.page.set_input_files("#files", str(CLIP.path))
        error = row_of(watched.page, CLIP.path.name).locator(".error")
        error.get_by_text("keeps no jobs on its disk").wait_for(timeout=SOON_MS)
        assert "Prefer" not in error.inner_text()
    second.stop()
    first.stop()


def test_a_file_over_the_limit_gets_the_servers_sentence(
    browser: Any, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(40 * 2**20))
    server = start_server(backend="fake", model="{}", max_upload_mb=1)
    with page_of(browser, server.url) as watched:
        watched.page.set_input_files("#files", str(tmp_path / "large.wav"))
        row = row_of(watched.page, "large.wav")
        row.locator(".error").wait_for(timeout=SOON_MS)
        assert (
            row.locator(".error").inner_text() == server.transcribe(tmp_path / "large.wav").json()["error"]["message"]
        )
        assert not watched.faults
    server.stop()


def test_without_a_network_the_page_says_so_and_sends_again(watched: Watched) -> None:
    page = watched.page
    page.context.set_offline(True)
    page.set_input_files("#files", str(CLIP.path))
    row = row_of(page, CLIP.path.name)
    row.get_by_text("The server cannot be reached.").wait_for(timeout=SOON_MS)
    page.context.set_offline(False)
    row.get_by_role("button", name="Try again").click()
    row.locator(".actions").wait_for(timeout=SOON_MS)
    assert row.locator(".error").is_hidden()


def test_an_upload_shows_how_far_it_is_and_can_be_cancelled(page: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(40 * 2**20))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2**20}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#files", str(tmp_path / "large.wav"))
    row = row_of(page, "large.wav")
    row.get_by_text(re.compile(r"Sending: [1-9]\d? %")).wait_for(timeout=SOON_MS)
    assert 0 < row.locator("progress").evaluate("(progress) => progress.value") < 1
    row.get_by_role("button", name="Cancel").click()
    row.get_by_text("Cancelled").wait_for(timeout=SOON_MS)
    assert page.evaluate("() => sessionStorage.getItem('whisperd.jobs')") == "[]"
    row.get_by_role("button", name="Remove").click()
    row.wait_for(state="detached", timeout=SOON_MS)


def test_what_is_removed_is_gone_from_the_server(page: Any, server: Server) -> None:
    row = transcribed(page, CLIP.path)
    (job,) = json.loads(page.evaluate("() => sessionStorage.getItem('whisperd.jobs')"))
    row.get_by_role("button", name="Remove").click()
    row.wait_for(state="detached", timeout=SOON_MS)
    assert httpx.get(f"{server.url}/v1/jobs/{job['id']}").status_code == 404
    assert page.locator("*:focus").get_attribute("id") == "drop"
    assert page.evaluate("() => sessionStorage.getItem('whisperd.jobs')") == "[]"


def test_a_reload_shows_the_texts_again(page: Any) -> None:
    text = transcribed(page, CLIP.path).locator(".segment p").all_inner_texts()
    page.reload()
    row = row_of(page, CLIP.path.name)
    row.locator(".actions").wait_for(timeout=SOON_MS)
    assert row.locator(".segment p").all_inner_texts() == text
    assert row.locator("audio").is_hidden()
    assert row.locator(".time").first.is_disabled()
    with page.expect_file_chooser() as chooser:
        row.get_by_role("button", name="Choose the file to listen").click()
    chooser.value.set_files(str(CLIP.path))
    row.locator(".word").last.click()
    assert heard(row.locator("audio")) > 0


def test_the_queue_shows_each_recording_and_cancels_it(browser: Any, start_server: StartServer, tmp_path: Path) -> None:
    paths = [clip.path for clip in clips("en00")[:2]]
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=600), max_batch=1)
    with page_of(browser, server.url) as watched:
        page = watched.page
        page.set_input_files("#files", [str(path) for path in paths])
        for path in paths:
            page.locator("#queue li").filter(has_text=path.name).wait_for(timeout=SOON_MS)
        running = page.locator("#queue li").filter(has_text="Transcribing")
        waits = page.locator("#queue li").filter(has_text="Waiting at place 2")
        running.wait_for(timeout=SOON_MS)
        waits.wait_for(timeout=SOON_MS)
        name = waits.locator(".name").inner_text()
        waits.get_by_role("button").click()
        row_of(page, name).get_by_text("Cancelled").wait_for(timeout=SOON_MS)
        other = row_of(page, running.locator(".name").inner_text())
        other.get_by_role("button", name="Cancel").click()
        other.get_by_text("Cancelled").wait_for(timeout=SOON_MS)
        page.get_by_text("Nothing runs or waits.").wait_for(timeout=SOON_MS)
        assert httpx.get(f"{server.url}/v1/queue").json()["data"] == []
        assert not watched.faults
    server.stop()


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, locked: Server) -> None:
    with page_of(browser, locked.url) as watched:
        page = watched.page
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("This server wants a key.").wait_for(timeout=SOON_MS)
        dialog.get_by_label("Your key").fill("wrong")
        dialog.get_by_label("Your key").press("Enter")
        dialog.get_by_text("The server does not know this key.").wait_for(timeout=SOON_MS)
        dialog.get_by_label("Your key").fill(KEY)
        dialog.get_by_role("button", name="Use this key").click()
        dialog.wait_for(state="hidden", timeout=SOON_MS)
        transcribed(page, CLIP.path)
        page.get_by_text("Nothing runs or waits.").wait_for(timeout=SOON_MS)
        kept = "() => [sessionStorage.getItem('whisperd.key'), localStorage.getItem('whisperd.key')]"
        assert page.evaluate(kept) == [KEY, None]
        page.reload()
        row_of(page, CLIP.path.name).locator(".actions").wait_for(timeout=SOON_MS)
        page.get_by_role("button", name="Key", exact=True).click()
        dialog.get_by_label("Your key").fill(KEY)
        dialog.get_by_label("Remember it").check()
        dialog.get_by_role("button", name="Use this key").click()
        dialog.wait_for(state="hidden", timeout=SOON_MS)
        assert page.evaluate(kept) == [None, KEY]
        page.get_by_role("button", name="Key", exact=True).click()
        dialog.get_by_role("button", name="Forget it").click()
        dialog.get_by_text("This server wants a key.").wait_for(timeout=SOON_MS)
        assert page.evaluate(kept) == [None, None]
        assert not watched.faults


def test_who_gives_no_key_reads_why_nothing_happens(browser: Any, locked: Server) -> None:
    with page_of(browser, locked.url) as watched:
        page = watched.page
        sentence = httpx.get(f"{locked.url}/v1/models").json()["error"]["message"]
        page.get_by_role("dialog").wait_for(timeout=SOON_MS)
        page.keyboard.press("Escape")
        page.locator("#about", has_text=sentence).wait_for(timeout=SOON_MS)
        page.locator("#queue-note", has_text=sentence).wait_for(timeout=SOON_MS)
        page.set_input_files("#files", str(CLIP.path))
        page.get_by_role("dialog").wait_for(timeout=SOON_MS)
        page.keyboard.press("Escape")
        row_of(page, CLIP.path.name).locator(".error", has_text=sentence).wait_for(timeout=SOON_MS)
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("dialog").get_by_label("Your key").fill(KEY)
        page.keyboard.press("Enter")
        row_of(page, CLIP.path.name).locator(".actions").wait_for(timeout=SOON_MS)
        assert not watched.faults


def test_the_microphone_is_recorded(watched: Watched) -> None:
    page = watched.page
    page.context.grant_permissions(["microphone"])
    page.locator("#record").click()
    page.locator("#record", has_text="Stop (0:08)").wait_for(timeout=SOON_MS)
    page.get_by_role("button", name="Stop recording").click()
    row = page.locator("#rows > li").first
    row.locator(".actions").wait_for(timeout=SOON_MS)
    assert row.locator(".name").inner_text().startswith("Recording of ")
    heard_words = set(" ".join(row.locator(".segment p").all_inner_texts()).lower().split())
    spoken_words = set(CLIP.text.lower().split())
    assert len(heard_words & spoken_words) > len(spoken_words) / 2
    word = row.locator(".word").last
    word.click()
    assert heard(row.locator("audio")) >= float(word.get_attribute("data-start")) - 0.1
    assert row.locator("audio").evaluate("(audio) => Number.isFinite(audio.duration)")


def test_a_microphone_that_may_not_be_used_is_a_sentence(watched: Watched) -> None:
    page = watched.page
    page.context.clear_permissions()
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError')); }"
    )
    page.locator("#record").click()
    page.get_by_text("The browser does not let this page use the microphone").wait_for(timeout=SOON_MS)


def test_over_plain_http_the_page_says_why_it_cannot_record(browser: Any, server: Server) -> None:
    address = server.url.replace("127.0.0.1", "whisper.local")
    with page_of(browser, address) as watched:
        watched.page.locator("#record").click()
        watched.page.get_by_text("Browsers let a page record only over https, or at localhost").wait_for(
            timeout=SOON_MS
        )
        transcribed(watched.page, CLIP.path)
        assert not watched.faults


def violations(page: Any) -> list[str]:
    """What axe-core finds, in its words."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python brings axe-core")
    found = axe.Axe().run(page).response
    assert found["passes"]
    return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser: Any, locked: Server, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir")
    with page_of(browser, locked.url, color_scheme=scheme) as watched:
        page = watched.page
        page.get_by_role("dialog").wait_for(timeout=SOON_MS)
        assert not violations(page)
        assert page.get_by_role("dialog").is_visible()
        page.get_by_label("Your key").fill(KEY)
        page.keyboard.press("Enter")
        row = transcribed(page, CLIP.path)
        page.set_input_files("#files", str(tmp_path / "letter.txt"))
        row_of(page, "letter.txt").get_by_text("Failed").wait_for(timeout=SOON_MS)
        row.locator(".word").nth(2).click()
        row.locator(".word.now").wait_for(timeout=SOON_MS)
        assert not violations(page)


def test_axe_finds_what_is_wrong(page: Any) -> None:
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert any(each.startswith("button-name") for each in violations(page))


def test_a_narrow_screen_needs_no_sideways_scroll(browser: Any, server: Server, tmp_path: Path) -> None:
    path = tmp_path / f"{'a-long-name-without-a-space' * 4}.flac"
    path.write_bytes(CLIP.path.read_bytes())
    wider = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    with page_of(browser, server.url, viewport=NARROW) as watched:
        page = watched.page
        assert page.evaluate(wider) == 0
        transcribed(page, path)
        assert page.evaluate(wider) == 0
        page.get_by_role("button", name="Key", exact=True).click()
        assert page.evaluate(wider) == 0
        page.keyboard.press("Escape")
        page.evaluate("() => { document.body.style.width = '400px'; }")
        assert page.evaluate(wider) > 0, "too wide a page is noticed"


def test_light_and_dark_follow_the_system(page: Any) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) > 200
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) < 60


def test_who_wants_less_motion_gets_none(page: Any) -> None:
    moves = "() => getComputedStyle(document.getElementById('drop')).transitionDuration"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moves) != "0s"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moves) == "0s"


def test_all_of_the_page_is_reached_by_tab(page: Any) -> None:
    row = transcribed(page, CLIP.path)
    page.evaluate("() => document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
    wanted = {"skip", "key-button", "drop", "record", "model", "language", "prompt", "translate"}
    assert reached >= wanted | {"end", "time", "format", "copy", "download"}
    assert row.locator(".segment").count() > 0
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.locator("*:focus").get_attribute("id") == "recordings"
