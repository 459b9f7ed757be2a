"""What people write who need OpenAI's endpoint: FastAPI around faster-whisper. A side of ``benchmarks.table``.

    python -m benchmarks.plain_server --model DIR --port 8000

FastAPI runs the handler in its pool of threads, and CTranslate2 lets the threads wait for one another.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Form, UploadFile
from faster_whisper import WhisperModel


def application(model: WhisperModel, beam_size: int) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/audio/transcriptions")
    def transcribe(
        file: Annotated[UploadFile, File()],
        language: Annotated[str | None, Form()] = None,
        prompt: Annotated[str | None, Form()] = None,
    ) -> dict[str, str]:
        with tempfile.NamedTemporaryFile(suffix=Path(file.filename or "").suffix) as copy:
            shutil.copyfileobj(file.file, copy)
            copy.flush()
            segments, _ = model.transcribe(copy.name, beam_size=beam_size, language=language, initial_prompt=prompt)
            return {"text": "".join(segment.text for segment in segments).strip()}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder in CTranslate2's format")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--beam-size", type=int, default=1)
    options = parser.parse_args()
    model = WhisperModel(options.model, device="cpu", compute_type="int8", cpu_threads=os.cpu_count() or 0)
    uvicorn.run(application(model, options.beam_size), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
