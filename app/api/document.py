"""``python -m app.api.document``: the OpenAPI document of this version on standard output, as it is committed."""

from __future__ import annotations

import json
import sys

from app.api.app import create_app
from app.settings import load_settings

if __name__ == "__main__":
    # Nothing in the document depends on the settings; the fake backend exists everywhere.
    document = create_app(load_settings(backend="fake", model="micro")).openapi()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
