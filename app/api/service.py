"""What the routes work with: settings, engine and catalog of this server, kept on the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from app.api.allowance import Allowances
from app.catalog import Catalog
from app.engine.durable import DurableJobs
from app.engine.engine import Engine
from app.engine.pulls import Pulls
from app.keys import Keyring
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    keyring: Keyring
    allowances: Allowances
    engine: Engine
    catalog: Catalog
    pulls: Pulls
    #: None where another server keeps its jobs in this one's folder, or the folder cannot be used.
    jobs: DurableJobs | None


def service_of(request: Request) -> Service:
    """The service behind the app that got ``request``."""
    return cast("Service", request.app.state.service)
