"""What must be so before a server can start, and is said in a sentence where it is not."""

from __future__ import annotations

import ssl
import tempfile

from app.catalog import Catalog
from app.settings import Settings, SettingsError, exposed


def check_access(settings: Settings) -> None:
    """Refuse to let everybody in, unless told so in so many words, and a certificate that would only fail at the first
    connection. Raises ``SettingsError``.
    """
    if exposed(settings.host) and not settings.no_auth and not settings.keyring.keys:
        raise SettingsError(
            f"Listening on {settings.host} lets others on the network in: make a key that they must send with "
            "`whisperd keys add NAME` (or set WHISPERD_API_KEY), or say --no-auth to let everybody in."
        )
    if settings.wyoming_port is None and exposed(settings.wyoming_host):
        raise SettingsError("--wyoming-host is given without --wyoming-port: say which port, usually 10300.")
    _check_tls(settings)


def check_folders(settings: Settings, catalog: Catalog) -> None:
    """Refuse to start without weights, or where uploads cannot be kept. Raises ``UnknownModel``, ``SettingsError``."""
    catalog.resolve("")
    folder = settings.state_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"Uploads cannot be kept in {folder} ({error.strerror}); choose another folder with --state-dir."
        ) from None


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise SettingsError("--tls-key is given without --tls-cert: the certificate is missing.")
        return

    def no_password() -> str:
        raise SettingsError(
            f"The key of {settings.tls_cert} has a password: give one without (openssl pkey removes it)."
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, no_password)
    except OSError as error:  # of ssl too, whose sentences name neither file
        reason = error.strerror if not isinstance(error, ssl.SSLError) else error.reason or "no PEM"
        where = f"{settings.tls_cert}" + (f" and {settings.tls_key}" if settings.tls_key else "")
        raise SettingsError(f"HTTPS cannot be served with {where} ({reason}).") from None
