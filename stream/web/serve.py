"""The page's server in a thread of its own, beside whatever else the process does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import quote

from emostream.errors import ConfigError, EmostreamError
from stream.sockets.endpoints import BindError
from stream.transport.protocol import IngestAddress
from stream.web.config import WebConfig


class WebExtraMissing(EmostreamError):
    """What the page's server needs is not installed."""


@contextlib.contextmanager
def serving(config: WebConfig, capture: IngestAddress | None = None) -> Iterator[str]:
    """Serve until left; yields the link to open.

    Args:
        config: Where, and to whom.
        capture: Where browsers' cameras and microphones go; None takes none.

    Raises:
        WebExtraMissing: Starlette, uvicorn or prometheus-client is missing.
        BindError: The address is taken.
        ConfigError: The certificate or its key cannot be used.
    """
    try:
        import uvicorn

        from stream.web.server import MAX_REQUEST_BYTES, application
    except ImportError as error:
        raise WebExtraMissing(
            f"the page needs {error.name}, which is not installed: pip install 'emostream[web]'"
        ) from error
    with _listen(config) as listening:
        settings = uvicorn.Config(
            application(config, capture),
            log_level="warning",
            access_log=False,  # addresses hold tokens
            ws="websockets-sansio",
            ws_max_size=MAX_REQUEST_BYTES,
            ws_per_message_deflate=False,
            ssl_certfile=config.certificate,
            ssl_keyfile=config.key,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        try:
            settings.load()
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"--tls-cert {config.certificate}, --tls-key: {error}") from error
        server = uvicorn.Server(settings)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listening])), name="web", daemon=True
        )
        thread.start()
        try:
            yield _link(config, listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def _listen(config: WebConfig) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise BindError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror}): choose another --port"
        ) from error
    return listening


def _link(config: WebConfig, port: int) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    token = "" if config.token is None else f"?token={quote(config.token, safe='')}"
    return f"{config.scheme}://{host}:{port}/{token}"
