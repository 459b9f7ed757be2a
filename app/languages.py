"""Whisper's languages, and what people call them.

The codes are those of OpenAI's ``whisper/tokenizer.py``: ISO 639-1 where there is one, with Whisper's own ``jw`` for
Javanese, ``tl`` for Tagalog, ``iw`` written ``he``, and three letters for Hawaiian and Cantonese.
"""

from __future__ import annotations

from app.errors import InvalidRequest

#: Code -> English name in lower case, as OpenAI's ``verbose_json`` writes it.
LANGUAGES: dict[str, str] = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}

#: Other codes and names that clients send.
_ALIASES: dict[str, str] = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
    "fil": "tl",
    "filipino": "tl",
    "iw": "he",
    "in": "id",
    "ji": "yi",
    "jv": "jw",
    "nb": "no",
    "mo": "ro",
    "cmn": "zh",
}
_BY_NAME = {name: code for code, name in LANGUAGES.items()}


def language_code(value: str | None) -> str | None:
    """The code for what a client sent ("de", "de-AT", "German", "fil"); None for nothing, "" and "auto".

    Raises ``InvalidRequest`` (param ``language``) for a value that names no language of Whisper's.
    """
    name = (value or "").strip().lower()
    if name in ("", "auto"):
        return None
    for candidate in (name, name.replace("_", "-").split("-")[0]):
        code = _ALIASES.get(candidate, _BY_NAME.get(candidate, candidate))
        if code in LANGUAGES:
            return code
    shown = name[:40]
    raise InvalidRequest(
        f"The language {shown!r} is not known to Whisper; send a code such as 'en' or 'de', or leave it out.",
        param="language",
    )


def language_name(code: str) -> str:
    """The English name in lower case; the code itself where there is none."""
    return LANGUAGES.get(code, code)
