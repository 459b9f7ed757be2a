"""The shapes that answers must have, as JSON schemas written from OpenAI's specification, not from our models or an
SDK's: the SDKs are lenient, so that a wrong type passes them unseen.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
TEXT: Schema = {"type": "string"}


def exactly(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


DURATION_USAGE = exactly({"type": {"const": "duration"}, "seconds": NUMBER})
TOKEN_USAGE = exactly(
    {
        "type": {"const": "tokens"},
        "input_tokens": INTEGER,
        "output_tokens": INTEGER,
        "total_tokens": INTEGER,
    },
    {"input_token_details": exactly({}, {"text_tokens": INTEGER, "audio_tokens": INTEGER})},
)
LOGPROB = exactly(
    {
        "token": TEXT,
        "logprob": {"type": "number", "maximum": 0},
        "bytes": many({"type": "integer", "minimum": 0, "maximum": 255}),
    }
)
JSON = exactly({"text": TEXT}, {"usage": DURATION_USAGE})
JSON_WITH_LOGPROBS = exactly({"text": TEXT, "logprobs": many(LOGPROB)}, {"usage": DURATION_USAGE})

SEGMENT = exactly(
    {
        "id": INTEGER,
        "seek": INTEGER,
        "start": NUMBER,
        "end": NUMBER,
        "text": TEXT,
        "tokens": many(INTEGER),
        "temperature": NUMBER,
        "avg_logprob": NUMBER,
        "compression_ratio": NUMBER,
        "no_speech_prob": {"type": "number", "minimum": 0, "maximum": 1},
    }
)
WORD = exactly({"word": {"type": "string", "pattern": r"^\S"}, "start": NUMBER, "end": NUMBER})


def verbose(task: str = "transcribe", **lists: Schema) -> Schema:
    """verbose_json with exactly the lists (``words=WORD``, ``segments=SEGMENT``) that were asked for."""
    required = {
        "task": {"const": task},
        # The English name: at least three letters, where a code has two.
        "language": {"type": "string", "pattern": "^[a-z ]{3,}$"},
        "duration": NUMBER,
        "text": TEXT,
        **{name: many(items) for name, items in lists.items()},
    }
    return exactly(required, {"usage": DURATION_USAGE, "language_code": {"type": "string", "pattern": "^[a-z]{2,3}$"}})


DELTA = exactly({"type": {"const": "transcript.text.delta"}, "delta": TEXT}, {"logprobs": many(LOGPROB)})
DONE = exactly(
    {"type": {"const": "transcript.text.done"}, "text": TEXT}, {"logprobs": many(LOGPROB), "usage": TOKEN_USAGE}
)
NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
ERROR = exactly({"error": exactly({"message": TEXT, "type": TEXT, "param": NULLABLE_TEXT, "code": NULLABLE_TEXT})})
MODEL = exactly(
    {"id": TEXT, "object": {"const": "model"}, "created": INTEGER, "owned_by": TEXT}, {"shutdown_date": NULLABLE_TEXT}
)
MODELS = exactly({"object": {"const": "list"}, "data": many(MODEL)})
