"""One frozen Settings: the only reader of the environment and of the configuration file.

Precedence: flags, then ``WHISPERD_*`` variables, then the TOML file, then the defaults. A bad value stops the start
with a sentence (``load_settings`` raises ``SettingsError``).
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from app import defaults, hardware, keys
from app.backends import BACKENDS, installed
from app.keys import Key, Keyring, digest_of

#: WHIS on a phone's keys.
DEFAULT_PORT = 9447


#: Addresses to listen on -> those to ask: all of them are none to ask, and a server listens on the name's IPv4 alone.
_TO_ASK = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104

#: Variables that say where things are.
_PLACES = (
    "WHISPERD_CONFIG",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
#: What no variable's name begins with.
_NO_VARIABLE = "="


class SettingsError(Exception):
    """A sentence about the setting that cannot be used."""


def config_file() -> Path:
    """Where the configuration file is looked for: ``WHISPERD_CONFIG``, else the user's configuration folder."""
    named = os.environ.get("WHISPERD_CONFIG")
    return Path(named) if named else platformdirs.user_config_path("whisperd", appauthor=False) / "config.toml"


def origin(host: str, port: int, *, tls: bool = False) -> str:
    """``http://host:port``, or ``https``, with the brackets that an IPv6 address wants."""
    bracketed = f"[{host}]" if ":" in host else host
    return f"http{'s' * tls}://{bracketed}:{port}"


def exposed(host: str) -> bool:
    """Whether others than this machine reach a server that listens on ``host``."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def environment_to_keep() -> dict[str, str]:
    """What a service must be given of this environment: where files lie, and the home of the mirror. No key."""
    return {name: os.environ[name] for name in _PLACES if os.environ.get(name)}


def settings_in_environment() -> list[str]:
    """The variables of this environment that are settings, which a service does not see."""
    return sorted(
        name for name, value in os.environ.items() if value and name.startswith("WHISPERD_") and name not in _PLACES
    )


def wants_colour() -> bool:
    """Whether a terminal may get colours: by NO_COLOR (no-color.org)."""
    return not os.environ.get("NO_COLOR")


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps downloads, by its own rules (``HF_HUB_CACHE``, ``HF_HOME``, XDG)."""
    for name, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")):
        if environ.get(name):
            return Path(environ[name]).expanduser() / below
    return Path("~/.cache/huggingface/hub").expanduser()


class Settings(BaseSettings):
    """Everything that can be set. Each description is also the flag's help; keys have no flag on purpose."""

    model_config = SettingsConfigDict(env_prefix="WHISPERD_", frozen=True, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    backend: str = Field(
        default_factory=lambda: _choose().backend, description=f"library that runs the model: {', '.join(BACKENDS)}"
    )
    fallback: str = Field(
        "",
        description="backends that take over, in order, with commas between them, where `backend` cannot load its "
        "model or keeps dying",
    )
    fallback_rest_s: float = Field(
        600,
        gt=0,
        description="seconds after which a backend that another took over from is tried again, at a moment without "
        "work; they double up to six times as many",
    )
    model: str = Field("", description="model to keep warm: a name of `whisperd models list`, a hub id or a folder")
    device: str = Field(
        "auto",
        description="device to run on: auto, cpu, cuda, metal or mps, as far as the backend has it",
    )
    precision: str = Field(
        "default", description="number format of the weights, in the backend's own words (int8, float16)"
    )
    threads: int = Field(0, ge=0, description="CPU threads for the model; 0 lets the library choose")
    beam_size: int = Field(1, ge=1, le=10, description="beams of the search; 1 is greedy (MLX has no other)")
    api_key: SecretStr | None = Field(None, description="key that clients must send; set WHISPERD_API_KEY")
    admin_key: SecretStr | None = Field(
        None, description="key that may also download and remove models over HTTP; set WHISPERD_ADMIN_KEY"
    )
    keys_file: Path = Field(
        default_factory=lambda: config_file().with_name("keys.json"),
        description="file of the keys by name, which `whisperd keys` keeps",
    )
    no_auth: bool = Field(False, description="listen beyond this machine without a key")
    allowed_hosts: str = Field(
        "",
        description="names that clients may call this server by, with commas between them (*.example.org for all "
        "below, * for any), besides addresses, localhost, names without a dot, and .local",
    )
    cors_origins: str = Field("", description="web origins that browsers may call from, with commas between them")
    tls_cert: Path | None = Field(None, description="certificate chain (PEM) to serve HTTPS with")
    tls_key: Path | None = Field(None, description="private key (PEM) of the certificate, if it is not in its file")
    max_upload_mb: int = Field(1024, ge=1, description="largest upload in MiB")
    max_audio_s: int = Field(4 * 3600, ge=1, description="longest recording in seconds")
    queue_jobs: int = Field(64, ge=1, description="requests held at once; more are answered 429")
    queue_audio_s: int = Field(24 * 3600, ge=1, description="seconds of audio queued at once; more are answered 429")
    spool_mb: int = Field(8192, ge=1, description="MiB of uploads held at once; more are answered 429")
    retry_keep_s: float = Field(
        120,
        ge=0,
        description="seconds for which a result, or work that its client left, waits for the same upload",
    )
    keep_alive: float = Field(-1, ge=-1, description="idle seconds after which the model is unloaded; -1 is never")
    keep_warm_s: float = Field(
        0, ge=0, description="idle seconds after which the model is used once, so that the system keeps it at hand"
    )
    job_timeout_s: float = Field(0, ge=0, description="seconds that a whole job may take; 0 is for ever")
    job_keep_s: int = Field(7 * 86400, ge=0, description="seconds for which the result of a job on disk is kept")
    job_results_mb: int = Field(512, ge=0, description="MiB that the results of jobs on disk may take")
    max_batch: int = Field(8, ge=1, le=64, description="most windows of a recording in one pass")
    encoder_window: Literal["auto", "fit", "full"] = Field(
        "auto",
        description="what the encoder sees of a short window: its own length (fit), 30 s as in training (full), or "
        "fit for models that were measured to be no worse with it (auto; see `whisperd tune`)",
    )
    fit_margin_s: float = Field(3, ge=0.5, le=25, description="seconds of silence behind a fitted window")
    load_timeout_s: float = Field(600, gt=0, description="seconds that loading the model may take")
    step_timeout_s: float = Field(
        60,
        gt=0,
        description="seconds that a pass may take beyond thirty times the usual; then its worker is replaced",
    )
    max_connections: int = Field(
        1024, ge=1, description="connections held at once; where there are more, those without a request are closed"
    )
    drain_s: float = Field(5, ge=0, description="seconds that running requests get at shutdown")
    bonjour: bool = Field(True, description="say on the local network that the server is there, where it listens to it")
    wyoming_port: int | None = Field(
        None, ge=0, le=65535, description="port for Home Assistant's protocol Wyoming, usually 10300; off without it"
    )
    wyoming_host: str = Field(
        "127.0.0.1",
        description="address to listen on for Wyoming; it knows no keys, so beyond this machine everybody on the "
        "network can transcribe",
    )
    pull: bool = Field(False, description="download the model first if it is not on this machine")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text or json")
    log_file: Path | None = Field(
        None, description="file for the log, instead of standard error; at 10 MB it is put aside as FILE.1"
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("whisperd", appauthor=False),
        description="folder for converted models",
    )
    hub_dir: Path = Field(
        default_factory=lambda: hub_cache(os.environ),
        description="folder of downloaded models, shared with other programs",
    )
    state_dir: Path = Field(
        default_factory=lambda: platformdirs.user_state_path("whisperd", appauthor=False),
        description="folder for uploads in work and jobs on disk",
    )
    models: dict[str, Path] = Field(
        default_factory=dict, description="own models: name -> folder (configuration file only)"
    )

    @field_validator("cache_dir", "hub_dir", "keys_file", "log_file", "state_dir", "tls_cert", "tls_key")
    @classmethod
    def _whole(cls, value: Path | None) -> Path | None:
        """Children work in folders of their own, where a relative path leads elsewhere."""
        return value and value.expanduser().absolute()

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value not in BACKENDS:
            raise ValueError(f"there is no backend {value!r}; choose one of {', '.join(BACKENDS)}")
        return value

    @field_validator("fallback")
    @classmethod
    def _known_fallback(cls, value: str) -> str:
        chosen = names(value)
        unknown = next((name for name in chosen if name not in BACKENDS), None)
        if unknown is not None:
            raise ValueError(f"there is no backend {unknown!r}; choose from {', '.join(BACKENDS)}")
        twice = [name for name in chosen if chosen.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is there twice; name each backend once")
        return value

    @field_validator("api_key", "admin_key")
    @classmethod
    def _usable_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 8:
            raise ValueError("a key shorter than 8 characters is no protection")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @property
    def url(self) -> str:
        """Where a program on this machine reaches a server that listens by these settings."""
        return origin(_TO_ASK.get(self.host, self.host), self.port, tls=self.tls_cert is not None)

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """What a program on this machine trusts at ``url``: the very certificate, whatever name it is for."""
        if self.tls_cert is None:
            return True
        context = ssl.create_default_context(cafile=self.tls_cert)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    @property
    def keyring(self) -> Keyring:
        """The keys that open the server. Raises ``InvalidRequest`` where their file cannot be used."""
        given = ((keys.DEFAULT, self.api_key, False), (keys.ADMIN, self.admin_key, True))
        return Keyring(
            self.keys_file,
            [
                Key(name, digest_of(secret.get_secret_value().encode()), admin)
                for name, secret, admin in given
                if secret is not None
            ],
        )

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The names in ``fallback``; ``backend``, which may have been picked from them, is none."""
        return tuple(name for name in names(self.fallback) if name != self.backend)

    @property
    def default_model(self) -> str:
        """The model of requests that name none: ``model``, else what suits backend and machine."""
        return self.choice.model

    @property
    def choice(self) -> defaults.Choice:
        """Backend and model, and why these."""
        return _choose(self.backend if "backend" in self.model_fields_set else "", self.model)


def _choose(backend: str = "", model: str = "") -> defaults.Choice:
    return defaults.choose(hardware.detect(), [name for name in BACKENDS if installed(name)], backend, model)


def names(value: str) -> tuple[str, ...]:
    """The names between the commas of a setting that lists some."""
    return tuple(filter(None, map(str.strip, value.split(","))))


def state_dir(given: str | None, *, alone: bool = False) -> Path:
    """The state folder by the flag and the environment (not if ``alone``), for when no settings can be had."""
    named = given or (None if alone else os.environ.get("WHISPERD_STATE_DIR"))
    return Path(named or platformdirs.user_state_path("whisperd", appauthor=False))


def load_settings(*, alone: bool = False, **flags: Any) -> Settings:
    """Settings from flags (None means not given), environment (not if ``alone``) and file. Raises ``SettingsError``
    with a sentence.
    """
    if config_file().is_dir():
        raise SettingsError(
            f"The configuration file {config_file()} is a folder; WHISPERD_CONFIG names the file itself."
        )
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(_env_prefix=_NO_VARIABLE, **given) if alone else Settings(**given)
    except ValidationError as error:
        raise SettingsError(" ".join(_sentence(dict(problem)) for problem in error.errors())) from None
    except (ValueError, OSError) as error:  # a file that is no TOML or not ours to read, a value that is no JSON
        raise SettingsError(f"The configuration cannot be read: {error}.") from None


def _sentence(problem: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"There is no setting {name!r} (in {config_file()})."
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"The setting {name!r} cannot be used: {message}."
