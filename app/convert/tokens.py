"""The tokenizer of a Hugging Face checkpoint as plain data: tokens by id, Whisper's marks, bytes of a token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from app.errors import InvalidRequest

#: Whisper's timestamps run from 0.00 to 30.00 s in steps of 20 ms.
TIMESTAMPS = 1501
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


@dataclass(frozen=True)
class Tokenizer:
    """``data`` is what tokenizer.json holds; ``ids`` every token's id, added tokens included."""

    data: Mapping[str, Any]
    ids: Mapping[str, int]

    @property
    def vocabulary_size(self) -> int:
        """Ids from 0 to the last timestamp: what lies behind is padding, which libraries would read as times."""
        return self.ids["<|notimestamps|>"] + 1 + TIMESTAMPS

    @property
    def end_of_text(self) -> int:
        """The first id that is no text."""
        return self.ids["<|endoftext|>"]

    @property
    def language_ids(self) -> list[int]:
        return sorted(number for token, number in self.ids.items() if _LANGUAGE.fullmatch(token))

    def tokens(self) -> list[str]:
        """Every token in the order of ids, ``vocabulary_size`` of them; timestamps that the file lacks are added."""
        found = {number: token for token, number in self.ids.items()}
        return [found[i] if i in found else self._missing(i) for i in range(self.vocabulary_size)]

    def _missing(self, number: int) -> str:
        first_timestamp = self.ids["<|notimestamps|>"] + 1
        if number >= first_timestamp:
            return f"<|{(number - first_timestamp) * 0.02:.2f}|>"
        # Multilingual Whisper's last text token is the empty string: CTranslate2 takes a model without it for an
        # English-only one.
        return f"<|unused{number}|>" if number > self.end_of_text else ""


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder``: tokenizer.json, or the older vocab.json, merges.txt and added_tokens.json.

    Raises ``InvalidRequest`` where there is none, or where it is not Whisper's.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            data = _from_old_files(folder)
        else:
            raise InvalidRequest(
                f"{folder.name} holds no tokenizer.json (nor vocab.json and merges.txt); "
                "copy it from the model that it was trained from."
            )
        ids = dict(data["model"]["vocab"]) | {token["content"]: token["id"] for token in data["added_tokens"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequest(f"The tokenizer in {folder.name} cannot be read.") from None
    for mark in ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"):
        if mark not in ids:
            raise InvalidRequest(f"The tokenizer in {folder.name} is not Whisper's: it has no {mark}.")
    return Tokenizer(data, ids)


def _from_old_files(folder: Path) -> dict[str, Any]:
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    merges = [line for line in (folder / "merges.txt").read_text("utf-8").splitlines() if line]
    added_file = folder / "added_tokens.json"
    added = json.loads(added_file.read_text("utf-8")) if added_file.is_file() else {}
    added |= {token: number for token, number in vocabulary.items() if token == "<|endoftext|>"}  # noqa: S105
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, **plain, "special": not _TIMESTAMP.fullmatch(token)}
            for token, number in sorted(added.items(), key=lambda item: item[1])
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line for i, line in enumerate(merges) if i or not line.startswith("#version")],
        },
    }


@cache
def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def token_bytes(token: str) -> bytes:
    """The bytes of text that a token stands for; an added token outside GPT-2's alphabet is its own UTF-8."""
    table = _byte_of()
    return bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()
