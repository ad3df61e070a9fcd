"""CURVE keys: making them, loading them, and admitting only the clients on an allow-list.

A key directory holds the server's pair, the pair of each client made here, and the allow-list:

    server.key  server.key_secret  client.key  client.key_secret  authorized_clients/client.key

A subscriber on another host needs `server.key`, `client.key` and `client.key_secret` only. The
files are ZeroMQ certificates, as czmq and `zmq.auth` read them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from emostream.errors import EmostreamError

ALLOW_LIST = "authorized_clients"
_ZAP_DOMAIN = "emostream"
_log = logging.getLogger(__name__)


class KeyFileError(EmostreamError):
    """A CURVE key file is missing, malformed, readable by others, or would be overwritten."""


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a listening socket needs; keys are Z85 text of 40 bytes."""

    public: bytes
    secret: bytes = field(repr=False)
    allow_list: Path
    """Directory of the public keys (`*.key`) that may connect; read again at every connection."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a connecting socket needs; keys are Z85 text of 40 bytes."""

    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)


def keygen(directory: str | os.PathLike[str], client: str = "client") -> list[Path]:
    """Write a client's key pair, admit it, and write the server's pair where there is none.

    Nothing is ever overwritten. Secret files get mode 0600, a directory made here 0700.

    Returns:
        The files written.

    Raises:
        KeyFileError: the client has keys already, or the directory cannot be written.
    """
    directory = Path(directory)
    if client == "server" or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", client):
        raise KeyFileError(
            f"keygen: a client's name must match [A-Za-z0-9_-]{{1,32}} and not be server; "
            f"got {client!r}"
        )
    allow_list = directory / ALLOW_LIST
    client_files = [directory / f"{client}.key", directory / f"{client}.key_secret"]
    server_files = [directory / "server.key", directory / "server.key_secret"]
    taken = [path for path in [*client_files, allow_list / f"{client}.key"] if path.exists()]
    if len([path for path in server_files if path.exists()]) == 1:
        taken += [path for path in server_files if path.exists()]
    if taken:
        raise KeyFileError(
            f"keygen: {', '.join(map(str, taken))} exists already and is not overwritten; "
            "delete it, or choose another directory or client name"
        )
    try:
        for folder in (directory, allow_list):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [] if server_files[0].exists() else _write_pair(*server_files)
        written += _write_pair(*client_files)
        admitted = allow_list / f"{client}.key"
        _write_new(admitted, client_files[0].read_bytes(), 0o644)
    except OSError as error:
        raise KeyFileError(f"keygen: cannot write {error.filename}: {error.strerror}") from error
    return [*written, admitted]


def load_server_keys(directory: str | os.PathLike[str]) -> ServerKeys:
    """Keys for listening sockets from a directory written by `keygen`.

    Raises:
        KeyFileError: a file is missing, malformed or open to others, or no client is admitted.
    """
    directory = Path(directory)
    public, secret = _load_pair(directory / "server.key_secret")
    allow_list = directory / ALLOW_LIST
    if not _authorized(allow_list):
        raise KeyFileError(
            f"{allow_list} holds no public key (*.key), so that nobody could connect: "
            "copy the clients' .key files there"
        )
    return ServerKeys(public, secret, allow_list)


def load_client_keys(directory: str | os.PathLike[str], client: str = "client") -> ClientKeys:
    """Keys for connecting sockets from a directory with `server.key` and the client's pair.

    Raises:
        KeyFileError: a file is missing, malformed or open to others.
    """
    directory = Path(directory)
    server_public, _ = _load(directory / "server.key")
    public, secret = _load_pair(directory / f"{client}.key_secret")
    return ClientKeys(server_public, public, secret)


def configure_server(socket: zmq.Socket[bytes], keys: ServerKeys) -> None:
    """Make `socket` a CURVE server; call before `bind`, within `authenticator` of its context.

    Without a running authenticator every connection is refused, never admitted unchecked.
    """
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret
    socket.curve_server = True
    socket.zap_domain = _ZAP_DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def configure_client(socket: zmq.Socket[Any], keys: ClientKeys) -> None:
    """Make `socket` a CURVE client; call before `connect`."""
    socket.curve_serverkey = keys.server_public
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret


@contextmanager
def authenticator(context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys) -> Iterator[None]:
    """Admit the clients of the allow-list on the CURVE servers of `context` while it is open.

    A context takes one authenticator (ZeroMQ's ZAP endpoint). The allow-list is read again at every
    connection, so that clients are added and removed without a restart; a client that is connected
    stays so.
    """
    thread = ThreadAuthenticator(context)
    thread.configure_curve_callback(_ZAP_DOMAIN, _AllowList(keys.allow_list))
    thread.start()
    try:
        yield
    finally:
        thread.stop()


class _AllowList:
    """The credentials provider of `zmq.auth`: is this client's key in the directory?"""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def callback(self, domain: str, key: bytes) -> bool:
        admitted = key in _authorized(self._directory)
        if not admitted:
            _log.warning("refused a client with key %s: not in %s", key.decode(), self._directory)
        return admitted


def _authorized(directory: Path) -> set[bytes]:
    keys = set()
    for path in directory.glob("*.key"):
        try:
            keys.add(_load(path)[0])
        except KeyFileError as error:
            # One bad file must neither admit its owner nor lock out the others.
            _log.warning("ignored in the allow-list: %s", error)
    return keys


def _load_pair(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise KeyFileError(f"{path} holds no secret key; `emostream keygen` makes a new pair")
    if zmq.curve_public(secret) != public:
        raise KeyFileError(f"{path}: the public and the secret key do not belong together")
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        raise KeyFileError(f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}")
    return public, secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
        for key in (public, secret):
            if key is not None and len(z85.decode(key)) != 32:
                raise ValueError("a key must be 40 characters of Z85")
    except OSError as error:
        remedy = "make keys with `emostream keygen DIR`" if not path.exists() else str(error)
        raise KeyFileError(f"cannot read the CURVE key {path}: {remedy}") from error
    except (ValueError, KeyError) as error:
        raise KeyFileError(f"{path} is not a CURVE key file: {error}") from error
    return public, secret


def _write_pair(public_path: Path, secret_path: Path) -> list[Path]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    head = f'metadata\ncurve\n    public-key = "{public}"\n'
    _write_new(public_path, f"#   ZeroMQ CURVE public certificate\n\n{head}".encode(), 0o644)
    _write_new(
        secret_path,
        f"#   ZeroMQ CURVE SECRET certificate: keep it to yourself\n\n{head}"
        f'    secret-key = "{secret}"\n'.encode(),
        0o600,
    )
    return [public_path, secret_path]


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
