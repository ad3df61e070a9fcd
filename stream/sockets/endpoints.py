"""Binding ZeroMQ sockets: loopback unless secured, and errors that name the remedy."""

from __future__ import annotations

import ipaddress
import re
import socket as stdlib_socket
from pathlib import Path

import zmq

from emostream.errors import ConfigError, EmostreamError


class BindError(EmostreamError):
    """A socket cannot listen on the endpoint that was asked for."""


def check_exposure(endpoint: str, *, secured: bool, insecure: bool = False) -> None:
    """Refuse to listen beyond this host without keys; call before `bind`.

    Args:
        endpoint: `tcp://HOST:PORT` (PORT may be `*`) or `ipc://PATH`.
        secured: the socket is a CURVE server with an allow-list.
        insecure: the user has asked for an open socket in so many words.

    Raises:
        ConfigError: `endpoint` is malformed, or reachable from other hosts without protection.
    """
    if secured or insecure or is_local(endpoint):
        return
    raise ConfigError(
        f"{endpoint} can be reached from other hosts and would show them everything published: "
        "make keys with `emostream keygen DIR` and pass --curve DIR, or pass --insecure to listen "
        "without protection, or bind to 127.0.0.1"
    )


def is_local(endpoint: str) -> bool:
    """Whether only processes of this host can reach `endpoint`.

    Raises:
        ConfigError: `endpoint` is neither `tcp://HOST:PORT` nor `ipc://PATH`.
    """
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        return True
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:\[\]]+):(\*|\d{1,5})", endpoint)
    # libzmq takes a port modulo 65536 without a word.
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise ConfigError(
            f"endpoint must be tcp://HOST:PORT with a port up to 65535, or ipc://PATH; "
            f"got {endpoint!r}"
        )
    host = match[1].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind and return the endpoint in effect, with the port that `*` became.

    Raises:
        BindError: the address is taken, does not exist on this host, or may not be used.
        ConfigError: `endpoint` is malformed.
    """
    is_local(endpoint)
    if "[" in endpoint:
        socket.ipv6 = True
    if endpoint.startswith("ipc://") and _answers(endpoint.removeprefix("ipc://")):
        # libzmq would unlink the other process's socket file and take its place.
        raise BindError(f"cannot listen on {endpoint}: another process listens on it")
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise BindError(
                f"cannot listen on {endpoint}: the address is in use, perhaps by another "
                "emostream; stop that one or choose another port with --bind or --ingest"
            ) from error
        raise BindError(f"cannot listen on {endpoint}: {error.strerror}") from error
    return socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def remove_ipc_file(endpoint: str) -> None:
    """Delete the socket file of an `ipc://` endpoint that this process bound; libzmq leaves it.

    Call before the socket closes, while no other process can have taken its place.
    """
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    """Whether a process accepts connections on the Unix socket at `path`."""
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
