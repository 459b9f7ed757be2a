"""``with_litellm.py BASE_URL FILE``: what LiteLLM's ``transcription`` returns, plain and asked for words."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import litellm

base, path = sys.argv[1], Path(sys.argv[2])


def transcribe(**options: object) -> dict[str, object]:
    with path.open("rb") as file:
        answer = litellm.transcription(
            model="openai/whisper-1", file=file, api_base=base, api_key="none", max_retries=0, **options
        )
    return answer.model_dump()


words = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
print(json.dumps({"plain": transcribe(), "words": transcribe(**words), "version": version("litellm")}))
