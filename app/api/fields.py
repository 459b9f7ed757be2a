"""How clients spell a form's fields: lists, objects and what they send for nothing."""

from __future__ import annotations

import json
from typing import Any

from app.api.form import Form
from app.errors import InvalidRequest

#: JavaScript's, JSON's and Python's nothing, turned into text on its way into a form.
_NOTHING = frozenset({"", "null", "undefined", "None"})


def scalar(form: Form, name: str) -> str | None:
    """The field's last value, or None where there is none worth the name."""
    value = form.last(name)
    return None if value in _NOTHING else value


def listed(form: Form, name: str) -> list[str]:
    """The field's values however they came: repeated, with commas between them, or as a JSON list."""
    found: list[str] = []
    for value in form.fields.get(name, []):
        found += _listed(value.strip())
    return [value for value in found if value not in _NOTHING]


def _listed(value: str) -> list[str]:
    if value.startswith("["):
        try:
            return [each.strip() for each in json.loads(value) if isinstance(each, str)]
        except ValueError:
            pass  # a word may begin with a bracket
    return [each.strip() for each in value.split(",")]


def structured(form: Form, name: str) -> dict[str, Any] | str | None:
    """An object from ``name[key]`` fields or from one field with JSON; a field with another text is that text.

    Raises ``InvalidRequest`` (param ``name``) for JSON that is none.
    """
    prefix = f"{name}["
    keys = [key for key in form.fields if key.startswith(prefix) and key.endswith("]")]
    if keys:
        return {key[len(prefix) : -1]: form.last(key) for key in keys}
    value = scalar(form, name)
    if value is None or not value.startswith("{"):
        return value
    try:
        found: dict[str, Any] = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The field '{name}' is not well-formed JSON.", param=name) from error
    return found
