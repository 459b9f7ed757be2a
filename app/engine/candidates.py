"""Which of the operator's backends can do a model on this machine, and with what."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from app.backends import installed, not_installed
from app.backends.base import LoadOptions
from app.catalog import Catalog
from app.engine.succession import Candidate, Line
from app.errors import UnknownModel
from app.fitting import Fitting
from app.log import event
from app.model_names import canonical_name


class Candidates:
    """The backend of ``catalog``, which loads with ``load``, then ``fallbacks``; ``fitting`` fits their windows.

    ``device`` and ``precision`` are the first backend's own words. The others choose theirs, but for the device
    ``cpu``, which is a word of all.
    """

    def __init__(self, catalog: Catalog, load: LoadOptions, fallbacks: Sequence[str], fitting: Fitting) -> None:
        self._first, self._load, self._fitting = catalog, load, fitting
        # The public names are the first backend's, and so are the operator's own models.
        shared = (catalog.cache_dir, catalog.default_model, catalog.registered)
        self._others = [Catalog(name, *shared) for name in fallbacks]

    def line(self, model: str, path: str) -> Line:
        """Who may do the model of that public name ("" is the default), which lies in ``path`` for the first.

        A few small reads for each backend after the first.
        """
        return (
            Candidate(self._first.backend, path, self._load),
            *(self._candidate(each, model) for each in self._others),
        )

    def margin(self, candidate: Candidate) -> int | None:
        """Samples of silence behind the candidate's fitted windows; None where they stay whole."""
        return replace(self._fitting, backend=candidate.backend).margin(candidate.model_path)

    def announce(self, line: Line) -> None:
        """Log who could take over from the first."""
        for candidate in line[1:]:
            if candidate.missing:
                event("fallback cannot be used", logging.WARNING, backend=candidate.backend, reason=candidate.missing)
            else:
                event("fallback stands by", backend=candidate.backend, model=candidate.model_path)

    def _candidate(self, catalog: Catalog, model: str) -> Candidate:
        name, backend = model or catalog.default_model, catalog.backend
        if not installed(backend):
            return Candidate(backend, missing=not_installed(backend))
        try:
            path = str(catalog.resolve(name).path)
        except UnknownModel:
            known = "" if name in catalog.registered else canonical_name(name)
            remedy = f"`whisperd models pull {known} --backend {backend}` downloads it." if known else ""
            return Candidate(backend, missing=f"The model {name!r} is not here for {backend}. {remedy}".rstrip())
        device = self._load.device if self._load.device == "cpu" else "auto"
        return Candidate(backend, path, LoadOptions(device, threads=self._load.threads))
