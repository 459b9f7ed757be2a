"""``whisperd transcribe``: recordings into text, through the running server if there is one, else without."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from app.commands.flags import add_settings, settings_of
from app.errors import BackendUnavailable, Unauthorized, WhisperdError, error_from_code
from app.formats import FORMATS, GRANULARITIES
from app.settings import Settings
from app.transcriber import Asked, Transcriber

#: File endings of the formats that are not their own.
_ENDINGS = {"text": "txt", "verbose_json": "json"}
#: A server on this machine answers /health at once.
_PROBE_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio or video files")
    parser.add_argument("--format", default="text", choices=list(FORMATS), help="what to write (default text)")
    parser.add_argument(
        "--output", "-o", metavar="PATH", help="file to write, or folder for several (default: standard output)"
    )
    parser.add_argument("--language", default="", help="spoken language, such as en or German (default: detected)")
    parser.add_argument("--prompt", default="", help="names and words to expect, in a sentence")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy; up to 1 samples (default 0)")
    parser.add_argument("--words", action="store_true", help="word times too (with verbose_json)")
    parser.add_argument("--local", action="store_true", help="load the model here even if a server runs")
    add_settings(
        parser, {"host", "port", "backend", "model", "device", "precision", "threads", "beam_size", "tls_cert"}
    )


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    transcriber = Transcriber(settings)
    asked = Asked(
        language=options.language, prompt=options.prompt, temperature=options.temperature, words=options.words
    )
    transcriber.options(**asked)  # what cannot be asked should fail before anything is loaded
    failed = 0
    with contextlib.ExitStack() as stack:
        transcribe = _through_server(settings, options) if not options.local and _server_runs(settings) else None
        if transcribe is None:
            transcribe = _in_process(stack.enter_context(transcriber), asked, options)
        for name in options.files:
            try:
                _write(transcribe(Path(name)), Path(name), options)
            except (WhisperdError, OSError) as error:
                failed += 1
                print(f"whisperd: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _in_process(transcriber: Transcriber, asked: Asked, options: argparse.Namespace) -> Callable[[Path], str]:
    def transcribe(path: Path) -> str:
        with _bar(path, unit="s") as bar:

            def show(done: float, whole: float) -> None:
                bar.total = round(whole, 1)
                bar.update(round(done - bar.n, 1))

            transcript = transcriber.transcribe(path, on_progress=show, **asked)
        return FORMATS[options.format].render(transcript, _granularities(options))

    return transcribe


def _through_server(settings: Settings, options: argparse.Namespace) -> Callable[[Path], str]:
    fields = {
        "model": settings.model,
        "language": options.language,
        "prompt": options.prompt,
        "temperature": str(options.temperature),
        "response_format": options.format,
        "timestamp_granularities[]": sorted(_granularities(options)),
    }

    def transcribe(path: Path) -> str:
        with path.open("rb") as file, _bar(path, unit="B", unit_scale=True, total=path.stat().st_size) as bar:

            def sent(size: int) -> None:
                bar.update(size)
                if bar.n >= bar.total and not bar.disable:
                    bar.set_description(f"{path.name}: sent, transcribing")

            response = _post(settings, fields, CallbackIOWrapper(sent, file, "read"))
        if response.is_error:
            if response.status_code == Unauthorized.status:
                raise Unauthorized("The server wants a key: set WHISPERD_API_KEY to one that `whisperd keys add` made.")
            error = response.json()["error"]
            raise error_from_code(error["code"] or "", error["message"])
        if warning := response.headers.get("x-whisperd-warning"):
            print(f"{path}: {warning}", file=sys.stderr)
        return response.text

    return transcribe


def _post(settings: Settings, fields: dict[str, object], file: CallbackIOWrapper) -> httpx.Response:
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    try:
        return httpx.post(
            f"{settings.url}/v1/audio/transcriptions",
            data=fields,
            files={"file": ("audio", file)},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=None,  # nosec B113  # noqa: S113 - long recordings take long, and the server bounds its own steps
            verify=settings.trust,
            trust_env=False,  # no proxy: sound and key go to the server alone
        )
    except httpx.TransportError as error:
        raise BackendUnavailable(f"The server went away before it answered ({type(error).__name__}).") from None


def _server_runs(settings: Settings) -> bool:
    """Whether a whisperd (and nothing else) answers where the settings say."""
    try:
        response = httpx.get(f"{settings.url}/health", timeout=_PROBE_S, verify=settings.trust, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.is_success and response.headers.get("server", "").startswith("whisperd/")


def _granularities(options: argparse.Namespace) -> frozenset[str]:
    return GRANULARITIES if options.words else frozenset({"segment"})


@contextlib.contextmanager
def _bar(path: Path, **form: object) -> Iterator[tqdm]:
    """A progress bar on a terminal, nothing elsewhere; gone once the work is done."""
    with tqdm(desc=path.name, leave=False, disable=not sys.stderr.isatty(), **form) as bar:
        yield bar


def _write(text: str, source: Path, options: argparse.Namespace) -> None:
    if options.output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
        return
    target = Path(options.output)
    if target.is_dir() or options.output.endswith("/") or len(options.files) > 1:
        target.mkdir(parents=True, exist_ok=True)
        target /= f"{source.stem}.{_ENDINGS.get(options.format, options.format)}"
    target.write_text(text, encoding="utf-8")
    print(target, file=sys.stderr)
