from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from app.languages import LANGUAGES, language_code, language_name


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("en", "en"), ("EN", "en"), ("en-US", "en"), ("zh_TW", "zh"), ("German", "de"), (" deutsch ", None),
        ("fil", "tl"),
        ("iw", "he"), ("jv", "jw"), ("nb", "no"), ("haw", "haw"), ("yue", "yue"), ("castilian", "es"),
    ],
)  # fmt: skip
def test_what_clients_send_becomes_whispers_code(sent: str, code: str | None) -> None:
    if code is None:
        with pytest.raises(InvalidRequest):
            language_code(sent)
    else:
        assert language_code(sent) == code


@pytest.mark.parametrize("sent", ["", " ", "auto", "AUTO", None])
def test_nothing_and_auto_mean_detection(sent: str | None) -> None:
    assert language_code(sent) is None


def test_an_unknown_language_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidRequest, match="'klingon'") as caught:
        language_code("Klingon")
    assert caught.value.param == "language"


def test_every_code_has_a_lower_case_english_name() -> None:
    assert len(LANGUAGES) == 100
    assert all(language_code(name) == code and name == name.lower() for code, name in LANGUAGES.items())
    assert language_name("de") == "german"
