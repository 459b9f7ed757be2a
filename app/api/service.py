"""What the routes work with: settings, engine and catalog of this server, kept on the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from app.catalog import Catalog
from app.engine.engine import Engine
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    engine: Engine
    catalog: Catalog


def service_of(request: Request) -> Service:
    """The service behind the app that got ``request``."""
    return cast("Service", request.app.state.service)
