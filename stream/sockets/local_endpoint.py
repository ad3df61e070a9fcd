"""A private endpoint for the capture processes of one host."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import zmq

from emostream.errors import LinkError

PREFIX = "emostream-"
MAX_IPC_PATH_BYTES = 100  # sun_path holds 108 on Linux and 104 on macOS, its final NUL included


class LocalEndpoint:
    """Names an endpoint that only this user reaches, and removes what it left on disk.

    ipc in a directory of mode 0700 where libzmq has it (and directories have modes), else a free port of loopback tcp.
    The directory's name carries our process id, so that the next start can remove what a killed predecessor could not.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        if os.name == "posix" and zmq.has("ipc"):
            self.directory = _private_directory()
            self.endpoint = f"ipc://{self.directory / 'i'}"
        else:
            self.endpoint = "tcp://127.0.0.1:*"

    def remove(self) -> None:
        """Remove the directory and the socket file in it."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


def remove_endpoint_directory(endpoint: str) -> None:
    """Remove the directory of an ipc endpoint made by `LocalEndpoint`; for orphans, whose parent no longer can."""
    if endpoint.startswith("ipc://"):
        directory = Path(endpoint.removeprefix("ipc://")).parent
        if directory.name.startswith(PREFIX):
            shutil.rmtree(directory, ignore_errors=True)


def _private_directory() -> Path:
    for root in (tempfile.gettempdir(), "/tmp"):
        if not os.access(root, os.W_OK):
            continue
        _sweep(Path(root))
        directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))  # mode 0700
        if len(os.fsencode(directory / "i")) <= MAX_IPC_PATH_BYTES:
            return directory
        directory.rmdir()
    raise LinkError(
        f"ingest: wanted a temporary directory whose path is shorter than {MAX_IPC_PATH_BYTES} bytes, "
        f"found {tempfile.gettempdir()}; set TMPDIR to a short one"
    )


def _sweep(root: Path) -> None:
    """Remove directories of processes that are gone."""
    for directory in root.glob(f"{PREFIX}*-*"):
        pid = directory.name.removeprefix(PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdecimal() and directory.stat().st_uid == os.getuid() and _is_gone(int(pid)):
                shutil.rmtree(directory, ignore_errors=True)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it runs as another user
    return False
