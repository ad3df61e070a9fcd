"""Where the page is served, and to whom; light to import, so that mistakes are found at once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from emostream.errors import ConfigError

DEFAULT_PORT = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class WebConfig:
    """Where the page is served, and to whom.

    Attributes:
        connect: Endpoint of the publisher.
        host: Address to listen on.
        port: 0 takes a free one.
        curve: Folder of the client's keys; None for a publisher without keys.
        token: What a visitor must show; None for none.
        certificate, key: PEM files for TLS; None for none.
        insecure: Listen beyond loopback without them.
        page: Whether the page is served, or metrics and health alone.
    """

    connect: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    curve: Path | None = None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    page: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: wanted 0 (any free one) to 65535.")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--tls-cert and --tls-key go together: name both files, or neither.")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise ConfigError(f"{file} is no file; wanted a certificate and its key in PEM.")
        if self.insecure or is_loopback(self.host):
            return
        if self.token is None or self.certificate is None:
            raise ConfigError(
                f"--host {self.host} can be reached from other hosts and would show them a face: pass --token with "
                "--tls-cert and --tls-key, or --insecure to serve without protection, or leave --host away."
            )

    @property
    def scheme(self) -> str:
        """`https` with TLS."""
        return "http" if self.certificate is None else "https"


def is_loopback(host: str) -> bool:
    """Whether only this host reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
